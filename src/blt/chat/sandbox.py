"""Templates of strangers: run where they reach nothing, and with marks that no message can hold."""

from __future__ import annotations

import json
import re
import secrets
import traceback
from collections.abc import Iterator
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, nodes
from jinja2.exceptions import TemplateSyntaxError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from blt import vocab
from blt.errors import UserError

MAX_CHARACTERS = 2**24  # of a rendered conversation
SPECIALS = {
    "bos_token": vocab.BOS,
    "eos_token": vocab.EOS,
    "boe_token": vocab.BOE,  # no text has these two: they are free to mean what a template wants
    "bpe_token": vocab.BPE,
}
LEARNED, LEARNED_END = "blt_learned", "blt_learned_end"  # what {% generation %} writes
CODE = "<template>"  # as tracebacks call it


class Generation(Extension):
    """``{% generation %}``, as transformers has it: what is inside, the assistant has said."""

    tags = {"generation"}  # noqa: RUF012 - of jinja2

    def parse(self, parser: Parser) -> list[nodes.Node]:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        marks = [nodes.Output([nodes.Name(name, "load")]) for name in (LEARNED, LEARNED_END)]
        return [marks[0].set_lineno(line), *body, marks[1].set_lineno(line)]


class Program:
    """A compiled template.

    Raises:
        UserError: not a template; names the line.
    """

    def __init__(self, text: str, where: str) -> None:
        self.where = where
        environment = ImmutableSandboxedEnvironment(
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
            UserError: it fails, or writes more than MAX_CHARACTERS; names the line.
        """
        pieces, length = [], 0
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
