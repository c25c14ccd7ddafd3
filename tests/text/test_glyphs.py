from hypothesis import example, given
from hypothesis import strategies as st

from blt.texts.glyphs import glyphs, visible

ANY_BYTES = st.one_of(st.binary(max_size=200), st.text(max_size=80).map(str.encode))


@given(ANY_BYTES, st.data())
def test_no_byte_is_lost_and_everything_is_printable(data, draw):
    starts = draw.draw(st.lists(st.booleans(), min_size=len(data), max_size=len(data)))
    drawn = list(glyphs(data, starts))
    assert b"".join(glyph.data for glyph in drawn) == data
    at = 0
    for glyph in drawn:
        assert glyph.at == at
        assert glyph.text.isprintable()
        assert glyph.text
        assert not any(starts[at + 1 : at + len(glyph.data)]), "a glyph never spans a boundary"
        at += len(glyph.data)


@given(ANY_BYTES)
@example("\u202eevil\u200b".encode())
def test_visible_keeps_only_newlines_and_tabs_of_control_characters(data):
    text = visible(data)
    assert all(c.isprintable() or c in "\n\t" for c in text)


@given(st.text(alphabet=st.characters(categories=["L", "N", "P"]), max_size=50))
def test_printable_text_is_shown_as_it_is(text):
    assert visible(text.encode()) == text


def test_a_character_that_a_boundary_cuts_is_shown_as_bytes():
    assert [g.text for g in glyphs("é".encode(), [True, False])] == ["é"]
    assert [g.text for g in glyphs("é".encode(), [True, True])] == ["\\xc3", "\\xa9"]


def test_invalid_and_unprintable_bytes():
    assert visible(b"a\xff\x00\r\n\tb") == "a\\xff\\x00\\x0d\n\tb"
    assert [g.text for g in glyphs(b"\n\t")] == ["⏎", "⇥"]
    assert visible("\U0001f600".encode()[:3]) == "\\xf0\\x9f\\x98"


def test_a_combining_mark_does_not_climb_onto_the_patch_before():
    data = "e\u0301".encode()  # e, then an accent of its own
    assert [g.text for g in glyphs(data, [True, True, False])] == ["e", "\u25cc\u0301"]
    assert visible(data) == "e\u0301"


def test_text_that_comes_by_characters_has_no_circles_in_it():
    text = "सभी मनुष्य é 각"
    assert "".join(visible(character.encode()) for character in text) == text
