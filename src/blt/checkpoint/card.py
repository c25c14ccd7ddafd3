"""The card of a model on the hub: what can be known of it from its folder."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from rich.filesize import pick_unit_and_suffix

from blt.checkpoint.folders import INIT, Checkpoint
from blt.checkpoint.layouts.names import TABLE, Layout
from blt.checkpoint.origin import damaged, published
from blt.errors import UserError
from blt.files.int8 import types_in_files
from blt.model.config import Config

TAGS = ("byte-level", "byte-latent-transformer", "tokenizer-free", "arxiv:2412.09871")
OF_BYTES = "it reads and writes bytes, and has no tokenizer"
OF_TOKENS = "it reads and writes tokens over bytes, by the BPE of its tokenizer.json"
USES = {
    "transformers": (
        "from transformers import BltForCausalLM\n\n"
        'model = BltForCausalLM.from_pretrained("{name}")  # generate with use_cache=False\n'
    ),
    "meta": 'import blt\n\nlm = blt.load("{name}")\n',
    "blt": 'import blt\n\nlm = blt.load("{name}")\n',
}
NOT_TOLD = (
    "This card was generated from the model's files. What it was trained on, what it scores, and "
    "what it should not be used for, only its makers can tell."
)


def write_card(found: Checkpoint, layout: Layout, name: str, license: str | None) -> str:
    """Markdown with the hub's metadata.

    Args:
        found: the model.
        layout: of its folder.
        name: of its repository.
        license: None: left out.
    """
    library = "transformers" if layout == "transformers" else "blt"
    meta = [f"library_name: {library}", "pipeline_tag: text-generation", "tags:"]
    tags = TAGS[-1:] if found.kind == "token" else TAGS
    meta += [f"- {tag}" for tag in tags] + ([f"license: {license}"] if license else [])
    reads = OF_TOKENS if found.kind == "token" else OF_BYTES
    kind = "Byte Latent Transformer" if found.kind == "blt" else f"{found.kind} transformer"
    table = "\n".join(f"| {key} | {value} |" for key, value in _facts(found).items())
    return (
        f"---\n{chr(10).join(meta)}\n---\n# {name.split('/')[-1]}\n\nA {kind} "
        f"([arXiv 2412.09871](https://arxiv.org/abs/2412.09871)): {reads}.\n\n"
        f"| | |\n|---|---|\n{table}\n\n## Use\n```python\n"
        f"{USES[layout].format(name=name)}```\n\n{_origin(found)}{NOT_TOLD}\n"
    )


def _origin(found: Checkpoint) -> str:
    """What the model began from, what was changed in it then, and what that cost."""
    if INIT not in found.files:
        return ""
    try:
        return _beginning(published(found.files[INIT], found.where))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UserError(damaged(found.where)) from None


def _beginning(begun: Mapping[str, Any]) -> str:
    was, now = (begun["heldout"].get(name) for name in ("as_it_was", "as_changed"))
    lines = [f"## Where it comes from\nIts training began from `{begun['init']}`{_weights(begun)}"]
    scored = was["bits_per_byte"] is not None
    if scored:
        lines[0] += (
            f", which had {was['bits_per_byte']:.3f} bits per byte on {was['bytes']:,} bytes of "
            "text that was held out from it"
        )
    if now is not None:
        if scored:
            lines[0] += f", and {now['bits_per_byte']:.3f}"
        lines[0] += " with what was changed before the first step"
        lines.append("\n| changed | was | is | |\n|---|---|---|---|")
        lines += [
            f"| {x['key']} | {x['was']} | {x['is']} | {x.get('how', '')} |"
            for x in begun["changed"]
        ]
    lines[0] += "."
    return "\n".join(lines) + "\n\n"


def _weights(begun: Mapping[str, Any]) -> str:
    found = begun.get("weights_sha256")  # earlier versions wrote none
    return f" (SHA-256 of the weights: `{found[:16]}…`)" if found else ""


def _facts(found: Checkpoint) -> dict[str, str]:
    specs = found.tensors.specs
    sizes = {name: prod(spec.shape) for name, spec in specs.items()}
    facts = {
        "parameters": _count(sum(sizes.values())),
        "precision": types_in_files(found.tensors),
    }
    if isinstance(found.config, Config):
        c, patching = found.config, found.config.patching
        entropy = sum(n for name, n in sizes.items() if name.startswith("entropy_model."))
        facts |= {
            "of them in hash tables": _count(sizes[TABLE]),
            "of them in the entropy model": _count(entropy),
            "local models": (
                f"width {c.local_dim}, {c.encoder_layers} encoder and {c.decoder_layers} decoder "
                f"layers, window {c.sliding_window} bytes"
            ),
            "global transformer": f"width {c.global_dim}, {c.global_layers} layers",
            "patching": f"{patching.rule}, θ = {patching.threshold} nats"
            if patching.needs_entropies
            else patching.rule,
        }
    return facts


def _count(number: int) -> str:
    """A number of parameters, as 3.1B."""
    unit, suffix = pick_unit_and_suffix(number, ["", "K", "M", "B", "T"], 1000)
    return f"{number / unit:.3g}{suffix}"
