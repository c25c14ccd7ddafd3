"""``blt chat``: talk to a model in the terminal; :mod:`blt.cli.chat_view` reads and shows."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from blt.cli.device import Device, chosen
from blt.cli.sampling import Draws
from blt.errors import UserError


@dataclass(frozen=True)
class Answers(Draws):
    """How each byte is chosen, and where an answer ends."""

    max_bytes: int = 1024
    """How many bytes an answer has at most."""
    valid_utf8: bool = True
    """Allow any bytes; those that are no characters are shown as U+FFFD. A model over tokens always
    may write them."""


def chat(
    folder: Positional[str],
    /,
    *,
    template: str = "",
    adapter: Path | None = None,
    system: str = "",
    context: int = 8192,
    precision: str | None = None,
    draft_bytes: int = 0,
    device: Device = "auto",
    answers: Answers,
) -> None:
    """Talk to a model in the terminal.

    /help lists what there is besides asking; Ctrl-C stops an answer, Ctrl-D leaves. From a pipe,
    each line is a message, and the answers alone are printed.

    Args:
        folder: Model folder with a chat template, such as RUN/checkpoint, or a hub id.
        template: File of a chat template instead of that in the folder, or "default": for a model
            that has none.
        adapter: Folder of an adapter (LoRA) for that model, whose template is taken if it has one.
        system: What the model is told before all else.
        context: Bytes that the model is given at most, the answer included; the oldest turns are
            left out.
        precision: Precision of the weights: float32, bfloat16 or int8 (on a CPU). Left out:
            bfloat16 on a GPU that has it, else as the model is.
        draft_bytes: Self-speculation: guess so many bytes at once, then verify them together.
    """
    from blt.chat import ChatTemplate
    from blt.chat.conversation import Conversation
    from blt.cli import chat_view
    from blt.generate import Sampling
    from blt.lm import load

    how = Sampling(**vars(answers))
    if context <= answers.max_bytes:
        raise UserError(f"--context {context} must be more than --max-bytes {answers.max_bytes}")
    laid_out = ChatTemplate.chosen(template) if template else None
    lm = load(folder, chosen(device), adapter)
    if laid_out is None and lm.chat_template is None:
        raise UserError(
            f"{folder}: has no chat template, so it was not trained to chat; train it on messages, "
            "give --template FILE, or --template default to see what it says all the same"
        )
    if laid_out is None:
        laid_out = ChatTemplate(str(lm.chat_template), f"{folder}: chat template")
    conversation = Conversation()
    conversation.set_system(system)
    with chat_view.talker_of(lm, precision, draft_bytes) as talker:
        session = chat_view.Session(conversation, laid_out, talker, how, context)
        if sys.stdin.isatty():
            chat_view.converse(session, folder)
        else:
            chat_view.answer_lines(session)
