"""Templates of strangers: run where they reach nothing, and with marks that no message can hold."""

from __future__ import annotations

import json
import re
import secrets
import threading
import time
import traceback
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, nodes
from jinja2.exceptions import TemplateSyntaxError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from blt import vocab
from blt.errors import UserError

MAX_CHARACTERS = 2**24  # of a rendered conversation, and of what a product or a power makes
MAX_SECONDS = 10  # of a processor, in one rendering
SPECIALS = {
    "bos_token": vocab.BOS,
    "eos_token": vocab.EOS,
    "boe_token": vocab.BOE,  # no text has these two: they are free to mean what a template wants
    "bpe_token": vocab.BPE,
}
LEARNED, LEARNED_END = "blt_learned", "blt_learned_end"  # what {% generation %} writes
CODE = "<template>"  # as tracebacks call it
ROUNDS = "rounds of a loop"  # a filter that no template can name


class Generation(Extension):
    """``{% generation %}``, as transformers has it: what is inside, the assistant has said."""

    tags = {"generation"}  # noqa: RUF012 - of jinja2

    def parse(self, parser: Parser) -> list[nodes.Node]:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        marks = [nodes.Output([nodes.Name(name, "load")]) for name in (LEARNED, LEARNED_END)]
        return [marks[0].set_lineno(line), *body, marks[1].set_lineno(line)]


class Sandbox(ImmutableSandboxedEnvironment):
    """Where a template reaches nothing, and ends: the clock is looked at in each round of a loop
    and at each call."""

    intercepted_binops = frozenset(["*", "**"])  # which are not computed before it runs, either

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        del self.globals["lipsum"]  # as much text as is asked for
        self.filters[ROUNDS] = self._rounds
        self._run = threading.local()  # a server renders in several threads

    def begin(self) -> None:
        """The time of this thread's rendering begins."""
        self._run.end = time.thread_time() + MAX_SECONDS

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Of templates, each ``f(x)``."""
        self._look()
        return super().call(context, obj, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """``*`` and ``**``, which of small things make large ones."""
        if _length(operator, left, right) > MAX_CHARACTERS:
            raise TemplateError(f"makes something longer than {MAX_CHARACTERS} with {operator}")
        return super().call_binop(context, operator, left, right)

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        for loop in source.find_all(nodes.For):
            loop.iter = nodes.Filter(loop.iter, ROUNDS, [], [], None, None, lineno=loop.lineno)
        return super()._generate(source, *args, **kwargs)

    def _rounds(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            self._look()
            yield item

    def _look(self) -> None:
        if time.thread_time() > self._run.end:
            raise TemplateError(f"runs for more than {MAX_SECONDS} seconds")


class Program:
    """A compiled template.

    Raises:
        UserError: not a template; names the line.
    """

    def __init__(self, text: str, where: str) -> None:
        self.where = where
        environment = self._environment = Sandbox(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[Generation, "jinja2.ext.loopcontrols"],
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _refuse
        try:
            self.marks_learned = _has_generation(environment.parse(text))
            self._template: Template = environment.from_string(text)
        except TemplateSyntaxError as error:
            raise UserError(f"{where}, line {error.lineno}: {error.message}") from None
        except (TemplateError, RecursionError) as error:
            raise UserError(f"{where}: cannot be compiled ({error})") from None

    def run(self, marks: Marks, **variables: Any) -> str:
        """What it writes.

        Raises:
            UserError: it fails, writes more than MAX_CHARACTERS, or runs for more than MAX_SECONDS;
                names the line.
        """
        pieces, length = [], 0
        self._environment.begin()
        try:
            for piece in self._template.generate(**marks.variables, **variables):
                pieces.append(piece)
                length += len(piece)
                if length > MAX_CHARACTERS:
                    raise TemplateError(f"writes more than {MAX_CHARACTERS} characters")
        except Exception as error:  # whatever its expressions end in
            reason = str(error) or type(error).__name__
            raise UserError(f"{self.where}{_line(error)}: {reason}") from None
        return "".join(pieces)


class Marks:
    """What stands for special ids while a template runs; made anew each time, so that no message
    can have been written with it.

    Attributes:
        variables: what a template calls them.
    """

    def __init__(self) -> None:
        self._key = secrets.token_hex(16)
        names = (*SPECIALS, LEARNED, LEARNED_END)
        self.variables = {name: f"<{self._key}:{name}>" for name in names}
        self._pattern = re.compile(f"<{self._key}:([a-z_]+)>")

    def split(self, text: str) -> Iterator[tuple[str, str]]:
        """Text, and the name of the mark behind it, "" at the end.

        Raises:
            ValueError: a mark that the template has changed.
        """
        parts = self._pattern.split(text)
        for part, name in zip(parts[::2], [*parts[1::2], ""], strict=True):
            if self._key in part.lower():
                raise ValueError("changes the text of a special token, which must stay as it is")
            yield part, name


def _has_generation(tree: nodes.Template) -> bool:
    return any(name.name == LEARNED for name in tree.find_all(nodes.Name))


def _length(operator: str, left: Any, right: Any) -> int:
    """Items that a product repeats, or about as many bits as a power has."""
    if operator == "**":
        whole = isinstance(left, int) and isinstance(right, int)
        return left.bit_length() * right if whole else 0
    (items, count) = (right, left) if isinstance(left, int) else (left, right)
    return len(items) * count if isinstance(count, int) and hasattr(items, "__len__") else 0


def _refuse(message: object) -> NoReturn:
    """``raise_exception`` of templates."""
    raise TemplateError(str(message))


def _to_json(value: Any, indent: int | None = None, ensure_ascii: bool = False) -> str:
    """As transformers has it: that of jinja2 writes for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


def _line(error: Exception) -> str:
    """Where in the template, as far as it is known."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == CODE]
    return f", line {lines[-1]}" if lines else ""
