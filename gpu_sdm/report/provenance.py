"""Where a result comes from: the command that repeats it, settings, versions, hashes, timings."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from gpu_sdm.config import BEFORE, CLUSTER_STATISTICS, Settings
from gpu_sdm.report.facts import Facts
from gpu_sdm.report.html import Html, join, tag

# Options of the command line that are not the setting's name.
JOINED = ("covariates",)
REPEATED = ("statistic", "contrast")


def _left_out(name: str, value: Any, default: Any, stored: Mapping[str, Any]) -> bool:
    """Whether the command needs no option for a setting."""
    if name == "permutations":
        return False
    if name == "cluster_threshold":
        return not set(stored["statistic"]) & set(CLUSTER_STATISTICS)
    if name.startswith("stop_") and stored["stop_at"] is None:
        return True
    if name == "impute_under" and stored["formula"] is None:
        return True  # says nothing of a mean
    return value == default or value is None or value == []


def command(facts: Facts) -> str:
    """Write the command that makes the result again: every setting that is not the default."""
    stored = BEFORE | dict(facts.run["settings"])
    usual = Settings().as_dict()
    modelled = stored["formula"] is not None or stored["where"] is not None
    words = ["gpu-sdm", "model" if modelled else "permute", facts.run["project"]]
    words += ["--out", str(facts.finished.folder)]
    # An extended result has more of them than its settings say; one that stopped has fewer.
    asked = stored if facts.exact or "sequential" in facts.run else facts.run
    for name, default in usual.items():
        value = asked["permutations"] if name == "permutations" else stored.get(name, default)
        if _left_out(name, value, default, stored):
            continue
        option = "--" + name.replace("_", "-")
        if name == "stop_at":  # a minus sign would be taken for an option
            words.append(f"{option}={','.join(f'{v:g}' for v in value)}")
        elif name in JOINED:
            words += [option, "+".join(value)]
        elif name in REPEATED:
            words += [word for one in value for word in (option, str(one))]
        else:
            words += [option, f"{value:.15g}" if isinstance(value, float) else str(value)]
    return shlex.join(words)


def _value(value: Any) -> str:
    if value is None or value == []:
        return "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return str(value)


def _pairs(content: Mapping[str, Any], mono: bool = False) -> Html:
    return tag(
        "dl",
        *(
            tag("div", tag("dt", str(k).replace("_", " ")), tag("dd", _value(v)))
            for k, v in content.items()
        ),
        class_="pairs mono" if mono else "pairs",
    )


def provenance(facts: Facts) -> Html:
    """Give the whole section."""
    run = facts.run
    backend = run["backend"]
    seconds = {stage: f"{value:.1f} s" for stage, value in run["timings_s"].items()}
    seconds["all"] = f"{sum(run['timings_s'].values()):.1f} s"
    hashes = {name: value for name, value in run["content"].items() if name != "program"}
    told = {
        "project": run["project"],
        "backend": f"{backend['name']}, {backend['threads']} threads ({backend['why']})",
        "seed": run["settings"]["seed"],
        "permutations": f"{facts.permutations:,}, {'exact' if facts.exact else 'random'}, of "
        f"{run['distinct_permutations']:,} distinct ones"
        if isinstance(run["distinct_permutations"], int)
        else f"{facts.permutations:,} of {run['distinct_permutations']} distinct ones",
        "imputations": run["imputations"],
        "model": ", ".join(run["model"]),
        "optimum not reached": f"{run['voxels_not_converged']} voxels"
        if "voxels_not_converged" in run
        else None,
    }
    return join(
        [
            tag("h3", "To repeat it"),
            tag("pre", tag("code", command(facts)), data_copy="the command"),
            tag("h3", "Run"),
            _pairs({k: v for k, v in told.items() if v is not None}),
            tag("h3", "Settings"),
            _pairs(run["settings"]),
            tag("h3", "Versions"),
            _pairs(run["versions"]),
            tag("h3", "Time"),
            _pairs(seconds),
            tag(
                "details",
                tag("summary", f"Content hashes of the {len(hashes):,} inputs (SHA-256)"),
                _pairs(hashes, mono=True),
                class_="plain",
            ),
            tag("p", "All of this, and every notice, is in ", tag("code", "run.json"),
                " beside this page.", class_="note"),
        ]
    )  # fmt: skip
