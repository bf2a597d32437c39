"""Texts of an input in what is written: no cell runs, no tag opens, no path leads elsewhere."""

from __future__ import annotations

import ast
import csv
import io
import json
import unicodedata
from pathlib import Path
from xml.etree import ElementTree

import pytest
import test_bad_inputs
from hypothesis import given
from hypothesis import strategies as st
from test_formats_flat import GOOD

import gpu_sdm
from gpu_sdm.errors import InputError
from gpu_sdm.findings.table3 import escape, to_csv
from gpu_sdm.io import Assumed, read
from gpu_sdm.io._records import unique_names
from gpu_sdm.io._table_rows import name_fault
from gpu_sdm.io.convert import convert, differences
from gpu_sdm.io.tables import guarded, unguarded, write_json, write_tsv

SOURCES = sorted(Path(gpu_sdm.__file__).parent.rglob("*.py"))
FORMULAS = ("=cmd|' /C calc'!A0", "@SUM(1+1)", "+1+cmd", "-2+3+cmd|x", "=1", "'=1", "''@x")
PLAIN = ("-4.5", "+3", "-1e-05", "-48, 20, 4", "-", "+", "n/a", "a=b", "1-2", "'a", "", "−3")


def test_cells_that_a_spreadsheet_would_compute_are_text(tmp_path):
    for text in FORMULAS:
        assert guarded(text) == f"'{text}"
    for text in PLAIN:
        assert guarded(text) == text
    write_tsv(tmp_path / "t.tsv", ["=a", "b"], [[text, 1.5] for text in (*FORMULAS, *PLAIN)])
    rows = (tmp_path / "t.tsv").read_text(encoding="utf-8").splitlines()
    assert rows[0] == "'=a\tb"
    assert not any(row.startswith(("=", "@", "+1+", "-2+")) for row in rows)
    table = to_csv([{"Cluster": text} for text in FORMULAS]).decode("utf-8-sig")
    assert [row[0] for row in csv.reader(io.StringIO(table))][1:] == [f"'{t}" for t in FORMULAS]


@given(text=st.text(max_size=20) | st.text("'=+-@.1e, ", max_size=8))
def test_guards_come_off_again(text):
    assert unguarded(guarded(text)) == text


def test_labels_that_are_formulas_go_through_every_format_unchanged(tmp_path):
    text = GOOD.replace("age", "drug")
    for old, new in ((",31", ",=1+1"), (",45", ",-cmd"), ("3.0,,,,,,,", "3.0,,,,,,,'@x")):
        assert old in text
        text = text.replace(old, new, 1)
    (tmp_path / "in.csv").write_text(text)
    dataset = read(tmp_path / "in.csv")
    assert [s.labels["drug"] for s in dataset.studies] == ["=1+1", "-cmd", "@x"]
    for name, file in (("csv", "o.csv"), ("tsv", "o.tsv"), ("xlsx", "o.xlsx"), ("sdm", "o"),
                       ("nimads", "o.json")):  # fmt: skip
        convert(dataset, tmp_path / file, name)
        assert differences(dataset.studies, read(tmp_path / file).studies) == []
    assert ",'=1+1" in (tmp_path / "o.csv").read_text()


def test_file_names_that_are_no_unicode_are_written(tmp_path):
    odd = b"caf\xe9.txt".decode("utf-8", "surrogateescape")
    write_json(tmp_path / "o.json", {"file": odd})
    assert json.loads((tmp_path / "o.json").read_text(encoding="utf-8")) == {"file": odd}
    write_tsv(tmp_path / "o.tsv", ["file"], [[odd]])
    assert (tmp_path / "o.tsv").read_text(encoding="utf-8") == "file\ncaf\\udce9.txt\n"


def test_latex_says_what_the_names_say():
    for text in (r"\input{/etc/passwd}", r"\write18{x}", "a & b % c $d$ #e_f {g} ~h ^i", "x\\\\y"):
        plain = escape(text)
        for sign in "&%$#_{}":
            bare = plain.replace(r"\textbackslash{}", "").replace(r"\textasciitilde{}", "")
            bare = bare.replace(r"\textasciicircum{}", "").replace(f"\\{sign}", "")
            assert sign not in bare, (text, plain)
        assert "\\input" not in plain
        assert "\\write" not in plain


def test_tags_in_names_are_text_in_pictures():
    figure_module = pytest.importorskip("matplotlib.figure", reason="matplotlib is missing")
    from gpu_sdm.figures.save import as_svg

    figure = figure_module.Figure()
    name = '<script>alert("x")</script>&amp;'
    figure.text(0.1, 0.5, name)
    tree = ElementTree.fromstring(as_svg(figure))
    assert not [e for e in tree.iter() if e.tag.endswith("script")]
    assert name in "".join(tree.itertext())


def test_tags_in_names_are_text_in_the_report():
    from gpu_sdm.report.html import tag

    name = '"><img src=x onerror=alert(1)>'
    assert "<img" not in tag("td", name, title=name)
    assert str(tag("td", name)).count("<") == 2


def test_one_name_in_two_spellings_of_its_accents(tmp_path):
    """Files of macOS have the long one, tables the short: they belong together."""
    short, long = "Müller2010", unicodedata.normalize("NFD", "Müller2010")
    files = {
        "sdm_table.txt": test_bad_inputs.TABLE.replace("ana", short),
        "ana.spm_mni.txt": None,
        f"{long}.spm_mni.txt": "1 2 3 4.5\n",
    }
    assert short != long
    assert read(test_bad_inputs.write(tmp_path, files)).names == (short, "bob")
    (tmp_path / "sdm_table.txt").write_text(test_bad_inputs.TABLE.replace("ana", long))
    assert read(tmp_path).names == (short, "bob")


GOOD_NAMES = (
    "Smith et al., 2010", "Müller <b>&amp;", "漢字 2012", "🧠 👩\u200d🔬", "a'b\"c", "عربي 2015",
    "n=12 (exp. 1)", "x" * 200, "Con2010", "null", "...x", "a%s{}$x",
)  # fmt: skip
ODD_NAMES = st.sampled_from(["CON", "nul.txt", "..", "=1", "a" * 500, "/", "A", "a", "\ud800"])


@pytest.mark.parametrize("name", GOOD_NAMES, ids=lambda n: n[:12])
def test_real_names_stay(name, tmp_path):
    assert name_fault(name) == ""
    text = io.StringIO()
    rows = list(csv.reader(io.StringIO(GOOD)))
    csv.writer(text).writerows([[name if c == "a" else c for c in row] for row in rows])
    (tmp_path / "in.csv").write_text(text.getvalue(), encoding="utf-8")
    assert read(tmp_path / "in.csv").names[0] == name


@given(names=st.lists(st.text(max_size=30) | ODD_NAMES, max_size=12))
def test_made_names_can_name_files(names):
    found, notices = unique_names(names, Path("in.json"))
    assert len({n.lower() for n in found}) == len(names)
    assert [name_fault(n) for n in found] == [""] * len(names)
    assert all(n for n in found)
    assert len(notices) == sum(a != b for a, b in zip(names, found, strict=True))


def test_a_name_of_a_json_cannot_leave_the_folder(tmp_path):
    point = [{"space": "MNI", "coordinates": [1, 2, 3]}]
    one = {"analyses": [{"id": "1", "points": point}], "metadata": {"sample_size": 20}}
    content = {"studies": [{"id": i, **one} for i in ("../../x", "..", "NUL", "\ud83d", "=1")]}
    (tmp_path / "in.json").write_text(json.dumps(content))
    dataset = read(tmp_path / "in.json", assumed=Assumed(0.001))
    assert dataset.names == ("_.._x", "study 2", "_NUL", "_", "1")
    convert(dataset, tmp_path / "out", "sdm")
    assert {p.name for p in tmp_path.iterdir()} == {"in.json", "out"}


def _calls(path: Path) -> list[tuple[int, str]]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [(n.lineno, ast.unparse(n.func)) for n in ast.walk(tree) if isinstance(n, ast.Call)]


def test_nothing_is_unpickled_or_evaluated():
    """No module runs text as code, starts a shell or reads what could hold objects."""
    names = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "pd.read_pickle",
             "pickle.load", "pickle.loads", "marshal.loads", "joblib.load", "yaml.load",
             "yaml.unsafe_load", "tempfile.mktemp"}  # fmt: skip
    assert len(SOURCES) > 100
    for path in SOURCES:
        for line, called in _calls(path):
            assert called not in names, f"{path.name}:{line}: {called}"
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {"pickle", "marshal", "shelve", "dill", "cloudpickle"} & set(modules), path
            if isinstance(node, ast.Call):
                arguments = {k.arg: ast.unparse(k.value) for k in node.keywords}
                assert arguments.get("shell", "False") == "False", path
                assert arguments.get("allow_pickle", "False") == "False", path
                if ast.unparse(node.func) == "np.load":
                    assert "allow_pickle" in arguments, f"{path.name}:{node.lineno}"


@pytest.mark.parametrize("name", ["eval", "formula", "class"])
def test_columns_called_like_code_are_columns(name, tmp_path):
    """formulaic would evaluate Python: only checked words of the grammar ever reach it."""
    from gpu_sdm.stages.formula import columns_of, model_matrix
    from gpu_sdm.stages.where import select

    mark = tmp_path / "run"
    code = f"open({str(mark)!r}, 'w')"
    column = {"eval": code, "formula": f"x') or {code} or ('", "class": "age.__class__"}[name]
    rows = "".join(f"s{i},20,3,,,,,{i % 3}\n" for i in range(6))
    text = io.StringIO()
    csv.writer(text).writerow(["study", "n1", "threshold", "space", "x", "y", "z", column])
    (tmp_path / "in.csv").write_text(text.getvalue() + rows)
    dataset = read(tmp_path / "in.csv")
    known = [*dataset.studies[0].covariates, *dataset.studies[0].labels]
    assert known == [column]
    for formula in (f"1 + `{column}`", f"C(`{column}`)", f"scale(`{column}`)"):
        columns, categorical = columns_of(formula, known)
        assert columns == [column]
        assert model_matrix(formula, dataset, categorical, True).x.shape[0] == 6
    for text in (code, f"C({code})", f"1 + {code}", f"center({column})" if "(" in column else code):
        with pytest.raises(gpu_sdm.errors.SettingError, match="formula is"):
            columns_of(text, known)
        with pytest.raises(gpu_sdm.errors.SettingError, match="where"):
            select(dataset, f"{text} == 1")
    assert not mark.exists()


def test_a_template_cannot_carry_code(tmp_path):
    """Its description is text and is never looked into."""
    import nibabel
    import numpy as np

    from gpu_sdm.io.volumes import load_template
    from gpu_sdm.spaces import SHAPES, grid_affine

    image = nibabel.Nifti1Image(np.full((*SHAPES[4], 13), 0.9, np.float32), grid_affine(4))
    image.header["descrip"] = b"__import__('os').system('x')"
    nibabel.save(image, tmp_path / "t.nii")
    assert np.isfinite(load_template(tmp_path / "t.nii", 4).costs).any()
    (tmp_path / "t.nii").write_bytes(b"\x80\x04cposix\nsystem\n(S'x'\ntR.")
    with pytest.raises(InputError, match="is not a NIfTI image"):
        load_template(tmp_path / "t.nii", 4)
