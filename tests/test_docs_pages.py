"""Every code block of the pages runs, in order; what does not is counted, with its reason.

Pages that take over 5 s are run by `make docs`.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HOME = Path(__file__).parents[1]
DOCS = HOME / "docs"
BLOCK = re.compile(
    r"(?:<!-- not run: (?P<why>[^>]+) -->\n)?```(?P<kind>bash|python)\n(?P<code>.*?)```", re.S
)
# Pages whose blocks another file runs, with inputs of its own or shortened.
ELSEWHERE = {
    "check": "test_check", "decode": "test_decode_command", "example": "test_pain_empathy_example",
    "formats": "test_formats_docs", "hostile": "test_fuzz", "images": "test_image_analysis",
    "inference": "test_inference_docs", "models": "test_model_command", "samples": "test_combine",
    "studies": "test_study_tables", "templates": "test_template_commands",
    "threshold": "test_threshold_command",
}  # fmt: skip
# Pages that start from the demo of the README and its result, on 4 mm.
ON_DEMO = ("figures", "grade", "report", "robustness", "scaling")


def blocks(page: Path) -> list[tuple[str, str, str | None]]:
    """(language, code, why it is not run) of each block of commands or Python."""
    text = page.read_text(encoding="utf-8")
    return [(m["kind"], m["code"], m["why"]) for m in BLOCK.finditer(text)]


PAGES = {
    str(p.relative_to(DOCS).with_suffix("")): blocks(p)
    for p in sorted(DOCS.rglob("*.md"))
    if "generated" not in p.parts and p.name != "cli.md"
}
RUN = [name for name, found in PAGES.items() if any(not why for *_, why in found)]
LONG = {
    "figures", "grade", "report", "robustness", "scaling", "tutorials/1-first-analysis",
    "tutorials/2-from-sdm-psi", "tutorials/3-from-a-spreadsheet", "tutorials/4-images-and-peaks",
    "tutorials/5-meta-regression",
}  # fmt: skip


def page_or_slow(name: str):
    return pytest.param(name, marks=pytest.mark.slow if name in LONG else ())


def run(folder: Path, kind: str, code: str) -> None:
    bin_ = Path(sys.executable).parent
    env = dict(os.environ, NO_COLOR="1", PATH=f"{bin_}{os.pathsep}{os.environ['PATH']}")
    command = ["bash", "-euo", "pipefail", "-c", code]
    if kind == "python":
        command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    if importlib.util.find_spec("nimare") is None:
        pytest.skip("NIMARE WHEEL ABSENT: pip install --no-deps nimare==0.22.1")
    home = tmp_path_factory.mktemp("demo")
    script = HOME / "examples" / "pain21_project.py"
    subprocess.run([sys.executable, script, "demo-project"], cwd=home, check=True)
    small = "--voxel-size 4 --imputations 5 --permutations 60 --no-report"
    run(home, "bash", f"gpu-sdm permute demo-project --out demo-output {small}")
    return home


@pytest.mark.parametrize("page", [page_or_slow(p) for p in RUN if p not in ELSEWHERE])
def test_the_page_runs(page, tmp_path, request):
    if page in ON_DEMO:
        shutil.copytree(request.getfixturevalue("demo"), tmp_path, dirs_exist_ok=True)
    for kind, code, why in PAGES[page]:
        if why is None:
            if page != "report":  # a report takes longer than these small analyses
                code = re.sub(r"\bgpu-sdm (permute|model) ", r"gpu-sdm \1 --no-report ", code)
            run(tmp_path, kind, code)


def test_what_runs_elsewhere_is_there():
    for page, module in ELSEWHERE.items():
        assert PAGES[page], page
        assert f"{page}.md" in (HOME / "tests" / f"{module}.py").read_text(encoding="utf-8")


def test_few_blocks_are_not_run():
    assert set(RUN) >= LONG
    skipped = [(page, why) for page, found in PAGES.items() for *_, why in found if why]
    print("\n".join(f"not run: {page}: {why}" for page, why in skipped))
    assert len(skipped) <= 5
