"""A BLT's global transformer begins as the layers of a token model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import blt
from blt.byteify.start import scale_patches, take_layers, take_norm, with_layers_of
from blt.checkpoint.open import open_token_model
from blt.model.packing import Spans
from llamas import FAMILIES, close, their_model
from shapes import tiny_config

pytest.importorskip("transformers")


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("seed", range(8))
@torch.no_grad()
def test_the_global_transformer_begins_as_their_layers(
    tmp_path: Path, seed: int, kind: str
) -> None:
    """On the same inputs, the same hidden states after each layer, up to the last norm."""
    theirs = their_model(seed, kind)
    theirs.save_pretrained(tmp_path)
    found = open_token_model(tmp_path)
    model = blt.BLT(with_layers_of(tiny_config(), found.config))
    take_layers(model, found)
    inputs = torch.randn(40, theirs.config.hidden_size)
    said = theirs.model(inputs_embeds=inputs[None], output_hidden_states=True)
    _, *expected, last = (states[0] for states in said.hidden_states)
    stack, found_states = model.global_transformer.transformer, []
    hidden = stack(inputs, Spans.from_lengths([len(inputs)]), on_layer=found_states.append)
    assert len(found_states) == len(expected) + 1
    assert all(map(close, found_states, expected))
    assert close(theirs.model.norm(hidden), last)


@pytest.mark.parametrize("kind", FAMILIES)
def test_gradients_are_those_of_their_layers(tmp_path: Path, kind: str) -> None:
    """Through many rows, which take functions made by hand."""
    theirs = their_model(1, kind)
    theirs.save_pretrained(tmp_path)
    found = open_token_model(tmp_path)
    model = blt.BLT(with_layers_of(tiny_config(), found.config))
    take_layers(model, found)
    stack, gradients = model.global_transformer.transformer, []
    inputs, wanted = torch.randn(2, 90, theirs.config.hidden_size)
    for read in (
        lambda x: theirs.model.norm(stack(x, Spans.from_lengths([len(x)]))),
        lambda x: theirs.model(inputs_embeds=x[None]).last_hidden_state[0],
    ):
        x = inputs.clone().requires_grad_()
        (read(x) * wanted).sum().backward()
        gradients.append(x.grad)
    assert close(*gradients)
    if found.config.block.qkv_bias or found.config.block.qk_norm != "none":
        name = "qkv_bias" if found.config.block.qkv_bias else "q_norm.weight"
        ours = stack.get_parameter(f"layers.0.attention.{name}").grad
        end = name.replace("qkv_bias", "q_proj.bias")
        given = theirs.model.get_parameter(f"layers.0.self_attn.{end}").grad
        rows = len(given)
        assert float(ours[:rows].norm()) == pytest.approx(float(given.norm()), rel=1e-4)


@pytest.mark.parametrize("local_dim", [16, 32])
def test_patches_begin_as_large_as_the_embeddings_of_tokens(tmp_path: Path, local_dim: int) -> None:
    """With a projection before the global transformer, and without."""
    theirs = their_model(0, "llama", hidden_size=32, num_attention_heads=2, num_key_value_heads=2)
    theirs.save_pretrained(tmp_path)
    found = open_token_model(tmp_path)
    model = blt.BLT(with_layers_of(tiny_config(local_dim=local_dim), found.config))
    texts = [blt.encode(b"some text to measure patches on, " * 3)]
    take_layers(model, found)
    scale_patches(model, found, texts)
    with torch.no_grad():
        _, patches = model.encoder(model.pack(texts))
        size = model.global_transformer.projection(patches).square().mean().sqrt()
        wanted = theirs.model.embed_tokens.weight.square().mean().sqrt()
    assert float(size) == pytest.approx(float(wanted), rel=0.05)


@torch.no_grad()
def test_the_decoder_reads_what_the_head_of_the_source_read(tmp_path: Path) -> None:
    """The same as if it read what the last norm gave, but for each patch's own size."""
    theirs = their_model(0, "llama", hidden_size=32, num_attention_heads=2, num_key_value_heads=2)
    theirs.save_pretrained(tmp_path)
    found = open_token_model(tmp_path)
    model = blt.BLT(with_layers_of(tiny_config(), found.config))
    take_layers(model, found)
    packed = model.pack([blt.encode(b"some text to measure patches on, " * 3)])
    before = model.decoder.patch_projection.weight.clone()
    take_norm(model, found, [packed.ids])
    hidden = model.global_transformer(model.encoder(packed)[1], packed.patches)
    expected, read = theirs.model.norm(hidden) @ before.T, model.decoder.patch_projection(hidden)
    assert close(torch.nn.functional.normalize(read), torch.nn.functional.normalize(expected))
    assert float(read.square().mean()) == pytest.approx(float(expected.square().mean()), rel=0.2)
