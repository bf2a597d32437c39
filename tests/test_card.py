"""One bounded call for a GPU: order, limits, what is kept, and what a failure leaves."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import card
import pytest


def test_every_command_of_the_page_is_a_step() -> None:
    page = (Path(__file__).parents[1] / "docs" / "howto" / "gpu.md").read_text(encoding="utf-8")
    lines = [" ".join(step.line).replace(card.PYTHON, "python") for step in card.STEPS]
    for part in ("rates", "stages", "scaling", "long"):
        assert any(f"bench/permute.py --device {part} " in line for line in lines)
        assert f"bench/permute.py --device {part} --write" in page
    assert any("bench/sanitize.py --tools memcheck" in line for line in lines)
    assert len(card.CUDA_TESTS) >= 4
    assert sum(step.limit_s for step in card.STEPS[:3]) < 540  # what matters fits one call


def test_steps_run_in_order_while_there_is_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(card, "RESULTS", tmp_path / "results")
    (tmp_path / "results").mkdir()
    clock = iter([0.0, 0.0, 50.0, 50.0, 95.0, 95.0, 96.0])
    monkeypatch.setattr(card, "monotonic", lambda: next(clock))
    limits = {}

    def one(step: card.Step, out: Path, limit: float, environment: dict[str, str]) -> str:
        limits[step.name] = limit
        (tmp_path / "results" / "permute-cuda-today.json").write_text(json.dumps(step.name))
        return "ok"

    steps = [card.Step(name, ("x",), 60) for name in ("a", "b", "c")]
    found = card.run_all(steps, tmp_path, 100, {}, one)
    assert limits == {"a": 60, "b": 50}
    assert found == {"a": "ok", "b": "ok", "c": "left out: no time"}
    assert json.loads((tmp_path / "permute-cuda-today.json").read_text()) == "b"
    assert "c: left out: no time" in capsys.readouterr().out


def test_a_step_that_fails_hangs_or_is_absent_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = dict(os.environ, WORD="kept")

    def run(code: str, limit: float = 60) -> str:
        step = card.Step("step", (sys.executable, "-c", code), limit)
        return card.run(step, tmp_path, limit, environment)

    assert run("import os; print(os.environ['WORD'])") == "ok"
    assert (tmp_path / "step.txt").read_text() == "kept\n"
    assert run("print('why'); raise SystemExit(3)") == "FAILED (3)"
    assert "why" in capsys.readouterr().out
    assert (
        run("print('begun', flush=True); import time; time.sleep(60)", 1.0) == "stopped after 1 s"
    )
    assert (tmp_path / "step.txt").read_text() == "begun\n"
    gone = card.Step("gone", ("no-such-program",), 60)
    assert card.run(gone, tmp_path, 60, environment) == "left out: no-such-program is absent"


def test_the_exit_code_tells_of_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(card, "RESULTS", tmp_path)
    steps = (card.Step("good", (sys.executable, "-c", ""), 60),
             card.Step("bad", (sys.executable, "-c", "raise SystemExit(1)"), 60))  # fmt: skip
    monkeypatch.setattr(card, "STEPS", steps)
    assert card.main(["--out", str(tmp_path / "out"), "--steps", "good"]) == 0
    assert card.main(["--out", str(tmp_path / "out"), "--commit", "abc"]) == 1
    assert capsys.readouterr().out.splitlines()[-2:] == ["good       ok", "bad        FAILED (1)"]
