"""Both forms of the engine: driven by the host, and captured steps, which a CPU just calls."""

from __future__ import annotations

import pytest

from blt.generate import Engine


@pytest.fixture(params=["driven", "captured"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every engine of a test takes this form, unless it says otherwise."""
    form: str = request.param
    monkeypatch.setitem(Engine.__init__.__kwdefaults__, "captured", form == "captured")
    return form
