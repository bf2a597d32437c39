"""What of a model is tested: "age", "patients - controls", "0,1,-1" become rows of weights."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from gpu_sdm.errors import SettingError
from gpu_sdm.io._text import shown

NUMBER = re.compile(r"\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|\.\d+")
WEIGHTS = re.compile(r"^[-+.\deE\s]+(?:,[-+.\deE\s]+)+$")


def _weights(text: str, names: Sequence[str]) -> np.ndarray:
    try:
        values = [float(w) for w in text.split(",")]
    except ValueError as error:
        raise SettingError(
            f"contrast is {shown(text, 200)}; give {len(names)} weights, one for each of: "
            f"{', '.join(names)}."
        ) from error
    if len(values) != len(names):
        raise SettingError(
            f"contrast {shown(text, 200)} has {len(values)} weights; the model has {len(names)} "
            f"coefficients: {', '.join(names)}."
        )
    return np.array(values)


def _combination(text: str, known: Mapping[str, np.ndarray]) -> np.ndarray:
    """Weights of a sum of known names, each with a sign and perhaps a number: "a - 0.5*b"."""
    longest = sorted(known, key=len, reverse=True)
    total = np.zeros_like(next(iter(known.values())))
    at, first = 0, True
    while at < len(text):
        rest = text[at:]
        sign = re.match(r"\s*([-+])?\s*", rest)
        assert sign is not None
        if sign[1] is None and not first:
            break
        at += sign.end()
        factor = -1.0 if sign[1] == "-" else 1.0
        number = re.match(rf"({NUMBER.pattern})\s*\*\s*", text[at:])
        if number:
            factor *= float(number[1])
            if not np.isfinite(factor):
                break
            at += number.end()
        name = next((n for n in longest if _starts(text[at:], n)), None)
        if name is None:
            break
        total = total + factor * known[name]
        at += len(name)
        first = False
        if not text[at:].strip():
            return total
    raise SettingError(
        f"contrast is {shown(text, 200)}, of which {shown(text[at:].strip())} is not known; write "
        f'weights ("0,1,-1") or names such as "a - b" of: '
        f"{', '.join(n for n in known if '[' not in n or '[T.' in n)}."
    )


def _starts(text: str, name: str) -> bool:
    """Whether `text` begins with `name` as a whole word."""
    if not text.startswith(name):
        return False
    after = text[len(name) : len(name) + 1]
    return not (after and (after.isalnum() or after in "_.[(:"))


def contrast_rows(
    contrasts: Sequence[str],
    names: Sequence[str],
    terms: Mapping[str, Sequence[int]],
    levels: Mapping[str, np.ndarray],
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Turn contrasts into rows of weights on the coefficients.

    Parameters
    ----------
    contrasts : sequence of str
        Each a coefficient's name, a term with several columns (one row each), weights with
        commas, or a sum of names of coefficients and levels ("MDD - SCH", "a + b - 2*c").
    names : sequence of str
        Q coefficients.
    terms : mapping of str to columns
        Terms by name.
    levels : mapping of str to (Q,) float64
        What the mean effect of a level is in terms of the coefficients.

    Returns
    -------
    rows : (R, Q) float64
    labels : tuple of str
        R texts.

    Raises
    ------
    SettingError
        If a contrast cannot be read, or a row is zero or follows from the others.
    """
    unit = dict(zip(names, np.eye(len(names)), strict=True))
    known = {**levels, **unit}
    rows: list[np.ndarray] = []
    labels: list[str] = []
    for text in (c.strip() for c in contrasts):
        if text in known:
            rows.append(known[text])
            labels.append(text)
        elif text in terms:
            rows += [np.eye(len(names))[c] for c in terms[text]]
            labels += [names[c] for c in terms[text]]
        else:
            rows.append(_weights(text, names) if WEIGHTS.match(text) else _combination(text, known))
            labels.append(text)
    found = np.array(rows, np.float64).reshape(len(rows), len(names))
    for i in range(len(found)):
        if not np.isfinite(found[i]).all() or not np.abs(found[i]).max() > 0:
            raise SettingError(
                f"contrast {shown(labels[i], 200)} gives weights of {found[i].tolist()}."
            )
        if np.linalg.matrix_rank(found[: i + 1]) <= i:
            raise SettingError(
                f"contrast {shown(labels[i], 200)} follows from those before it; leave it out."
            )
    return found, tuple(labels)
