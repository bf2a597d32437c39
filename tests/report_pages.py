"""Small finished results and what the tests of report.html read out of the page."""

from __future__ import annotations

import base64
import gzip
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from projects import write_mask, write_project

import gpu_sdm
from gpu_sdm.report import build

HOSTILE = "<script>alert(1)</script>&\"'"  # in a text column: a name may hold no slash
NAME = "<img src=x onerror=alert(2)>&\"'"  # of a study
VOID = {"br", "col", "hr", "img", "input", "link", "meta", "source"}
SETTINGS = {"voxel_size": 4, "permutations": 40, "imputations": 5}


def hostile_result(base: Path) -> Path:
    """A result with its page, clusters of both sides, names that are markup; gives OUT.

    Made once in a session, below pytest's base folder.
    """
    home = base / "hostile"
    if (home / "out" / "report.html").is_file():
        return home / "out"
    home.mkdir()
    project = write_project(home / "a <b> & c", 8, two_sample=2, negative_mm=(-14, -24, 10), seed=4)
    table = project / "sdm_table.txt"
    rows = table.read_text().splitlines()
    rows = [rows[0] + "\tparadigm", *(f"{row}\t{HOSTILE}" for row in rows[1:])]
    table.write_text("\n".join(rows).replace("study00", NAME) + "\n")
    (project / "study00.spm_mni.txt").rename(project / f"{NAME}.spm_mni.txt")
    settings = gpu_sdm.Settings(
        **SETTINGS, mask=write_mask(home / "mask.nii.gz"), covariates=("age",),
        statistic=("voxel", "tfce", "cluster-extent"),
    )  # fmt: skip
    gpu_sdm.run(gpu_sdm.read(project), settings, out=home / "out", backend="cpu")
    build.report(home / "out")
    return home / "out"


def unpack(text: str, dtype: str) -> np.ndarray:
    """An array of the page, as its viewer reads it."""
    kind = np.dtype(dtype).newbyteorder("<")
    planes = np.frombuffer(gzip.decompress(base64.b64decode(text)), np.uint8)
    return np.ascontiguousarray(planes.reshape(kind.itemsize, -1).T).view(kind).ravel()


class Page(HTMLParser):
    """Elements of a page: (name, attributes, text), and what is wrong with their nesting."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.wrong: list[str] = []
        self._open: list[int] = []
        self.feed(text)
        self.close()
        self.wrong += [f"<{self.elements[i][0]}> is not closed" for i in self._open]

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes), []))
        if tag not in VOID:
            self._open.append(len(self.elements) - 1)

    def handle_endtag(self, tag):
        if not self._open or self.elements[self._open[-1]][0] != tag:
            self.wrong.append(f"</{tag}> at {self.getpos()}")
        else:
            self._open.pop()

    def handle_data(self, data):
        for i in self._open:
            self.elements[i][2].append(data)

    def all(self, tag: str, **attributes: str) -> list[tuple[dict, str]]:
        """Attributes and text of the elements of a name with these attributes."""
        return [
            (given, "".join(words))
            for name, given, words in self.elements
            if name == tag and all(given.get(k) == v for k, v in attributes.items())
        ]

    def text(self, identity: str) -> str:
        """Text of the element with an id, white space as one blank."""
        words = next(w for _, given, w in self.elements if given.get("id") == identity)
        return re.sub(r"\s+", " ", "".join(words))
