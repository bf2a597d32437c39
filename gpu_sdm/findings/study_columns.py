"""What the further columns of an input hold, told from their names: ages, sex, treatment, ..."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from gpu_sdm.data import Study
from gpu_sdm.errors import InputError
from gpu_sdm.io._text import shown

MISSING = "NA"
ROUNDING = 1e-9  # percent; 100 times a share need not be 100 in the last bit


def _words(meaning: Mapping[str, str]) -> dict[str, str]:
    return {word: name for name, words in meaning.items() for word in words.split()}


# Words of a name (their order, case and punctuation do not matter) -> what they stand for.
GROUP = _words(
    {
        # Not 1 and 2 alone: age2 is as often the square of age.
        "patients": "patients patient pat cases case n1 g1 group1",
        "controls": "controls control con hc healthy n2 g2 group2",
    }
)
QUANTITY = _words(
    {
        "age": "age ages",
        "female": "female females women",
        "male": "male males men",
        "treated": "treated treatment medicated medication drugs med",
        "disorder": "disorder diagnosis diagnoses condition",
        "threshold": "threshold thr",
        "correction": "correction",
        "space": "space",
        "software": "software",
        "contrast": "contrast contrasts",
        "directions": "direction directions",
        "paradigm": "paradigm task stimulus stimuli",
    }
)
FORM = _words(
    {
        "sd": "sd std stdev",
        "percent": "percent percentage pct perc",
        "share": "share proportion ratio fraction",
        "count": "n count number",
        "p": "p",
    }
)
FILLERS = {"mean", "average", "avg", "years", "yrs", "in", "of", "the", "reported", "all"}
OF_GROUPS = ("age", "female", "male", "treated")  # the others are of the study


@dataclass(frozen=True)
class Column:
    """What the name of a column says.

    Parameters
    ----------
    quantity : str
        A value of `QUANTITY`.
    group : {"patients", "controls", ""}
        "" for both together.
    form : {"", "sd", "percent", "share", "count", "p"}
        How the quantity is given; "" where the name does not say.
    """

    quantity: str
    group: str = ""
    form: str = ""


def understood(name: str) -> Column | None:
    """Tell what a column holds from its name; None unless every word of it is known.

    Examples
    --------
    >>> understood("Age patients (SD)")
    Column(quantity='age', group='patients', form='sd')
    >>> understood("female %")
    Column(quantity='female', group='', form='percent')
    >>> understood("age of onset") is None
    True
    """
    spaced = re.sub(r"([a-z])([A-Z])", r"\1 \2", name).replace("%", " percent ").lower()
    spaced = re.sub(r"([a-z])(\d)", r"\1 \2", spaced.replace("_", " "))
    spaced = re.sub(r"\b(n|g|group) (?=[12]\b)", r"\1", spaced)
    found: dict[str, str] = {}
    for word in re.findall(r"[a-z]+\d*|\d+", spaced):
        if word in FILLERS:
            continue
        kinds = {"quantity": QUANTITY, "group": GROUP, "form": FORM}
        kind = next((k for k, words in kinds.items() if word in words and k not in found), None)
        if kind is None:
            return None
        found[kind] = kinds[kind][word]
    quantity = found.get("quantity")
    if quantity is None or ("group" in found and quantity not in OF_GROUPS):
        return None
    return Column(quantity, found.get("group", ""), found.get("form", ""))


@dataclass(frozen=True)
class Columns:
    """The further columns of an input, sorted into those that are understood and the others.

    Parameters
    ----------
    known : dict
        What a column says -> its name.
    unknown : tuple of str
        Names of the others, in order; of two that say the same, the second.
    """

    known: Mapping[Column, str]
    unknown: tuple[str, ...]

    @classmethod
    def of(cls, studies: Sequence[Study]) -> Columns:
        """Sort the columns of some studies."""
        names = dict.fromkeys(c for s in studies for c in (*s.covariates, *s.labels))
        known: dict[Column, str] = {}
        for name in names:
            column = understood(name)
            if column is not None:
                known.setdefault(column, name)
        return cls(known, tuple(n for n in names if n not in known.values()))

    def name(self, quantity: str, group: str = "", form: str = "") -> str | None:
        """Name of the column that says this."""
        return self.known.get(Column(quantity, group, form))

    def percent(self, quantity: str, group: str = "") -> Callable[[Study], float] | None:
        """Make the reader of the percentage of a group that has a quality.

        Parameters
        ----------
        quantity : {"female", "treated"}
            Which quality; a column of males is turned round.
        group : {"patients", "controls", ""}
            Of whom.

        Returns
        -------
        callable or None
            Study -> percent, NaN where missing; None where no column says. A name that does not
            say percent, share or number is taken as percent. It raises InputError where that is
            less than 0 or more than 100.
        """
        for form in ("percent", "", "share", "count"):
            name = self.name(quantity, group, form)
            if name is not None:
                return lambda s: _percent(s, name, form, size(s, group))
        males = self.percent("male", group) if quantity == "female" else None
        return None if males is None else lambda s: 100.0 - males(s)


def _percent(study: Study, name: str, form: str, subjects: int) -> float:
    given = value(study, name)
    percent = given * {"share": 100.0, "count": 100.0 / max(subjects, 1)}.get(form, 1.0)
    if percent < 0 or percent > 100 + ROUNDING:
        of = f" of {subjects} subjects" if form == "count" else ""
        raise InputError(
            f"study {shown(study.name)} has {name} = {given:g}{of}, which is {percent:.4g} %; "
            "correct it, or the name of the column: it may say percent, share or n."
        )
    return min(percent, 100.0)


def size(study: Study, group: str) -> int:
    """Subjects of a group of a study; of both for ""."""
    return {"patients": study.n1, "controls": study.n2}.get(group, study.n)


def value(study: Study, name: str | None) -> float:
    """Give a number of a study's column; NaN where there is none."""
    return math.nan if name is None else study.covariates.get(name, math.nan)


def cell(study: Study, name: str | None) -> str:
    """Give a study's column as text, a number as short as it is; "NA" where missing."""
    if name is None:
        return MISSING
    if name in study.labels:
        return study.labels[name] or MISSING
    number = value(study, name)
    return MISSING if math.isnan(number) else f"{number:.10g}"
