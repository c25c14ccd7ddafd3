"""``blt chat``: answers from pipes and at a terminal, commands, and what is refused."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import blt
from blt import cli, vocab
from blt.chat import ChatTemplate
from blt.chat.conversation import Conversation
from blt.cli import chat_view
from blt.cli.chat_view import Session, converse
from blt.errors import UserError
from blt.generate import Sampling
from blt.lm import TokenLM
from blt.model.config import TokenTransformerConfig
from blt.tokens.tokenizer import ByteTokenizer
from commands import fails
from texts import MULTILINGUAL

TEMPLATE = ChatTemplate.default()


@pytest.fixture
def chat_model(tmp_path: Path, blt_model: Path) -> Path:
    shutil.copytree(blt_model, tmp_path / "model")
    TEMPLATE.write(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    return lambda data: monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_each_line_of_a_pipe_is_a_message_and_answers_alone_are_printed(
    pipe: Callable[[bytes], None], capsys: pytest.CaptureFixture[str], chat_model: Path
) -> None:
    pipe("hello\n\n/help me\xe9\n".encode("latin-1"))
    options = ("--max-bytes", "12", "--seed", "3", "--system", "be brief")
    assert cli.main(["chat", str(chat_model), *options]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lm = blt.load(chat_model)
    conversation, expected = Conversation(), ""
    conversation.set_system("be brief")
    for index, question in enumerate(["hello", "/help me\udce9"]):
        conversation.say("user", question)
        how = {"max_bytes": 12, "temperature": 0.8, "seed": 3 + index, "valid_utf8": True}
        answer = lm.generate(TEMPLATE.prompt(conversation.messages), **how)
        conversation.say("assistant", answer.text)
        expected += f"{answer.text}\n"
    assert out == expected


def test_answers_are_whole_characters_unless_any_bytes_are_allowed(
    pipe: Callable[[bytes], None], capsys: pytest.CaptureFixture[str], chat_model: Path
) -> None:
    command = ["chat", str(chat_model), "--max-bytes", "60", "--temperature", "2"]
    for options, odd in (((), False), (("--no-valid-utf8",), True)):
        pipe(b"hello\n")
        assert cli.main([*command, *options]) == 0
        assert ("�" in capsys.readouterr().out) == odd


def test_a_token_model_chats_too(
    pipe: Callable[[bytes], None], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    shape = TokenTransformerConfig(vocab_size=300, dim=16, heads=2, layers=1, ff_dim=32)
    lm = TokenLM(shape, ByteTokenizer.train([MULTILINGUAL], 300)).eval()
    lm.chat_template = TEMPLATE.source
    lm.save(tmp_path / "m")
    pipe(b"hello\n")
    assert cli.main(["chat", str(tmp_path / "m"), "--max-bytes", "9"]) == 0
    prompt = TEMPLATE.prompt([{"role": "user", "content": "hello"}])
    assert prompt[-len("assistant\n") - 1] == vocab.EOS
    expected = lm.generate(prompt, max_bytes=9, temperature=0.8).text
    assert capsys.readouterr().out == f"{expected}\n"


def test_a_model_without_a_template_is_refused_with_the_way_out(
    pipe: Callable[[bytes], None], capsys: pytest.CaptureFixture[str], blt_model: Path
) -> None:
    message = fails(capsys, "chat", blt_model)
    assert "has no chat template" in message
    assert "--template default" in message
    pipe(b"hello\n")
    assert cli.main(["chat", str(blt_model), "--template", "default", "--max-bytes", "3"]) == 0


def test_what_is_impossible_is_refused(
    pipe: Callable[[bytes], None],
    capsys: pytest.CaptureFixture[str],
    chat_model: Path,
    tmp_path: Path,
) -> None:
    assert "--context 9 must be more" in fails(capsys, "chat", chat_model, "--context", 9)
    assert "top_p must be" in fails(capsys, "chat", chat_model, "--top-p", 2)
    assert "no.jinja" in fails(capsys, "chat", chat_model, "--template", tmp_path / "no.jinja")
    (chat_model / "chat_template.jinja").write_text("\n{% for %}")
    (chat_model / "checksums.json").unlink()
    assert "chat template, line 2: " in fails(capsys, "chat", chat_model)
    TEMPLATE.write(chat_model)
    pipe(b"x" * 100 + b"\n")
    refused = fails(capsys, "chat", chat_model, "--context", 64, "--max-bytes", 8)
    assert "bytes, and 56 fit" in refused


class Parrot:
    """Answers with what it was given, and notes it."""

    def __init__(self) -> None:
        self.prompts: list[Tensor] = []
        self.seeds: list[int] = []
        self.interrupted = False

    def __call__(self, prompt: Tensor, how: Sampling) -> chat_view.Pieces:
        self.prompts.append(prompt)
        self.seeds.append(how.seed)
        yield "I say "
        if self.interrupted:
            raise KeyboardInterrupt
        yield vocab.decode(prompt).decode().split("\n")[-2].removesuffix("assistant")


@pytest.fixture
def parrot() -> Parrot:
    return Parrot()


@pytest.fixture
def session(parrot: Parrot) -> Session:
    return Session(Conversation(), TEMPLATE, parrot, Sampling(max_bytes=10, seed=5), 200)


def said(session: Session) -> list[str]:
    return [message["content"] for message in session.conversation.messages]


def test_answers_are_kept_and_retried_with_another_seed(session: Session, parrot: Parrot) -> None:
    session.ask("hello")
    assert said(session) == ["hello", "I say hello"]
    session.command("/retry")
    assert said(session) == ["hello", "I say hello"]
    assert parrot.seeds == [5, 6]
    assert torch.equal(*parrot.prompts)


def test_questions_are_edited_and_undone(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    session.ask("one")
    session.ask("two")
    session.command("/edit three")
    assert said(session) == ["one", "I say one", "three", "I say three"]
    shown: list[str] = []

    def typed(_: str, begun: str = "") -> str:
        shown.append(begun)
        return "four"

    monkeypatch.setattr(chat_view, "read_line", typed)
    session.command("/edit")
    assert shown == ["three"]
    assert said(session)[2:] == ["four", "I say four"]
    monkeypatch.setattr(chat_view, "read_line", lambda *_: " ")
    with pytest.raises(UserError, match="as before"):
        session.command("/edit")
    assert said(session)[2:] == ["four", "I say four"]
    session.command("/undo")
    session.command("/system be brief")
    assert said(session) == ["be brief", "one", "I say one"]
    session.command("/reset")
    assert said(session) == ["be brief"]


def test_a_stopped_answer_is_kept_as_far_as_it_came(session: Session, parrot: Parrot) -> None:
    parrot.interrupted = True
    assert not session.ask("hello")
    assert said(session) == ["hello", "I say "]


def test_a_question_that_fails_is_taken_back(session: Session) -> None:
    session.ask("one")
    for ask in (lambda: session.ask("x" * 300), lambda: session.command("/edit " + "x" * 300)):
        with pytest.raises(UserError, match="bytes, and 190 fit"):
            ask()
        assert said(session) == ["one", "I say one"]


def test_that_old_turns_are_left_out_is_said_once(
    session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(8):
        session.ask("x" * 20)
    notes = capsys.readouterr().err.splitlines()
    assert notes
    assert all("is not given the oldest" in note for note in notes)
    assert len(set(notes)) == len(notes)
    assert len(said(session)) == 16


def test_a_saved_conversation_goes_on(
    session: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "saved.jsonl"
    session.ask("one")
    session.command(f"/save {path}")
    session.command("/reset")
    session.command(f"/load {path}")
    assert said(session) == ["one", "I say one"]
    assert json.loads(path.read_text())["messages"] == session.conversation.messages
    assert capsys.readouterr().out.endswith("> one\nI say one\n")
    for line, message in (("/save", "/save needs a file"), ("/lod x", "did you mean 'load'")):
        with pytest.raises(UserError, match=message):
            session.command(line)


def test_at_a_terminal_mistakes_are_told_and_the_conversation_goes_on(
    session: Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = iter(["/retry", "", "//slash", KeyboardInterrupt, "/load no-such-file", "/help"])

    def typed(*_: str) -> str:
        line = next(lines, EOFError)
        if isinstance(line, str):
            return line
        raise line

    monkeypatch.setattr(chat_view, "read_line", typed)
    converse(session, "parrot")
    out, err = capsys.readouterr()
    assert said(session) == ["/slash", "I say /slash"]
    assert "nothing has been asked yet" in err
    assert "no-such-file" in err
    assert "/save FILE" in out
