"""What ``blt chat`` reads and shows: questions, commands, and answers as they are written."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from torch import Tensor

from blt.chat import ChatTemplate
from blt.chat.conversation import Conversation
from blt.chat.messages import ASSISTANT
from blt.cli.output import say, stream
from blt.errors import UserError, nearest, require
from blt.generate import Engine, Sampling
from blt.lm import LanguageModel, TokenModel

HELP = """\
/undo         take back the last question and its answer
/edit [TEXT]  ask the last question otherwise
/retry        let the model answer it anew
/reset        forget all but the system message
/system TEXT  tell the model something before all else; without a text: nothing
/save FILE    add the conversation to a file, a line of JSON that `blt train` reads
/load FILE    go on with the last conversation in a file
/help         this list
//...          a message that begins with /
Ctrl-C stops an answer, Ctrl-D leaves."""
Pieces = Generator[str, None, None]
Talker = Callable[[Tensor, Sampling], Pieces]  # prompt, and how → text as it comes


@contextlib.contextmanager
def talker_of(
    lm: LanguageModel, precision: str | None = None, draft_bytes: int = 0
) -> Iterator[Talker]:
    """What answers: an engine in a thread of its own, or, all at once, a token model."""
    if isinstance(lm, TokenModel):
        require(
            precision is None and draft_bytes == 0,
            "--precision and --draft-bytes are for byte models",
        )
        yield lambda prompt, how: _by_tokens(lm, prompt, how)
        return
    with Engine(lm, max_batch=1, precision=cast(Any, precision), draft_bytes=draft_bytes) as engine:

        def answer(prompt: Tensor, how: Sampling) -> Pieces:
            handle = engine.submit(prompt, how)
            try:
                yield from handle.text()
            finally:  # whoever reads may stop early
                handle.cancel()
            failure = handle.result().error
            require(failure is None, f"no answer: {failure}")

        yield answer


def _by_tokens(lm: TokenModel, prompt: Tensor, how: Sampling) -> Pieces:
    """A token model's answer, in one piece; what it cannot do is refused by name.

    Its tokens are any bytes: nothing keeps them to whole characters.
    """
    yield lm.generate(prompt, **vars(replace(how, valid_utf8=False))).text


class Session:
    """A conversation with a model.

    Args:
        context: bytes of prompt and answer together.
    """

    def __init__(
        self,
        conversation: Conversation,
        template: ChatTemplate,
        talker: Talker,
        how: Sampling,
        context: int,
    ) -> None:
        self.conversation, self.template, self.talker = conversation, template, talker
        self.how = replace(how, stop=(template.end,) if template.end else ())
        self.context = context
        self.answers = self.left_out = 0

    def ask(self, question: str) -> bool:
        """Add a question, and answer it; where that fails all is as before."""
        with self._as_before_if_it_fails():
            self.conversation.say("user", question)
            return self.answer()

    def answer(self) -> bool:
        """Show an answer to what was asked last, and keep it, whole or as far as it came.

        Returns:
            whether it came to its end; Ctrl-C stops it.
        """
        most = self.context - self.how.max_bytes
        prompt, left_out = self.conversation.prompt(self.template, most)
        if left_out > self.left_out:
            note(f"(the model is not given the oldest {left_out} messages: {most} bytes fit)")
        self.left_out = left_out
        how = replace(self.how, seed=self.how.seed + self.answers)
        self.answers += 1
        said, stopped = "", False
        with contextlib.closing(self.talker(prompt, how)) as pieces:
            try:
                for piece in pieces:
                    said += piece
                    stream(piece)
            except KeyboardInterrupt:
                stopped = True
        stream("\n")
        if stopped:
            note(f"(stopped; {'what was said is kept' if said else '/retry asks again'})")
        if said or not stopped:
            self.conversation.say(ASSISTANT, said)
        return not stopped

    @contextlib.contextmanager
    def _as_before_if_it_fails(self) -> Iterator[None]:
        before = self.conversation.messages[:]
        try:
            yield
        except BaseException:
            self.conversation.messages = before
            raise

    # --- commands --------------------------------------------------------------------------------

    def command(self, line: str) -> None:
        """Do what a line that begins with / says.

        Raises:
            UserError: an unknown command, or one that is impossible now.
        """
        name, _, rest = line[1:].partition(" ")
        commands: dict[str, Callable[[str], None]] = {
            "help": lambda _: say(HELP),
            "undo": self._undo,
            "edit": self._edit,
            "retry": self._retry,
            "reset": self._reset,
            "system": self._system,
            "save": self._save,
            "load": self._load,
        }
        if name not in commands:
            known = nearest(name, list(commands))
            raise UserError(f"unknown command /{name}: {known}; // begins a message with /")
        commands[name](rest.strip())

    def _undo(self, _: str) -> None:
        question = self.conversation.take_question()
        note(f"(taken back: {question[:60]})")

    def _edit(self, text: str) -> None:
        with self._as_before_if_it_fails():
            question = self.conversation.take_question()
            text = text or read_line("> ", question)
            require(bool(text.strip()), "nothing is asked; all is as before")
            self.ask(text)

    def _retry(self, _: str) -> None:
        with self._as_before_if_it_fails():
            self.conversation.take_answer()
            asked = self.conversation.messages[-1:]
            require(bool(asked) and asked[0]["role"] == "user", "nothing has been asked yet")
            self.answer()

    def _reset(self, _: str) -> None:
        self.conversation.reset()
        note("(a new conversation)")

    def _system(self, text: str) -> None:
        self.conversation.set_system(text)
        note("(told)" if text else "(there is no system message)")

    def _save(self, text: str) -> None:
        line = self.conversation.save(_file(text, "save"))
        note(f"(saved as line {line})")

    def _load(self, text: str) -> None:
        self.conversation = Conversation.load(_file(text, "load"))
        self.left_out = 0
        for message in self.conversation.messages:
            mark = "" if message["role"] == ASSISTANT else "> "
            say(f"{mark}{message['content']}")


def converse(session: Session, name: str) -> None:
    """At a terminal, until Ctrl-D."""
    note(f"{name} listens; /help tells what there is, Ctrl-D leaves.")
    while True:
        try:
            line = read_line("> ")
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print()
            continue
        try:
            if line.startswith("/") and not line.startswith("//"):
                session.command(line)
            elif line.strip():
                session.ask(line.removeprefix("/") if line.startswith("//") else line)
        except (UserError, OSError) as error:
            note(f"({error})")
        except (EOFError, KeyboardInterrupt):  # of /edit, which was thought better of
            print()


def answer_lines(session: Session) -> None:
    """From a pipe: each line is a message, whatever it begins with."""
    for line in sys.stdin.buffer:
        question = line.rstrip(b"\r\n").decode("utf-8", "surrogateescape")
        if question.strip() and not session.ask(question):
            raise KeyboardInterrupt


def read_line(prompt: str, begun: str = "") -> str:
    """A line that the user types, or changes."""
    lines = _readline()
    if lines is None:
        return input(prompt)
    lines.set_startup_hook(lambda: lines.insert_text(begun))
    try:
        return input(prompt)
    finally:
        lines.set_startup_hook()


def note(text: str) -> None:
    """Something about the conversation, beside it."""
    say(text, file=sys.stderr)


def _readline() -> ModuleType | None:
    """Lines can be edited where Python has this module: everywhere but on Windows."""
    try:
        return import_module("readline")
    except ImportError:
        return None


def _file(text: str, command: str) -> Path:
    require(bool(text), f"/{command} needs a file: /{command} FILE")
    return Path(text).expanduser()
