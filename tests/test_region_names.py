"""Tables of an atlas's names: where they begin, which line a message means."""

from __future__ import annotations

import pytest

from gpu_sdm.errors import InputError
from gpu_sdm.io.atlas_files import read_region_names


def test_the_header_need_not_be_the_first_line(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("\n\nname;index\nInsula;3\n")
    assert read_region_names(path) == {3: "Insula"}


def test_lines_are_those_of_the_file(tmp_path):
    """A name in quotes may go on in the next line."""
    path = tmp_path / "a.csv"
    path.write_text('index,name\n1,"Insula,\nleft"\n\ntwo,Putamen\n')
    with pytest.raises(InputError, match=r"a.csv:5: .*found 'two' and 'Putamen'"):
        read_region_names(path)
    path.write_text('index,name\n1,"Insula,\nleft"\n')
    assert read_region_names(path) == {1: "Insula, left"}
    path.write_text("\n\nword,thing\n")
    with pytest.raises(InputError, match=r"a.csv:3: the header is"):
        read_region_names(path)


def test_one_number_written_twice_in_json_loses_no_name(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"1": "Insula", "01": "Putamen"}')
    with pytest.raises(InputError, match="gives one region number twice"):
        read_region_names(path)
