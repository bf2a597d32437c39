"""Formulas, contrasts and conditions: what they mean, and that nothing but columns gets in."""

from __future__ import annotations

import numpy as np
import pytest
from test_io import project

from gpu_sdm.config import Settings
from gpu_sdm.errors import SettingError
from gpu_sdm.io import read
from gpu_sdm.stages.design import design
from gpu_sdm.stages.linear_model import formula_design, model_of
from gpu_sdm.stages.where import select

NAMES = [f"s{k:02d}" for k in range(12)]
AGE = np.array([21, 25, 24, 33, 29, 41, 38, 52, 47, 60, 35, 44.0])
GROUP = ["MDD", "SCH", "ASD"] * 4
SITE = [1, 2] * 6
GAP = [None, *range(11)]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    rows = ["study\tn1\tt_thr\tage\tgroup\tsite\tgap\tone\tpart"]
    for k, name in enumerate(NAMES):
        gap, part = "" if GAP[k] is None else GAP[k], "NA" if k == 3 else "xy"[k % 2]
        rows.append(f"{name}\t{20 + k}\t3\t{AGE[k]:g}\t{GROUP[k]}\t{SITE[k]}\t{gap}\t7\t{part}")
    files = {f"{n}__no_peaks": "" for n in NAMES}
    return read(project(tmp_path_factory.mktemp("formula"), "\n".join(rows) + "\n", **files))


def is_group(name):
    return np.array([g == name for g in GROUP], float)


def test_a_covariate_in_a_formula_is_the_nuisance_covariate_bit_for_bit(dataset):
    for compat in (False, True):
        ours, theirs = formula_design(dataset, "1 + age", compat=compat), design(
            dataset, ("age",), compat
        )  # fmt: skip
        assert ours.X.tobytes() == theirs.X.tobytes()
        assert ours.names == theirs.names == ("mean", "age")
        np.testing.assert_allclose(ours.criterion, theirs.criterion, rtol=1e-12)
        assert not ours.moderator
        assert ours.tested == ("mean",)


def test_a_constant_covariate_gives_the_mean_model_bit_for_bit(dataset):
    model = formula_design(dataset, "1 + one")
    assert model.X.tobytes() == design(dataset).X.tobytes()
    assert model.names == ("mean",)
    assert model.dataset.counts()["covariate_constant"] == 1
    with pytest.raises(SettingError, match="'one' is not known"):
        formula_design(dataset, "1 + one", ("one",))


@pytest.mark.parametrize("formula", ["0 + C(group)", "1 + C(group)", "group", "-1 + group"])
def test_differences_of_groups_do_not_depend_on_the_coding(dataset, formula, rng):
    """By any coding, in an unweighted fit: the plain difference between two groups' averages."""
    y = rng.normal(size=12)
    for text, one, two in (("MDD - SCH", "MDD", "SCH"), ("ASD - MDD", "ASD", "MDD")):
        model = formula_design(dataset, formula, (text,))
        beta = np.linalg.lstsq(model.X, y, rcond=None)[0]
        wanted = y[is_group(one) == 1].mean() - y[is_group(two) == 1].mean()
        assert model.contrast[0] @ beta == pytest.approx(wanted)
        assert model.moderator
    mean = formula_design(dataset, formula, ("SCH",))
    beta = np.linalg.lstsq(mean.X, y, rcond=None)[0]
    assert mean.contrast[0] @ beta == pytest.approx(y[is_group("SCH") == 1].mean())
    assert not mean.moderator


def test_the_mean_is_that_at_average_covariates(dataset, rng):
    y = rng.normal(size=12)
    model = formula_design(dataset, "1 + age + C(group) + age:C(site)")
    beta = np.linalg.lstsq(model.X, y, rcond=None)[0]
    assert model.contrast[0] @ beta == pytest.approx(y.mean())  # what OLS fits at average columns
    np.testing.assert_allclose(model.X[:, 1:].sum(axis=0), 0, atol=1e-9)


def test_slopes_are_those_of_the_raw_columns(dataset, rng):
    y = rng.normal(size=12)
    raw = np.column_stack([np.ones(12), AGE, is_group("MDD"), is_group("SCH")])
    wanted = np.linalg.lstsq(raw, y, rcond=None)[0]
    model = formula_design(dataset, "1 + age + group", ("age",))
    beta = np.linalg.lstsq(model.X, y, rcond=None)[0]
    assert beta[model.names.index("age")] == pytest.approx(wanted[1])
    assert beta[model.names.index("group[T.MDD]")] == pytest.approx(wanted[2])
    square = formula_design(dataset, "1 + poly(age, 2)", ("poly(age, 2)",))
    space = np.column_stack([np.ones(12), AGE, AGE**2])
    np.testing.assert_allclose(
        square.X @ np.linalg.pinv(square.X), space @ np.linalg.pinv(space), atol=1e-8
    )
    assert len(square.contrast) == 2
    scaled = formula_design(dataset, "1 + scale(age)", ("scale(age)",))
    assert scaled.X[:, 1].std(ddof=1) == pytest.approx(1)


CONTRASTS = {
    "age": ([[0, 0, 0, 1]], True),
    "0,1,-1,0": ([[0, 1, -1, 0]], True),
    "0.5*MDD + 0.5*SCH - ASD": ([[-1, 0.5, 0.5, 0]], True),
    "C(group)[SCH]-MDD": ([[0, -1, 1, 0]], True),
    "MDD": ([[0, 1, 0, 0]], False),
}


@pytest.mark.parametrize("text", CONTRASTS)
def test_contrasts(dataset, text):
    model = formula_design(dataset, "0 + C(group) + age", (text,))
    rows, moderator = CONTRASTS[text]
    assert model.contrast.tolist() == rows
    assert model.moderator is moderator
    assert np.array_equal(model.criterion, model.contrast[0])


def test_several_rows_are_tested_jointly_and_their_order_does_not_matter(dataset):
    one = formula_design(dataset, "1 + age + C(group)", ("C(group)",))
    two = formula_design(dataset, "1 + age + C(group)", ("SCH - ASD", "MDD - ASD"))
    assert one.contrast.shape == two.contrast.shape == (2, 4)
    np.testing.assert_allclose(one.contrast, two.contrast[::-1], atol=1e-12)
    np.testing.assert_allclose(one.criterion, two.criterion)
    np.testing.assert_allclose(one.X @ one.criterion, 1)


def test_studies_without_a_value_leave_and_are_named(dataset):
    model = formula_design(dataset, "1 + gap + part")
    assert len(model.dataset.studies) == 10
    said = [n.message for n in model.dataset.notices if n.kind == "covariate_missing"]
    assert said == [
        "study 's00' has no value of 'gap'; it leaves this model.",
        "study 's03' has no value of 'part'; it leaves this model.",
    ]


BAD = {
    ("age ~ 1", ()): "has a left side",
    ("1 + agee", ()): "'agee' is not in the table; it has: age, site, gap, one, group, part",
    ("np.log(age)", ()): r"np.log\(\) is not allowed; it may hold columns",
    ("1 + __import__('os').system('true')", ()): "is not allowed",
    ("1 + I(age)", ()): r"I\(\) is not allowed",
    ("1 + C(open)", ()): "'open' is not in the table",
    ("age[0]", ()): r"'\[0\]' is not allowed",
    ("1 + age if 1 else 0", ()): "'if' is not in the table",
    ("poly(age, 9)", ()): "degree of poly",
    ("poly(age, age)", ()): "degree of poly",
    ("scale(age + site)", ()): r"scale\(\) takes one column",
    ("1 + 2", ()): "2 is no term",
    ("1 + age +", ()): "cannot be read",
    ("", ()): "it is empty",
    ("C(age) + age", ()): "both as a number and as",
    ("0 + age", ("age",)): "all effects cannot be equal",
    ("0 + group", ()): "has no mean; name a contrast",
    ("1 + age + scale(age)", ()): r"'scale\(age\)' is a combination of the others \(age\)",
    ("1 + C(age)", ()): "the model has 12 coefficients for 12 studies; it needs at least 14",
    ("1 + age", ("1,2,3",)): "has 3 weights; the model has 2 coefficients: mean, age",
    ("1 + age", ("age - nothing",)): "'nothing' is not known",
    ("1 + age", ("age", "age")): "follows from those before it",
    ("1 + age", ("0,0",)): "gives weights of",
    ("1 + age + site", ("mean", "age")): "'mean' is a mean and cannot be tested jointly",
}


@pytest.mark.parametrize(("formula", "contrasts"), BAD)
def test_what_cannot_be_fitted_is_refused_in_one_sentence(dataset, formula, contrasts):
    with pytest.raises(SettingError, match=BAD[formula, contrasts]) as caught:
        formula_design(dataset, formula, contrasts)
    assert "\n" not in str(caught.value)


def test_few_studies_are_warned_of(dataset):
    few = dataset.subset(NAMES[:4])
    assert formula_design(few, "1 + age").dataset.counts()["few_studies"] == 1


WHERE = {
    "group == 'MDD'": [0, 3, 6, 9],
    "age < 25 or n1 >= 31": [0, 2, 11],
    "not group in ('MDD', 'SCH') and site != 2": [2, 8],
    "24 <= age < 30": [1, 2, 4],
    "gap > -1 and study != 's01'": list(range(2, 12)),
    "site == 1 and part == 'y'": [],
}


@pytest.mark.parametrize("where", WHERE)
def test_conditions(dataset, where):
    wanted = [NAMES[k] for k in WHERE[where]]
    if len(wanted) < 2:
        with pytest.raises(SettingError, match="holds for 0 of 12 studies"):
            select(dataset, where)
        return
    assert list(select(dataset, where).names) == wanted
    if len(wanted) > 2:
        assert model_of(dataset, Settings(where=where)).dataset.names == tuple(wanted)


def test_a_study_of_which_the_condition_is_unknown_is_left_out_and_named(dataset):
    kept = select(dataset, "gap < 3")
    assert list(kept.names) == ["s01", "s02", "s03"]
    said = [n.message for n in kept.notices if n.kind == "where_missing"]
    assert said == ["study 's00' has no value of 'gap'; it is left out."]


@pytest.mark.parametrize(
    "where",
    [
        "__import__('os').system('true') == 0",
        "open('x') == 1",
        "(lambda: 1)() == 1",
        "age.real > 1",
        "[a for a in (1,)] == 1",
        "age",
        "age ==",
        "age == 'x'",
        "group == MDD",
        "group in 'MDD'",
        "nothing == 1",
        "age == True",
        "age > 1 if 1 else 0",
    ],
)
def test_conditions_are_never_code(dataset, where):
    with pytest.raises(SettingError, match="where"):
        select(dataset, where)


def test_settings():
    with pytest.raises(SettingError, match="exclude each other"):
        Settings(formula="1 + age", covariates=("age",))
    with pytest.raises(SettingError, match="contrast needs a formula"):
        Settings(contrast=("age",))
    asked = Settings(formula="1 + age", contrast=("age",), where="age > 3")
    stored = asked.as_dict()
    assert Settings.from_dict(stored) == asked
    assert not asked.differences(stored)
    old = {
        k: v for k, v in Settings().as_dict().items() if k not in ("formula", "contrast", "where")
    }
    assert Settings.from_dict(old) == Settings()
    assert not Settings().differences(old)
    assert len(asked.differences(old)) == 3
