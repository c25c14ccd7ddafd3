import io
import math
import re

from hypothesis import assume, example, given
from hypothesis import strategies as st
from rich.console import Console

from blt.report import terminal

PATCHES = st.lists(st.binary(max_size=12), max_size=20)


def read_back(text: str) -> bytes:
    """Bytes that a rendering without marks of its own stands for."""
    parts = re.split(r"\\x([0-9a-f]{2})", text.replace("⏎\n", "\n").replace("⇥", "\t"))
    return b"".join(
        bytes([int(part, 16)]) if i % 2 else part.encode() for i, part in enumerate(parts)
    )


@example([b"\xdc\xb0"], "patch", False, False)
@given(PATCHES, st.sampled_from(["patch", "entropy"]), st.booleans(), st.booleans())
def test_no_byte_is_lost(patches, colour_by, colour, with_entropies):
    data = b"".join(patches)
    entropies = [0.01 * i for i in range(len(data))] if with_entropies else None
    text = terminal.render_patches(patches, entropies, colour_by=colour_by, colour=colour).plain
    # A mark that begins a patch gets a circle to stand on, which is not part of the text.
    assume("◌".encode() not in data)
    assert read_back(text.replace(terminal.SEPARATOR, "").replace("◌", "")) == data
    if not colour:
        assert text.count(terminal.SEPARATOR) == max(0, sum(map(bool, patches)) - 1)


def printed(patches, **options):
    out = io.StringIO()
    terminal.print_patches(Console(file=out, width=20, **options), patches)
    return out.getvalue()


def test_a_pipe_gets_separators_and_no_line_breaks_of_ours():
    long = b"x" * 50 + b"   "
    assert printed([b"Hello", b" [bold]wor", b"ld[/bold]", long]) == (
        "Hello│ [bold]wor│ld[/bold]│" + long.decode() + "\n"
    )
    assert printed([b"a\n", b"\xffb\n"]) == "a⏎\n│\\xffb⏎\n"
    assert printed([]) == "\n"


def test_a_terminal_gets_colours():
    out = printed([b"ab", b"c"], force_terminal=True, color_system="truecolor", no_color=False)
    assert "\x1b[" in out
    assert terminal.SEPARATOR not in out


def test_heat_takes_any_number():
    for nats in (0.0, -1.0, 1e9, math.inf, math.nan):
        assert " on #" in terminal.heat_style(nats)
    assert "bits" in terminal.legend().plain


def test_summary_line():
    line = terminal.summary_line([b"", b"abc", b"d"], [math.log(2)] * 4)
    assert line == "4 bytes · 2 patches · 2.00 bytes per patch · mean entropy 1.00 bits per byte"
    assert terminal.summary_line([b"a"]) == "1 byte · 1 patch · 1.00 bytes per patch"
    assert terminal.summary_line([]) == "0 bytes · 0 patches"
    assert terminal.summary_line([b""], []) == "0 bytes · 0 patches"
