"""Linear models: a formula and what is tested of it become a checked design."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpu_sdm.config import Settings
from gpu_sdm.data import Dataset, Notice
from gpu_sdm.errors import SettingError
from gpu_sdm.stages.contrast import contrast_rows
from gpu_sdm.stages.design import (
    COLLINEAR,
    INTERCEPT,
    ROUNDING,
    Design,
    design,
    refuse_collinear,
    require_scale,
    require_studies,
)
from gpu_sdm.stages.formula import Matrix, columns_of, complete, level_values, model_matrix
from gpu_sdm.stages.samples import merge_samples
from gpu_sdm.stages.where import select


def _levels(
    made: Matrix, names: Sequence[str], x: np.ndarray, dataset: Dataset
) -> dict[str, np.ndarray]:
    """Mean effect of each level of each factor, all else at its average: name -> (Q,) weights."""
    found: dict[str, list[np.ndarray]] = {}
    multiplied = {f for fs in made.factors.values() if len(fs) > 1 for f in fs}
    intercept = INTERCEPT in names
    for term, at in made.terms.items():
        labels = [made.names[i].removeprefix(term) for i in at]
        if len(made.factors[term]) > 1 or term in multiplied or "poly(" in term:
            continue
        if not all(t.startswith("[") for t in labels):
            continue
        own = {t: names.index(made.names[i]) for t, i in zip(labels, at, strict=True)
               if made.names[i] in names}  # fmt: skip
        full = not any(t.startswith("[T.") for t in labels)
        if not full and not intercept:
            continue
        base = np.zeros(len(names))
        if not full:
            base[names.index(INTERCEPT)] = 1.0
            for j in own.values():
                base[j] = x[:, j].min()  # of a centred indicator: its absence
        column = term.removeprefix("C(").removesuffix(")").strip("`")
        rows = {}
        for text, j in own.items():
            row = base.copy()
            row[j] = 1.0 if full else x[:, j].max()
            rows[text[1:-1].removeprefix("T.")] = row
        if not full:
            reference = set(level_values(dataset, column)) - set(rows)
            rows |= dict.fromkeys(reference, base)
        for level, row in rows.items():
            for alias in (level, f"{column}[{level}]", f"C({column})[{level}]"):
                found.setdefault(alias, []).append(row)
    # A name that two factors share, or that reads as a number, means nothing.
    return {
        alias: rows[0]
        for alias, rows in found.items()
        if all(np.array_equal(r, rows[0]) for r in rows) and not _is_number(alias)
    }


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def formula_design(
    dataset: Dataset, formula: str, contrasts: Sequence[str] = (), compat: bool = False
) -> Design:
    """Build the design of a formula and the rows that are tested.

    Parameters
    ----------
    dataset : Dataset
        What was read.
    formula : str
        For example "1 + age + C(medication)"; without "0 +" it has an intercept.
    contrasts : sequence of str
        See `contrast_rows`; the mean by default.
    compat : bool
        Leave-one-out criterion of the mean at raw covariates = 0, as in SDM-PSI 6.21.

    Returns
    -------
    Design
        Beside an intercept, every column is mean-centred: the coefficient "mean" is the mean
        effect at average covariates. Numeric columns are centred in any case.

    Raises
    ------
    SettingError
        If formula or contrast cannot be read, the design is rank-deficient, or fewer than two
        degrees of freedom are left.
    """
    first = dataset.studies[0]
    columns, categorical = columns_of(formula, [*first.covariates, *first.labels])
    if INTERCEPT in columns:
        raise SettingError(f"formula uses a column named {INTERCEPT!r}; give it another name.")
    dataset = complete(dataset, columns)
    for c in columns:
        if c in first.covariates:
            require_scale(c, np.array([s.covariates[c] for s in dataset.studies]))
    made = model_matrix(formula, dataset, categorical, centre=True)
    notices: list[Notice] = []
    kept, names, means = [], [], []
    intercept = "Intercept" in made.names
    for name, raw in zip(made.names, made.x.T, strict=True):
        size = np.abs(raw).max(initial=0.0)
        if name == "Intercept":
            kept.append(raw)
            names.append(INTERCEPT)
            continue
        if intercept and np.ptp(raw) <= ROUNDING * size:
            text = f"covariate {name!r} is the same in every study; it is left out."
            notices.append(Notice("covariate_constant", text))
            continue
        # Indicators beside a full set of others are centred too: groups at average covariates.
        centred = intercept or ("[T." in name and ":" not in name)
        mean = raw.mean() if centred else 0.0
        # What is centred already keeps its bits.
        kept.append(raw - mean if abs(mean) > ROUNDING * size else raw)
        means.append(mean)
        names.append(name)
    if not kept:
        raise SettingError(f"formula is {formula!r}, which has no coefficient; write 1 for a mean.")
    x = np.stack(kept, axis=1)
    notices += require_studies(x)
    refuse_collinear(x, names)
    ones, *_ = np.linalg.lstsq(x, np.ones(len(x)), rcond=None)
    if np.abs(x @ ones - 1).max() > COLLINEAR:
        raise SettingError(
            f"formula is {formula!r}, in which all effects cannot be equal; write 1 + or a factor "
            "with all its levels (0 + C(group))."
        )
    if not contrasts and not intercept:
        raise SettingError(f"formula {formula!r} has no mean; name a contrast: {', '.join(names)}.")
    terms = {t: [names.index(made.names[i]) for i in at if made.names[i] in names]
             for t, at in made.terms.items()}  # fmt: skip
    rows, tested = contrast_rows(
        contrasts or (INTERCEPT,),
        names,
        {alias: at for t, at in terms.items() if len(at) > 1 for alias in (t, f"C({t})")},
        _levels(made, names, x, dataset),
    )
    null = np.abs(rows @ ones) <= COLLINEAR * np.abs(rows).max(axis=1) * np.abs(ones).max()
    if len(rows) > 1 and not null.all():
        raise SettingError(
            f"{tested[int(np.argmin(null))]!r} is a mean and cannot be tested jointly with others; "
            "joint tests are of slopes and differences. Test it by its own contrast."
        )
    mean_tested = intercept and np.array_equal(rows[0], np.eye(len(names))[0])
    criterion = rows[0] if len(rows) == 1 else ones
    if compat and mean_tested:
        raw = model_matrix(formula, dataset, categorical, centre=False)
        criterion = np.linalg.lstsq(raw.x, x, rcond=None)[0][raw.names.index("Intercept")]
    return Design(
        dataset.subset(dataset.names, notices),
        x,
        tuple(names),
        np.array(means, np.float64),
        criterion.copy(),
        rows,
        tested,
        bool(null.all()),
    )


def model_of(dataset: Dataset, settings: Settings) -> Design:
    """Build the model that the settings ask for, of the studies they choose.

    Raises
    ------
    SettingError, InputError
        If the studies or the model cannot be used.
    """
    dataset = merge_samples(select(dataset, settings.where), settings.sample_correlation)
    if settings.formula is None:
        return design(dataset, settings.covariates, settings.sdm_compat)
    return formula_design(dataset, settings.formula, settings.contrast, settings.sdm_compat)
