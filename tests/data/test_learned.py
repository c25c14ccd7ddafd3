"""Batches ask for what is learned and nothing else, however they are packed; plain text is read
as ever.
"""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import blt
from blt import vocab
from blt.data import read
from blt.data.form import SourceConfig
from blt.data.loader import Loader
from blt.data.noised import with_noise
from blt.data.prepare import Options, prepare
from blt.data.segments import MemorySegments
from blt.data.shards import HELDOUT, ShardSegments
from blt.data.text import Reading, open_sources
from blt.errors import UserError
from blt.model.language import Batch
from blt.texts.marked import Marked, encode, marked, num_learned
from conversations import CHAT, CHATS, PAIR, PAIRS, write
from shapes import TINY

PARTS = st.lists(
    st.tuples(st.lists(st.sampled_from([vocab.EOS, *range(40, 50)]), max_size=9), st.booleans()),
    min_size=1,
    max_size=4,
)
DOCUMENTS = st.lists(
    PARTS.map(marked).filter(bool) | st.binary(min_size=1, max_size=30), min_size=1, max_size=5
)
Asked = tuple[tuple[int, ...], tuple[int, ...]]  # ids of a segment, and targets


def slow(document: bytes, context_bytes: int) -> list[Asked]:
    """The segments of a document that have something to learn, one id at a time."""
    plain = not isinstance(document, Marked)
    ids = encode(document).tolist()[1:]
    spans = [(0, len(ids))] if plain else document.spans  # type: ignore[attr-defined]
    wanted = [i if any(a <= at < b for a, b in spans) else -1 for at, i in enumerate(ids)]
    ends = plain or document.learns_end  # type: ignore[attr-defined]
    wanted.append(vocab.EOS if ends else -1)
    found = []
    for at in range(0, len(ids), context_bytes):
        end = min(at + context_bytes, len(ids))
        asked = wanted[at : end + 1]
        if plain or set(asked) != {-1}:
            found.append(((vocab.BOS, *ids[at:end]), tuple(asked)))
    return found


def folded(ids: list[int], targets: list[int]) -> Asked:
    """An EOS at the end, whether it is read or not, is only a target."""
    read = ids[-1] == vocab.EOS and targets[-2:] == [vocab.EOS, vocab.PAD]
    cut = -1 if read else None
    return tuple(ids[:cut]), tuple(targets[:cut])


def packed(batch: Batch) -> list[Asked]:
    """Documents of a batch."""
    parts = batch.targets.split([len(ids) for ids in batch.documents])
    return [folded(a.tolist(), b.tolist()) for a, b in zip(batch.documents, parts, strict=True)]


@given(PARTS.map(marked).filter(bool), st.integers(1, 30))
def test_segments_have_the_marks_of_their_document(document: bytes, context_bytes: int) -> None:
    text = MemorySegments([document], context_bytes)
    expected = slow(document, context_bytes)
    found = []
    for index in range(len(text)):
        piece = text.read(index, 0, text.length(index))
        ids = [byte + vocab.OFFSET for byte in piece.data]
        for place, special in piece.specials:
            ids[place] = special
        asked = [True] * len(ids) if piece.asked is None else piece.asked.tolist()
        wanted = [i if is_asked else -1 for i, is_asked in zip(ids, asked, strict=True)]
        found.append(((vocab.BOS, *ids), (*wanted, piece.following)))
        if text.ends(index):
            assert piece.following == vocab.EOS
    assert found == expected
    assert text.left_out == -(-len(document) // context_bytes) - len(expected)


@given(
    st.lists(PARTS.map(marked).filter(lambda text: text and isinstance(text, Marked)), min_size=1),
    st.integers(31, 90),
    st.integers(1, 30),
    st.integers(0, 9),
)
def test_packing_changes_no_target_of_a_conversation(
    documents: list[bytes], batch_bytes: int, context_bytes: int, seed: int
) -> None:
    """Each of its segments comes whole, with the targets that it has alone, once in an epoch."""
    parts = [part for text in documents for part in slow(text, context_bytes)]
    expected = sorted(folded(list(ids), list(targets)) for ids, targets in parts)
    if not expected:
        return
    text = MemorySegments(documents, context_bytes)
    loader = Loader([text], batch_bytes=batch_bytes, context_bytes=context_bytes, seed=seed)
    found: list[Asked] = []
    while len(found) < len(expected):
        batch = next(loader)
        assert len(batch.targets) <= batch_bytes
        found += packed(batch)
    assert sorted(found[: len(expected)]) == expected


def test_a_conversation_is_not_cut_where_a_batch_is_full() -> None:
    chats = [Marked(bytes([n]) * 30, [(20, 30)]) for n in range(9)]
    options = {"batch_bytes": 80, "context_bytes": 64}
    batch = next(Loader([MemorySegments(chats, 64)], **options))
    assert [len(ids) for ids in batch.documents] == [32, 32]
    assert batch.num_targets == 22
    batch = next(Loader([MemorySegments([bytes(chat) for chat in chats], 64)], **options))
    assert len(batch.targets) == 80  # plain text fills it
    long = next(
        Loader(
            [MemorySegments([Marked(b"a" * 60, [(50, 60)])], 64)], **options | {"batch_bytes": 40}
        )
    )
    assert len(long.targets) == 40  # of what no batch could hold


@given(st.integers(100, 400), st.integers(210, 300), st.integers(0, 9))
def test_long_segments_of_conversations_are_cut_as_short_ones_are(
    segment_bytes: int, batch_bytes: int, seed: int
) -> None:
    """Shards have long segments; a batch that is full cuts none of their parts."""
    whole = segment_bytes // 100 * 100
    chats = [Marked(bytes([n]) * 250, [(20, 30), (120, 130), (220, 230)]) for n in range(9)]
    text = MemorySegments(chats, whole)
    loader = Loader([text], batch_bytes=batch_bytes, context_bytes=100, seed=seed)
    lengths = {len(ids) for _ in range(12) for ids in next(loader).documents}
    assert lengths <= {101, 51, 52}  # with BOS, and EOS where it ends


@given(DOCUMENTS, st.integers(2, 50), st.integers(0, 6))
def test_a_stream_of_conversations_goes_on_exactly(
    documents: list[bytes], batch_bytes: int, before: int
) -> None:
    documents = [document for document in documents if slow(document, 7)] or [b"x"]

    def new(world: int, rank: int = 0) -> Loader:
        text = with_noise(MemorySegments(documents, 7), 0.3, ["Drop", "UpperCase"])
        options = {"batch_bytes": batch_bytes, "context_bytes": 7, "seed": 3}
        return Loader([text], rank=rank, world=world, **options)

    one, two = new(1), [new(2, rank) for rank in range(2)]
    for _ in range(before):
        for loader in two:
            assert packed(next(loader)) == packed(next(one))
    again = new(1)
    again.restore(two[0].state())
    for _ in range(3):
        assert packed(next(again)) == packed(next(one))


@given(DOCUMENTS, st.integers(0, 99))
def test_noise_asks_for_nothing_that_is_not_learned(documents: list[bytes], seed: int) -> None:
    """Parts are disturbed apart, special ids stay, and what is only read stays so."""
    documents = [document for document in documents if slow(document, 99)] or [b"x"]
    text = MemorySegments(documents, 99)
    source = with_noise(text, 1.0, ["Repeat", "AntSpeak", "Swap"]).in_epoch(seed, 0, 0)
    for index in range(len(text)):
        was = text.read(index, 0, text.length(index))
        now = source.read(index, 0, source.length(index))
        assert now.asked is not None
        assert [special for _, special in now.specials] == [s for _, s in was.specials]
        assert all(now.data[place] == 10 for place, _ in now.specials)
        most = len(was.data) if was.asked is None else was.asked.sum()
        assert now.asked.sum() <= most
        if was.asked is not None:
            learned = [place for place, _ in was.specials if was.asked[place]]
            assert [p for p, _ in now.specials if now.asked[p]] == [
                now.specials[[p for p, _ in was.specials].index(place)][0] for place in learned
            ]
        assert now.following in (vocab.PAD, was.following)


def test_plain_text_gives_the_very_batches_that_it_gave_before_any_of_this() -> None:
    """Of the version before masks, whose ids, targets and states these are hashes of."""
    assert stream_of_plain_text(0.0) == "d7d09b80f6173473"
    assert stream_of_plain_text(0.5) == "a5f3de9d270b618d"


def stream_of_plain_text(noise: float) -> str:
    chance = random.Random(7)
    documents = [
        bytes(chance.choices(b"abc \n\xc3\xa4\x00", k=chance.randint(1, 90))) for _ in range(50)
    ]
    plain = [MemorySegments(documents[:20], 24, (3,)), MemorySegments(documents[20:], 24)]
    sources = [with_noise(text, noise, ("UpperCase", "Drop", "Repeat")) for text in plain]
    loader = Loader(sources, [2.0, 1.0], batch_bytes=61, context_bytes=24, seed=5)
    digest = hashlib.sha256()
    for _ in range(60):
        batch = next(loader)
        for ids in batch.documents:
            digest.update(str(ids.tolist()).encode())
        digest.update(str(batch.targets.tolist()).encode())
        digest.update(str(batch.state).encode())
    return digest.hexdigest()[:16]


OPENED = {"heldout": 0.2, "max_bytes": None, "context_bytes": 64, "heldout_bytes": 10**6}


@pytest.mark.parametrize("learn", ["completions", "all"])
@pytest.mark.parametrize("ways", [CHAT, PAIR])
def test_prepared_conversations_are_those_that_are_read(
    tmp_path: Path, learn: str, ways: dict[str, str]
) -> None:
    rows = (CHATS if "messages" in ways else PAIRS) * 2
    table = SourceConfig(write(tmp_path, "jsonl", rows), **ways)
    options = Options((table,), heldout=0.2, segment_bytes=64, learn=learn)  # type: ignore[arg-type]
    prepare(tmp_path / "out", options)
    reading = Reading(learn)  # type: ignore[arg-type]
    (direct,) = open_sources([table], reading=reading, **OPENED)
    (stored,) = open_sources([str(tmp_path / "out")], reading=reading, **OPENED)
    pairs = [(direct.train, stored.train)]
    for one, other in pairs:
        assert len(one) == len(other)
        for index in range(len(one)):
            end = one.length(index)
            assert other.length(index) == end
            assert other.ends(index) == one.ends(index)
            for start in range(end):
                a, b = one.read(index, start, end), other.read(index, start, end)
                assert (a.data, a.following, a.specials) == (b.data, b.following, b.specials)
                asked = [x.asked is None or x.asked.tolist() for x in (a, b)]
                assert asked[0] == asked[1]
    whole = {bytes(text): text for text in direct.heldout}
    for text in stored.heldout:
        if bytes(text) in whole:  # longer ones are in segments
            assert encode(text).tolist() == encode(whole[bytes(text)]).tolist()
            assert num_learned(text) == num_learned(whole[bytes(text)])


def test_stored_entropies_are_those_of_the_whole_conversation(tmp_path: Path) -> None:
    """Also behind segments that are left out, and with special ids inside."""
    torch.manual_seed(0)
    model = blt.ByteLM(TINY)
    model.save(tmp_path / "entropy")
    turns = [("user", "a" * 200), ("assistant", "b" * 50), ("user", "c"), ("assistant", "d" * 90)]
    messages = [{"role": role, "content": content} for role, content in turns]
    table = SourceConfig(write(tmp_path, "jsonl", [{"messages": messages}]), **CHAT)
    how = {"entropy_model": str(tmp_path / "entropy"), "segment_bytes": 64}
    prepare(tmp_path / "out", Options((table,), heldout=0.0, **how))  # type: ignore[arg-type]
    (document,) = read([table]).documents
    (live,) = model.document_entropies([encode(document)])
    stored, direct = ShardSegments(tmp_path / "out"), MemorySegments([document], 64)
    assert direct.left_out > 0
    for index in range(len(stored)):
        found, first = stored.read(index, 0, stored.length(index)), direct.start(index)
        assert bytes(document)[first : first + len(found.data)] == found.data
        expected = live[first : first + len(found.data) + 1]
        assert found.entropies is not None
        known = torch.from_numpy(found.entropies.copy())[: len(expected)]
        torch.testing.assert_close(known, expected)


def test_prepared_to_learn_one_thing_is_not_trained_to_learn_another(tmp_path: Path) -> None:
    table = SourceConfig(write(tmp_path, "jsonl", CHATS), messages="messages")
    prepare(tmp_path / "out", Options((table,), heldout=0.2))
    with pytest.raises(UserError, match="prepare it again with --learn all"):
        open_sources([str(tmp_path / "out")], reading=Reading("all"), **OPENED)
    with pytest.raises(UserError, match="is prepared already"):
        open_sources([SourceConfig(str(tmp_path / "out"), text="body")], **OPENED)
    train = ShardSegments(tmp_path / "out")
    assert train.stays_whole(0)
    assert len(ShardSegments(tmp_path / "out", HELDOUT))


def test_text_of_which_nothing_is_learned_is_an_error(tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": f"hello {n}"}]} for n in range(9)]
    table = SourceConfig(write(tmp_path, "jsonl", rows), messages="messages")
    with pytest.raises(UserError, match=r"nothing in it is learned.*data\.learn = \"all\""):
        open_sources([table], **OPENED)
    with pytest.raises(UserError, match="nothing in it is learned; learn all of it, with --learn"):
        prepare(tmp_path / "out", Options((table,)))
    assert len(open_sources([table], reading=Reading("all"), **OPENED)[0].train)


def test_what_is_learned_and_left_out_is_counted_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    answer = {"role": "assistant", "content": "yes"}
    rows = [
        {"messages": [{"role": "user", "content": f"{n}" * 200}, *[answer] * (n % 2)]}
        for n in range(10, 40)
    ]
    table = SourceConfig(write(tmp_path, "jsonl", rows), messages="messages")
    (source,) = open_sources([table], **OPENED)
    text = source.train
    assert isinstance(text, MemorySegments)
    assert source.facts["learned_bytes"] == 3 * sum(b"yes" in bytes(d) for d in text.documents)
    assert source.facts["segments_with_nothing_to_learn"] == text.left_out > 0
    assert f"left out: {text.left_out:,} segments with nothing to learn" in caplog.text
    assert "held-out bits per byte are of such bytes too" in caplog.text
