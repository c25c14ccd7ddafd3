"""Let torch.compile fuse what lies between the matrix products: how, for which model.

A small model is one graph; of a deep one every layer of a width runs the same graph, so that the
first step does not take minutes. Lengths, documents and patches are sizes that a graph leaves open,
so what comes in later batches is compiled no more.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from blt.model.blt import ByteLatentTransformer
from blt.model.cross_attention import CrossAttention
from blt.model.kernels import flash, operators
from blt.model.layers import Transformer, TransformerLayer
from blt.model.transformer import CausalTransformer, cross_entropy

Compile = Literal["auto", True, False]
WHOLE_LAYERS = 16  # up to so many, a model is one graph: its first step takes below a minute
GRAPHS = 64  # of one function: widths, windows, precisions, with and without gradients
RECOMPUTED = 0.45  # of what a layer keeps for backward: the large products, not what they give
CACHE = "TORCHINDUCTOR_CACHE_DIR"  # where compiled kernels are kept from one run to the next

log = logging.getLogger("blt")


def compile_model(model: nn.Module, *, divided: bool = False, recompute: bool = False) -> bool:
    """Compile a model in place: training, scoring and entropies then run compiled.

    Where it cannot be done, all stays as it is, and one warning says why.

    Args:
        divided: the weights will be divided among processes, layer by layer.
        recompute: keep less than half for the backward pass, and compute it again there: what saves
            most memory for its time.

    Returns:
        whether it was done.
    """
    if getattr(model, "router", None) is not None:
        log.warning("nothing is compiled: the patching rule 'learned' cuts between the layers")
        return False
    if not prepared(next(model.parameters()).device):
        return False
    functorch: Any = import_module("torch._functorch.config")
    functorch.activation_memory_budget = RECOMPUTED if recompute else 1.0
    for part in _models(model):
        part.loss = compiled(cross_entropy)
        if not divided and _depth(part) <= WHOLE_LAYERS:
            part.whole = compiled(type(part).whole)
        else:
            _compile_layers(part)
    return True


def is_compiled(model: nn.Module) -> bool:
    """Has :func:`compile_model` done it?"""
    return "loss" in vars(model)


def compiled_function(function: Callable[..., Any], model: nn.Module) -> Callable[..., Any]:
    """A function of a model that runs compiled: one graph, or one for each layer of a deep model.

    Wants :func:`prepared`.
    """
    if _depth(model) <= WHOLE_LAYERS:
        return compiled(function)
    _compile_layers(model)
    return function


def _compile_layers(model: nn.Module) -> None:
    for module in _own_modules(model):
        if isinstance(module, TransformerLayer | CrossAttention):
            module.compile(dynamic=True)
        elif isinstance(module, Transformer):
            module.begins_with_zeros = True


def wants_compiling(how: Compile, device: torch.device) -> bool:
    """ "auto" is on for CUDA alone: on a CPU the functions made by hand are as fast."""
    return device.type == "cuda" if how == "auto" else how


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function over tensors as one graph for all sizes."""
    return torch.compile(function, dynamic=True)


def _models(model: nn.Module) -> Iterator[ByteLatentTransformer | CausalTransformer]:
    """The model, and the entropy model in it."""
    for module in model.modules():
        if isinstance(module, ByteLatentTransformer | CausalTransformer):
            yield module


def _own_modules(model: nn.Module) -> Iterator[nn.Module]:
    """Modules of a model, without those of an entropy model in it, which is one of the models."""
    for name, child in model.named_children():
        if name != "entropy_model":
            yield from child.modules()


def _depth(model: nn.Module) -> int:
    return sum(isinstance(module, TransformerLayer) for module in _own_modules(model))


@cache
def prepared(device: torch.device) -> bool:
    """Set the compiler up, and see whether it works here."""
    os.environ.setdefault(CACHE, str(Path.home() / ".cache" / "blt" / "compiled"))
    # Late: the compiler takes a second and 76 MB.
    dynamo: Any = import_module("torch._dynamo.config")
    dynamo.recompile_limit = max(dynamo.recompile_limit, GRAPHS)
    dynamo.specialize_float = True  # the floats of a model are constants
    if hasattr(dynamo, "skip_fsdp_guards"):
        # Else the numbers of heads of divided layers are open sizes, and their kernels are wrong.
        dynamo.skip_fsdp_guards = False
    # Two sizes that happen to be equal in the first batch need not be in the next.
    shapes: Any = import_module("torch.fx.experimental._config")
    shapes.use_duck_shape = False
    _count_attention()
    flash.look()  # found out now: not while something is traced
    operators.usable(device)
    try:
        with dynamo.patch(suppress_errors=False):
            probe(device)
    except Exception as error:  # no compiler, no Triton, an old device: of many kinds
        reason = " ".join(str(error).split()).partition(" Set TORCHDYNAMO_VERBOSE")[0][:300]
        log.warning("torch.compile does not work here, so nothing is compiled: %s", reason)
        return False
    dynamo.suppress_errors = True  # what cannot be compiled runs as it is, and PyTorch says so
    return True


def _count_attention() -> None:
    """Tell PyTorch what attention costs, or it would rather compute that again than keep it."""
    counter: Any = import_module("torch.utils.flop_counter")
    import_module("torch.nn.attention.varlen")
    for name in ("blt::attention", "torch_attn::_varlen_attn"):
        namespace, _, operator = name.partition("::")
        packet = getattr(getattr(torch.ops, namespace), operator)
        if packet not in counter.flop_registry:
            counter.register_flop_formula(packet)(_attention_flops)


def _attention_flops(q: Sequence[int], *_: Any, **__: Any) -> int:
    """At most so many, of queries of shape [N, H, D], as if each saw a window of 512 keys."""
    rows, heads, width = q
    return 4 * rows * heads * width * min(rows, 512)


def probe(device: torch.device) -> None:
    """Compile and run something small, or raise."""
    compiled(_half)(torch.ones(8, dtype=torch.float32, device=device))


def _half(x: Tensor) -> Tensor:
    return x * 0.5
