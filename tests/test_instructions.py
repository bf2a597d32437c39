"""Machine code is counted as it runs: loops, and the part of a loop that runs more often."""

from __future__ import annotations

import json
from pathlib import Path

import instructions
import pytest
from test_nvrtc import cubin, needs_nvrtc

from gpu_sdm.backend.kernels import defines, source
from gpu_sdm.permute.launch import knobs

LISTING = """
        /*0000*/                   LDG.E R1, desc[UR4][R2.64] ;
.L_x_1:
        /*0010*/                   FFMA R0, R1, R2, R3 ;
        /*0020*/                   MUFU.RSQ R0, R0 ;
        /*0030*/                   MUFU.RCP R0, R0 ;
        /*0040*/                   MUFU.RCP R0, R0 ;
.L_x_2:
        /*0050*/                   FADD R0, R0, R0 ;
        /*0060*/                   MUFU.RSQ R0, R0 ;
        /*0070*/               @P0 BRA `(.L_x_2) ;
        /*0080*/                   IADD3 R5, R5, 0x1, RZ ;
        /*0090*/              @!P1 BRA `(.L_x_1) ;
        /*00a0*/                   EXIT ;
.L_x_3:
        /*00b0*/                   BRA `(.L_x_3);
"""


def test_loops_are_found_with_their_ends() -> None:
    names, found = instructions.loops(LISTING)
    assert names[:3] == ["LDG", "FFMA", "MUFU"]
    assert found == [(5, 7), (1, 9)]


def test_an_inner_loop_counts_as_often_as_it_runs() -> None:
    # One study kept and eight that are not: two rounds of four.
    chosen = {"K": 9, "KEEP": 1, "R": 1}
    found = instructions.of_an_effect(LISTING, chosen)
    assert found["special"] == pytest.approx((3 + 2) / 9)
    assert found["float"] == pytest.approx((1 + 2) / 9)
    assert found["instructions"] == pytest.approx((9 + 3) / 9)
    assert found["least_cycles"] == pytest.approx((5 / 9) / 0.5)


def test_the_table_of_the_page_is_that_of_the_newest_figures() -> None:
    *_, newest = sorted(
        (Path(instructions.__file__).parent / "results").glob("instructions-*.json")
    )
    rows = json.loads(newest.read_text(encoding="utf-8"))["rows"]
    page = instructions.PAGE.read_text(encoding="utf-8")
    assert instructions.renewed(page, rows) == page


@needs_nvrtc
@pytest.mark.skipif(
    instructions.find_disassembler() is None,
    reason="MACHINE CODE NOT COUNTED: nvdisasm is absent (pip install --no-deps triton)",
)
@pytest.mark.parametrize(("studies", "most"), [(11, 23.5), (50, 25.5), (135, 38)])
def test_permuted_z_stays_as_short_as_it_is(studies: int, most: float) -> None:
    chosen = knobs(studies, True)
    text = defines(dict(chosen)) + source("permuted_z.cu")
    tool = instructions.find_disassembler()
    assert tool is not None
    code, _ = cubin(text, 90)
    found = instructions.of_an_effect(instructions.disassemble(code, tool), chosen)
    assert 15 < found["instructions"] < most
    assert 2.5 <= found["special"] < 3.4
