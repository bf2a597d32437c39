"""What no command foresees becomes a sentence too."""

from __future__ import annotations

import pytest

from gpu_sdm import cli


def test_no_memory_is_one_sentence(monkeypatch, capsys):
    def nothing_left(standalone_mode):
        raise MemoryError

    monkeypatch.setattr(cli, "app", nothing_left)
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 1
    assert "error: memory ran out" in " ".join(capsys.readouterr().err.split())
