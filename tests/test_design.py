import numpy as np
import pytest
from test_io import project

from gpu_sdm.errors import SettingError
from gpu_sdm.io import read
from gpu_sdm.stages.design import covariate_values, design

HEADER = "study\tn1\tt_thr\tage\tage2\ttwice\tsite\tsoft\tgap\tnone\n"
ROWS = [
    "a\t20\t3\t20\t400\t41\t1\tspm\t1\t",
    "b\t20\t3\t30\t900\t61\t1\tfsl\t\t",
    "c\t20\t3\t35\t1225\t71\t1\tspm\t3\tNA",
    "d\t20\t3\t50\t2500\t101\t1\tspm\t4\t",
    "e\t20\t3\t40\t1600\t81\t1\tspm\t6\t",
]


@pytest.fixture
def dataset(tmp_path):
    files = {f"{n}__spm_mni": "1 2 3 4\n" for n in "abcde"}
    return read(project(tmp_path, HEADER + "\n".join(ROWS), **files))


def kinds(dataset):
    return dataset.counts()


def test_no_covariates_is_a_column_of_ones(dataset):
    model = design(dataset)
    assert np.array_equal(model.X, np.ones((5, 1)))
    assert model.names == ("mean",)
    assert model.criterion.tolist() == [1]
    assert not kinds(model.dataset)


def test_covariates_are_centred_so_that_the_intercept_is_the_mean_effect(dataset):
    model = design(dataset, ("age", "age2"))
    assert model.names == ("mean", "age", "age2")
    assert model.means.tolist() == [35, 1325]
    assert model.X[:, 1].tolist() == [-15, -5, 0, 15, 5]
    np.testing.assert_allclose(model.X[:, 1:].sum(axis=0), 0, atol=1e-9)
    assert model.criterion.tolist() == [1, 0, 0]
    assert not model.X.flags.writeable
    # The criterion gives the effect at average covariates; in compat mode at raw zeros.
    beta = np.array([0.5, 0.1, -0.01])
    compat = design(dataset, ("age", "age2"), compat=True)
    raw = np.linalg.lstsq(
        np.c_[np.ones(5), model.X[:, 1:] + model.means], model.X @ beta, rcond=None
    )[0]
    assert compat.criterion @ beta == pytest.approx(raw[0], abs=1e-9)
    assert model.criterion @ beta == 0.5
    assert np.array_equal(compat.X, model.X)


def test_zero_outside_the_range_is_said_in_compat_only(dataset):
    assert kinds(design(dataset, ("age",)).dataset) == {}
    compat = design(dataset, ("age",), compat=True)
    assert kinds(compat.dataset) == {"zero_outside_covariate_range": 1}
    assert "from 20 to 50" in compat.dataset.notices[-1].message


def test_a_constant_covariate_gives_the_mean_model_bit_for_bit(dataset):
    model, plain = design(dataset, ("site",)), design(dataset)
    assert model.X.tobytes() == plain.X.tobytes()
    assert model.names == plain.names
    assert kinds(model.dataset) == {"covariate_constant": 1}


def test_a_study_without_a_value_leaves_the_model(dataset):
    kept, values = covariate_values(dataset, ("gap", "age"))
    assert kept.names == ("a", "c", "d", "e")
    assert values.tolist() == [[1, 20], [3, 35], [4, 50], [6, 40]]
    assert "study 'b' has no value of 'gap'" in kept.notices[-1].message
    model = design(dataset, ("gap",))
    assert model.X.shape == (4, 2)
    assert kinds(model.dataset) == {"covariate_missing": 1, "few_studies": 1}
    assert dataset.names == ("a", "b", "c", "d", "e")


BAD = {
    "iq": r"covariate 'iq' is not in the table; it has: age, age2, twice, site, gap, none",
    "soft": r"covariate 'soft' is not numeric \(a has 'spm'\); code it as numbers",
    "none": r"covariate 'none' has no value for any study",
    "age+twice": r"covariate 'twice' is a combination of the others \(age\)",
    "age+age2+gap": r"the model has 4 coefficients for 4 studies; it needs at least 6",
}


@pytest.mark.parametrize("covariates", BAD)
def test_models_that_cannot_be_fitted(dataset, covariates):
    with pytest.raises(SettingError, match=BAD[covariates]):
        design(dataset, covariates.split("+"))


@pytest.mark.parametrize("cells", [("1e308", "-1e308"), ("1e-200", "3e-200")])
def test_values_that_arithmetic_cannot_hold(tmp_path, cells):
    rows = "".join(f"{n}\t20\t3\t{c}\n" for n, c in zip("abcd", cells * 2, strict=True))
    files = {f"{n}__no_peaks": "" for n in "abcd"}
    data = read(project(tmp_path, "study\tn1\tt_thr\tage\n" + rows, **files))
    with pytest.raises(SettingError, match=r"covariate 'age' runs from .*; rescale it"):
        design(data, ("age",))


def test_a_covariate_constant_but_for_rounding_is_constant(tmp_path):
    cells = (0.1 + 0.2, 0.3, 0.3, 0.3)
    rows = "".join(f"{n}\t20\t3\t{c!r}\n" for n, c in zip("abcd", cells, strict=True))
    files = {f"{n}__no_peaks": "" for n in "abcd"}
    data = read(project(tmp_path, "study\tn1\tt_thr\tage\n" + rows, **files))
    model = design(data, ("age",))
    assert np.array_equal(model.X, np.ones((4, 1)))
    assert model.dataset.counts()["covariate_constant"] == 1


def test_two_studies_are_too_few_for_a_mean(dataset):
    with pytest.raises(SettingError, match=r"1 coefficient for 2 studies; it needs at least 3"):
        design(dataset.subset(["a", "b"]))


def test_real_covariates(enge2021):
    dataset = read(enge2021 / "project")
    model = design(dataset, ("age_mean_c", "age_mean_c_2", "modality_pres"), compat=True)
    assert model.X.shape == (50, 4)
    assert np.linalg.matrix_rank(model.X) == 4
    assert kinds(model.dataset).keys() <= {
        "unknown_height", "peak_below_threshold", "duplicate_peak", "zero_outside_covariate_range"
    }  # fmt: skip
