"""Say of several rows of a table that they are contrasts of one sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gpu_sdm.data import Dataset
from gpu_sdm.errors import SettingError
from gpu_sdm.io._text import shown
from gpu_sdm.io.sdm_table import MISSING, SAMPLE
from gpu_sdm.stages.samples import merge_samples, sample_label


def named(texts: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """Studies of "A,B" or of several such texts; a name may hold a comma itself."""
    found: list[str] = []
    for text in texts:
        found += [text] if text in known else [part.strip() for part in text.split(",")]
    return tuple(name for name in dict.fromkeys(found) if name)


def combine(
    dataset: Dataset, studies: Sequence[str], name: str, correlation: float = 0.5
) -> Dataset:
    """Fill in the column `sample` for contrasts of one sample.

    Parameters
    ----------
    dataset : Dataset
        Contrasts as read.
    studies : sequence of str
        Names of two contrasts or more; one with those that have the label already.
    name : str
        Label, and name of the study that they will be.
    correlation : float
        0 to 1; checked, as a project does not hold it.

    Returns
    -------
    Dataset
        Nothing is averaged yet: `gpu_sdm.stages.samples.merge_samples` does.

    Raises
    ------
    SettingError
        If a study is unknown or belongs to another sample, or there is nothing to combine.
    InputError
        If their sizes differ, or the name cannot be used.
    """
    names = dataset.names
    for unknown in (s for s in studies if s not in names):
        raise SettingError(f"study {shown(unknown)} is not there; there are: {', '.join(names)}.")
    if name.strip() != name or " ".join(name.split()) != name or name.lower() in MISSING:
        raise SettingError(
            f"--name is {shown(name)}; it must be a text with single blanks that does not stand "
            "for a missing value."
        )
    chosen = set(studies)
    labels = {}
    for study in dataset.studies:
        label = sample_label(study)
        if study.name in chosen and label not in ("", name):
            others = [s.name for s in dataset.studies if sample_label(s) == label]
            if len(others) > 1:
                raise SettingError(
                    f"study {shown(study.name)} already belongs to sample {shown(label)} "
                    f"({', '.join(others)}); name that sample, or mend the column {SAMPLE}."
                )
        labels[study.name] = name if study.name in chosen else label
    if list(labels.values()).count(name) < 2:
        raise SettingError("one contrast is a study as it stands; name two or more: --studies A,B.")
    filled = replace(
        dataset,
        studies=tuple(
            replace(
                s,
                covariates={c: v for c, v in s.covariates.items() if c != SAMPLE},
                labels={**s.labels, SAMPLE: labels[s.name]},
            )
            for s in dataset.studies
        ),
    )
    merge_samples(filled, correlation)  # refuses what permute would
    return filled
