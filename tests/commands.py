"""Verbs, run in this process."""

from __future__ import annotations

import pytest

from blt import cli


def fails(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    """The one line on standard error of a command that must end in 2."""
    assert cli.main([str(arg) for arg in args]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("blt: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    return err
