"""PRISMA counts that must add up, and a diagram whose text stays in its boxes."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gpu_sdm.cli import app
from gpu_sdm.errors import GpuSdmError, InputError
from gpu_sdm.figures.palette import Look
from gpu_sdm.figures.prisma import prisma
from gpu_sdm.findings import prisma as boxes
from gpu_sdm.findings.prisma import read_flow

GOOD = """box,n
Records identified from: PubMed,812
Records identified from: Web of Science,640
Records removed before screening: Duplicate records removed,523
Records removed before screening: Records removed for other reasons,9
Records screened,920
Records excluded,781
Reports sought for retrieval,139
Reports not retrieved,4
Reports assessed for eligibility,135
Reports excluded: No whole-brain analysis,48
"Reports excluded: Wrong, or no, control group",78
Other methods: Records identified from: Citation searching,10
Other methods: Reports sought for retrieval,10
Other methods: Reports not retrieved,1
Other methods: Reports assessed for eligibility,9
Other methods: Reports excluded: No coordinates,6
Studies included in review,11
Reports of included studies,12
"""
MAIN_ONLY = "\n".join(
    line for line in GOOD.replace("studies,12", "studies,9").replace("review,11", "review,9")
    .splitlines() if not line.startswith("Other")
)  # fmt: skip


def counts(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "counts.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_parts_are_summed_in_order(tmp_path):
    flow = read_flow(counts(tmp_path, GOOD))
    assert flow.n(boxes.IDENTIFIED) == 1452
    assert flow.n(boxes.REFUSED) == 126
    assert flow.main[boxes.REFUSED].parts[1] == ("Wrong, or no, control group", 78)
    assert flow.n(boxes.IDENTIFIED, "other") == 10
    assert flow.n(boxes.SCREENED, "other") is None
    assert flow.main[boxes.IDENTIFIED].lines == (2, 3)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (
            "screened,920",
            "screened,921",
            "records screened 921 (line 6) should be records identified from 1,452 (lines 2, 3) - "
            "records removed before screening 532 (lines 4, 5) = 920; reports sought for retrieval "
            "139 (line 8) should be records screened 921 (line 6) - records excluded 781 (line 7) "
            "= 140.",
        ),
        (
            "eligibility,135",
            "eligibility,134",
            "reports assessed for eligibility 134 (line 10) should be reports sought for retrieval "
            "139 (line 8) - reports not retrieved 4 (line 9) = 135; reports of included studies 12",
        ),
        (
            "No coordinates,6",
            "No coordinates,7",
            "reports of included studies 12 (line 19) should be reports assessed for eligibility "
            "135 (line 10) - reports excluded 126 (lines 11, 12) + other methods: reports assessed "
            "for eligibility 9 (line 16) - reports excluded 7 (line 17) = 11.",
        ),
        (
            "not retrieved,1\n",
            "not retrieved,2\n",
            "other methods: reports assessed for eligibility 9 (line 16) should be reports sought "
            "for retrieval 10 (line 14) - reports not retrieved 2 (line 15) = 8",
        ),
        ("review,11", "review,13", "studies included in review 13 (line 18) is more than reports"),
        ("review,11", "review,0", "studies included in review 0 (line 18), but "),
    ],
)
def test_counts_that_do_not_add_up_are_named_with_their_lines(tmp_path, old, new, sentence):
    text = GOOD.replace(old, new)
    assert text != GOOD
    with pytest.raises(InputError) as refused:
        read_flow(counts(tmp_path, text))
    assert sentence in str(refused.value)
    assert str(refused.value).startswith(f"{tmp_path / 'counts.csv'}: the counts do not add up: ")


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("box,n", "name,count", "1: has no header box,n"),
        ("screened,920", "screened,many", "6: 'Records screened' has n = 'many'"),
        ("screened,920", "screened,", "6: 'Records screened' has n = ''"),
        ("screened,920", "screened,-3", "one whole number"),
        ("screened,920", "screened,1,920", "one whole number"),
        ("Records screened,920", f"{'x' * 200_000},920", "6: cannot be split into cells"),
        ("Records screened,920\n", "", "has no row 'Records screened'"),
        ("Records excluded,781", "Rekords excluded,781", "7: 'Rekords excluded' is no box of the"),
        ("Records excluded,781", "Records screened,781", "is already in line 6"),
        ("Records screened,920", "Records screened: all,920", "has no parts"),
        ("Other methods: Reports not retrieved", "Other methods: Records screened", "no box of ot"),
        (": Web of Science", ": PubMed", "3: 'Records identified from: PubMed' is already in"),
        ("Other methods: Reports assessed for eligibility,9\n", "", "has no row 'Other methods: R"),
    ],
)
def test_rows_that_cannot_be_used_are_refused(tmp_path, old, new, sentence):
    assert old in GOOD
    with pytest.raises(InputError) as refused:
        read_flow(counts(tmp_path, GOOD.replace(old, new, 1)))
    assert sentence in str(refused.value)


def test_spreadsheets_other_separators_and_thousands_are_read(tmp_path):
    text = GOOD.replace('"', "").replace("Wrong, or no, control", "Wrong control")
    for separator in "\t;":
        other = "\n".join(separator.join(line.rsplit(",", 1)) for line in text.splitlines())
        assert read_flow(counts(tmp_path, other)).n(boxes.SCREENED) == 920
    many = GOOD.replace("PubMed,812", 'PubMed,"1,812"').replace("removed,523", 'removed,"1,523"')
    assert read_flow(counts(tmp_path, many)).n(boxes.IDENTIFIED) == 2452
    assert read_flow(counts(tmp_path, "\ufeff" + GOOD)).n(boxes.STUDIES) == 11


def test_boxes_that_are_left_out_pass_what_flows_into_them(tmp_path):
    short = """box,n
Records identified from,100
Records removed before screening,20
Records screened,80
Records excluded,50
Reports assessed for eligibility,30
Reports excluded,20
Studies included in review,9
"""
    flow = read_flow(counts(tmp_path, short))
    assert flow.main[boxes.IDENTIFIED].parts == ()
    with pytest.raises(InputError, match=r"records screened 80 .* - records excluded 51 .* = 29"):
        read_flow(counts(tmp_path, short.replace("excluded,50", "excluded,51")))


def drawn(flow, look=None):
    figure = prisma(flow, look=look)
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    (axes,) = figure.axes
    rectangles = [p.get_window_extent(renderer) for p in axes.patches if p.get_gid() == "box"]
    texts = [t for t in axes.texts if t.get_text() and not t.get_rotation()]
    return figure, rectangles, [(t.get_text(), t.get_window_extent(renderer)) for t in texts]


@pytest.mark.parametrize(
    ("text", "width", "n_boxes"),
    [(GOOD, None, 16), (MAIN_ONLY, None, 10), (GOOD, 120.0, 16), (MAIN_ONLY, 300.0, 10)],
)
def test_every_text_lies_in_one_box_and_no_boxes_touch(tmp_path, text, width, n_boxes):
    flow = read_flow(counts(tmp_path, text))
    look = None if width is None else Look(width_mm=width)
    figure, rectangles, texts = drawn(flow, look)
    assert len(rectangles) == n_boxes
    for words, extent in texts:
        inside = [
            r for r in rectangles
            if r.x0 < extent.x0 and extent.x1 < r.x1 and r.y0 < extent.y0 and extent.y1 < r.y1
        ]  # fmt: skip
        assert len(inside) == 1, words
    for a, b in combinations(rectangles, 2):
        assert not a.overlaps(b)
    whole = figure.bbox
    assert all(whole.x0 <= r.x0 and r.x1 <= whole.x1 and whole.y0 <= r.y0 for r in rectangles)
    said = " ".join(words for words, _ in texts).replace("\N{NO-BREAK SPACE}", " ")
    for name, box in flow.main.items():
        assert name.capitalize().split()[0] in said
        for _, n in box.parts or (("", box.n),):
            assert f"(n = {n:,})" in said


def test_a_word_wider_than_its_box_is_broken(tmp_path):
    long = "pneumonoultramicroscopicsilicovolcanoconiosis" * 2
    flow = read_flow(counts(tmp_path, GOOD.replace("No whole-brain analysis", long)))
    _, rectangles, texts = drawn(flow)
    assert max(extent.x1 for _, extent in texts) < max(r.x1 for r in rectangles)


@pytest.mark.parametrize(
    ("name", "begins"), [("flow.svg", b"<?xml"), ("flow.png", b"\x89PNG"), ("flow.pdf", b"%PDF")]
)
def test_the_command_writes_a_picture(tmp_path, name, begins):
    out = tmp_path / "new" / name
    done = CliRunner().invoke(app, ["prisma", str(counts(tmp_path, GOOD)), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == str(out)
    first = out.read_bytes()
    assert first.startswith(begins)
    CliRunner().invoke(app, ["prisma", str(tmp_path / "counts.csv"), "--out", str(out)])
    assert out.read_bytes() == first  # the same file again
    if name.endswith("svg"):
        assert b"(n\xc2\xa0=\xc2\xa0920)" in first  # text stays text


@pytest.mark.parametrize(("text", "name"), [(GOOD, "flow.jpg"), (GOOD + "x,1\n", "flow.svg")])
def test_refused_input_leaves_nothing_behind(tmp_path, text, name):
    out = tmp_path / name
    done = CliRunner().invoke(app, ["prisma", str(counts(tmp_path, text)), "--out", str(out)])
    assert done.exit_code == 1
    assert isinstance(done.exception, GpuSdmError)
    assert [p.name for p in tmp_path.iterdir()] == ["counts.csv"]


def test_other_methods_may_begin_with_what_was_sought(tmp_path):
    short = GOOD.replace("Other methods: Records identified from: Citation searching,10\n", "")
    assert read_flow(counts(tmp_path, short)).n(boxes.SOUGHT, "other") == 10
    wrong = short.replace("Other methods: Reports not retrieved,1", "Other methods: "
                          "Reports not retrieved,4")  # fmt: skip
    with pytest.raises(InputError, match=r"other methods: reports assessed .* 10 \(.*\) - .* = 6"):
        read_flow(counts(tmp_path, wrong))
