"""Shared fixtures: the folder of real test data, and loud skips where it is absent."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

DATA = Path(os.environ.get("GPU_SDM_DATA", Path(__file__).parents[1].parent / "shared" / "data"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """On a GPU CuPy may warn as it likes; what NumPy warns of stays an error."""
    for item in items:
        if item.get_closest_marker("cuda"):
            for kind in ("UserWarning", "DeprecationWarning", "FutureWarning"):
                item.add_marker(pytest.mark.filterwarnings(f"default::{kind}"))


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory):
    """Tests neither read nor fill the user's cache."""
    os.environ["GPU_SDM_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session", autouse=True)
def _one_blas_thread() -> Iterator[None]:
    """As an analysis runs: on some processors the bits of a product change with its threads."""
    try:  # a bare machine with a GPU may have none
        from threadpoolctl import threadpool_limits
    except ImportError:
        yield
        return
    with threadpool_limits(1, user_api="blas"):
        yield


def _data(name: str) -> Path:
    folder = DATA / name
    if not folder.exists():
        pytest.skip(f"REAL DATA ABSENT: {name} (set GPU_SDM_DATA to the folder that holds it)")
    return folder


@pytest.fixture(scope="session")
def enge2021() -> Path:
    return _data("enge2021")


@pytest.fixture(scope="session")
def li2024() -> Path:
    return _data("li2024")


@pytest.fixture(scope="session")
def pain21() -> Path:
    return _data("pain21")


@pytest.fixture(scope="session")
def cutler2021() -> Path:
    return _data("cutler2021")


@pytest.fixture(scope="session")
def metansue_reference() -> Path:
    return _data("metansue_reference.txt")


@pytest.fixture(scope="session")
def neurosynth_v7() -> Path:
    return _data("neurosynth_v7")


@pytest.fixture(scope="session")
def neuroquery_v1() -> Path:
    return _data("neuroquery_v1")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20261122)
