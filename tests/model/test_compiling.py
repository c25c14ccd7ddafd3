"""The forward is one graph for any documents, lengths and patches, and equals the plain one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch._dynamo as dynamo
import torch.nn.functional as F
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch._inductor import metrics
from torch.nn.attention.varlen import varlen_attn

import blt
from blocks import MIXED, QWEN3, block_blt
from blt.generate import Engine
from blt.generate.compiled import compiled_forward
from blt.lm import LanguageModel, TokenLM
from blt.model import compiling
from blt.model.compiling import compile_model, wants_compiling
from blt.model.config import TokenTransformerConfig
from blt.model.kernels import flash
from blt.model.kernels.blocks import block_attention
from shapes import tiny_config

BATCHES = 10  # of 1 to 7 documents each
MOST_OPEN = 11  # bytes, documents, patches, the longest of each: none of the weights' own
SHALLOW = {"decoder_layers": 1, "global_layers": 1}  # tracing takes most of the time

MODELS: dict[str, Callable[[], LanguageModel]] = {
    "blt": lambda: blt.BLT(tiny_config(**SHALLOW)),
    "blt without cross-attention": lambda: blt.BLT(
        tiny_config(encoder_cross_attention="none", decoder_cross_attention="none", **SHALLOW)
    ),
    "other layers": lambda: block_blt(MIXED, **SHALLOW),
    "norms of heads": lambda: block_blt(QWEN3, **SHALLOW),
    "lines": lambda: blt.BLT(
        tiny_config(patching=blt.PatchingConfig(threshold=4.6, newline_reset=True), **SHALLOW)
    ),
    "byte": lambda: blt.ByteLM(
        blt.ByteTransformerConfig(dim=32, heads=2, layers=1, ff_dim=48, sliding_window=64)
    ),
    "token": lambda: TokenLM(
        TokenTransformerConfig(vocab_size=300, dim=32, heads=2, layers=1, ff_dim=48)
    ),
}


@pytest.fixture(autouse=True)
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[CompileCounterWithBackend]:
    """Counts graphs, each of which must be whole; PyTorch's own backward pass, no compiler."""
    counter = CompileCounterWithBackend("aot_eager")
    compile_function, compile_module = torch.compile, nn.Module.compile
    options: dict[str, Any] = {"fullgraph": True, "dynamic": True, "backend": counter}
    monkeypatch.setattr(compiling, "compiled", lambda one: compile_function(one, **options))
    monkeypatch.setattr(nn.Module, "compile", lambda self, dynamic: compile_module(self, **options))
    monkeypatch.setattr(compiling, "probe", lambda device: None)
    dynamo.reset()
    yield counter
    dynamo.reset()


def twins(kind: str) -> tuple[LanguageModel, LanguageModel]:
    torch.manual_seed(0)
    one, other = MODELS[kind](), MODELS[kind]()
    other.load_state_dict(one.state_dict())
    return one, other


def batches(count: int = BATCHES, least: int = 1) -> Iterator[list[Tensor]]:
    generator = torch.Generator().manual_seed(0)
    for number in range(count):
        lengths = torch.randint(least, 200, (1 + number % 7,), generator=generator).tolist()
        yield [torch.randint(4, 260, (n,), generator=generator) for n in lengths]


def gradients(model: LanguageModel, documents: list[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits, and gradients of the mean cross-entropy."""
    model.zero_grad()
    logits = model.packed_logits(documents)
    F.cross_entropy(logits, torch.cat(documents)).backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return logits.detach(), found


@pytest.mark.parametrize(
    ("kind", "whole"),
    [
        *((kind, True) for kind in MODELS if kind != "lines"),
        ("blt", False),
        *(
            pytest.param(kind, False, marks=pytest.mark.slow)
            for kind in MODELS
            if kind not in ("blt", "lines")
        ),
    ],
    ids=lambda value: {True: "one graph", False: "layer by layer"}.get(value, value),
)
def test_compiled_equals_plain_and_later_batches_compile_nothing(
    kind: str, whole: bool, graphs: CompileCounterWithBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "WHOLE_LAYERS", 16 if whole else 0)
    fast, plain = twins(kind)
    compile_model(fast)
    first = 0
    for documents in batches():
        (logits, grads), (wanted, expected) = (gradients(m, documents) for m in (fast, plain))
        torch.testing.assert_close(logits, wanted, rtol=1e-5, atol=1e-5)
        for name, grad in grads.items():
            torch.testing.assert_close(grad, expected[name], rtol=1e-4, atol=1e-5)
        first = first or graphs.frame_count
    assert graphs.frame_count == first
    entropy_model = isinstance(fast, blt.BLT)
    # By layers: encoder and decoder have one width here, cross-attention has two directions.
    most = (1 + entropy_model) if whole else (1 + 3 * entropy_model + 2 * entropy_model)
    assert first <= most
    assert max(map(open_sizes, graphs.graphs)) <= MOST_OPEN


def test_what_is_scored_and_cut_runs_compiled_too(graphs: CompileCounterWithBackend) -> None:
    fast, plain = twins("blt")
    compile_model(fast)
    texts = [bytes(range(n, n + 90)) for n in range(9)]
    for number, text in enumerate(texts):
        assert fast.bits_per_byte(text) == pytest.approx(plain.bits_per_byte(text), abs=1e-5)
        assert isinstance(fast, blt.BLT)
        assert isinstance(plain, blt.BLT)
        assert torch.equal(fast.patch(text).starts, plain.patch(text).starts)
        if number == 0:
            first = graphs.frame_count
    assert graphs.frame_count == first == 2  # entropies, and the rest


PROMPTS = [bytes((n * 7 + i * i) % 200 + 30 for i in range(n)) for n in (90, 1, 2, 64, 65, 300)]
# Few and many ids, one prompt and several, lines and none: 20 prompts.
GROUPS = [[PROMPTS[n % 6], *PROMPTS[:2][: n % 3], b"\n" * n][: 1 + n % 4] for n in range(10)]


@pytest.mark.parametrize(
    ("kind", "captured", "whole"),
    [
        ("blt", False, True),
        ("blt", True, False),
        ("byte", False, True),
        pytest.param("blt without cross-attention", True, True, marks=pytest.mark.slow),
        pytest.param("lines", False, True, marks=pytest.mark.slow),
    ],
)
def test_prompts_are_read_compiled_and_later_ones_compile_nothing(
    kind: str,
    captured: bool,
    whole: bool,
    graphs: CompileCounterWithBackend,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compiling, "WHOLE_LAYERS", 16 if whole else 0)
    fast, plain = twins(kind)
    compile_model(fast)
    engines = [Engine(model, captured=captured) for model in (fast, plain)]
    first = 0
    for prompts in GROUPS:
        found, wanted = (write(engine, prompts) for engine in engines)
        for ours, theirs in zip(found, wanted, strict=True):
            assert ours.data == theirs.data
            assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-5)
        first = first or graphs.frame_count
    write(Engine(fast, captured=captured), GROUPS[0])
    assert graphs.frame_count == first  # neither later prompts nor another engine
    is_blt = isinstance(fast, blt.BLT)
    assert first <= ((1 + is_blt) if whole else (1 + 3 * is_blt + 2 * is_blt))
    assert max(map(open_sizes, graphs.graphs)) <= MOST_OPEN


def open_sizes(graph: torch.fx.GraphModule) -> int:
    """Sizes that a graph takes as they come: every one of them makes it slower to trace."""
    inputs = (node for node in graph.graph.nodes if node.op == "placeholder")
    return sum(isinstance(node.meta["example_value"], torch.SymInt) for node in inputs)


def write(engine: Engine, prompts: list[bytes]) -> list[blt.Generation]:
    handles = [engine.submit(prompt, max_bytes=2) for prompt in prompts]
    engine.run()
    return [handle.result() for handle in handles]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_narrow_weights_read_prompts_compiled(
    precision: Any, graphs: CompileCounterWithBackend
) -> None:
    fast, plain = twins("blt")
    compile_model(fast)
    logits = []
    for model in (fast, plain):
        engine = Engine(model, precision=precision)
        engine.model.read([blt.encode(prompt).tolist() for prompt in PROMPTS])
        logits.append(engine.model.logits[: len(PROMPTS)])
    assert graphs.frame_count == 2
    torch.testing.assert_close(*logits, rtol=0, atol=0.1)


def test_prompts_are_read_as_ever_where_nothing_is_compiled() -> None:
    fast, _ = twins("blt")
    assert Engine(fast).model.compiled is None
    assert Engine(fast, captured=True).model.compiled is None  # on a CPU


def test_a_copy_of_a_compiled_model_runs_with_its_own_weights() -> None:
    fast, _ = twins("byte")
    compile_model(fast)
    (documents,) = batches(1)
    before = fast.packed_logits(documents)
    state = {name: tensor * 1.5 for name, tensor in fast.state_dict().items()}
    with torch.no_grad():
        text = fast.generate(b"abc", max_bytes=8).data
        fast.load_state_dict(state)
    _, fresh = twins("byte")
    assert fresh.generate(b"abc", max_bytes=8).data == text
    assert not torch.allclose(fast.packed_logits(documents), before)


def test_auto_compiles_for_a_gpu_alone() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert [wants_compiling("auto", device) for device in (cpu, gpu)] == [False, True]
    assert all(wants_compiling(True, device) for device in (cpu, gpu))
    assert not any(wants_compiling(False, device) for device in (cpu, gpu))


def test_where_compiling_does_not_work_all_stays_plain_and_a_warning_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(device: torch.device) -> None:
        assert not dynamo.config.suppress_errors  # or it would not be raised
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(compiling, "probe", broken)
    compiling.prepared.cache_clear()
    fast, plain = twins("blt")
    with caplog.at_level(logging.WARNING):
        compile_model(fast)
        compile_model(fast)
        assert compiled_forward(fast) is None  # prompts are read as ever, too
    compiling.prepared.cache_clear()
    assert [record.message for record in caplog.records] == [
        "torch.compile does not work here, so nothing is compiled: no C++ compiler"
    ]
    (documents,) = batches(1)
    assert torch.equal(fast.packed_logits(documents), plain.packed_logits(documents))


@pytest.mark.parametrize("window", [None, 9])
def test_a_gpus_attention_is_traced_with_offsets_that_the_graph_leaves_open(
    window: int | None, monkeypatch: pytest.MonkeyPatch, graphs: CompileCounterWithBackend
) -> None:
    """A stand-in for the kernel: it is called once in each graph, with whatever lengths."""
    seen: list[int] = []

    @torch.library.custom_op("blt_tests::varlen", mutates_args=())
    def kernel(q: Tensor, k: Tensor, v: Tensor, cu: Tensor, longest: int, past: int) -> Tensor:
        assert cu.dtype == torch.int32
        assert longest == max(cu.diff())
        assert past == (-1 if window is None else window - 1)
        seen.append(longest)
        return block_attention(q, k, v, tuple(cu.tolist()), window).contiguous()

    @kernel.register_fake
    def _(q: Tensor, *_: Any) -> Tensor:
        return torch.empty_like(q)

    def varlen(
        q: Tensor, k: Tensor, v: Tensor, cu: Tensor, cu_k: Tensor, longest: int, longest_k: int,
        *, scale: float, window_size: tuple[int, int],
    ) -> Tensor:  # fmt: skip
        return kernel(q, k, v, cu, longest, window_size[0])

    monkeypatch.setattr("blt.model.kernels.causal.fits_flash", lambda q: True)
    monkeypatch.setattr(flash, "_attend", varlen)
    shape = blt.ByteTransformerConfig(dim=32, heads=2, layers=1, ff_dim=48, sliding_window=9)
    model = blt.ByteLM(shape)
    model.transformer.layers[0].attention.window = window
    compile_model(model)
    with torch.no_grad():
        for documents in batches(5):
            model.packed_logits(documents)
    assert graphs.frame_count == 1
    assert len(seen) == 5


def test_pytorchs_own_attention_over_documents_is_traced(
    monkeypatch: pytest.MonkeyPatch, graphs: CompileCounterWithBackend
) -> None:
    """The graph is whole; it is run in vain, as the kernel is for GPUs alone."""
    monkeypatch.setattr(flash, "_attend", varlen_attn)
    run = compiling.compiled(lambda q, cu, n: flash.flash_attention(q, q, q, cu, n, 7) * 2)
    for documents in (2, 5):
        q = torch.randn(10 * documents, 2, 16, dtype=torch.bfloat16)
        cu = torch.arange(0, 10 * documents + 1, 10, dtype=torch.int32)
        with pytest.raises(NotImplementedError, match="_flash_attention_forward"):
            run(q, cu, 10)  # type: ignore[call-arg]
    assert graphs.frame_count == 1


def test_the_compiler_of_pytorch_gives_the_same_in_few_kernels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the real backend, where there is a C++ compiler."""
    monkeypatch.undo()
    dynamo.reset()
    fast, plain = twins("byte")
    metrics.reset()
    compile_model(fast)
    (documents,) = batches(1, least=70)
    (logits, grads), (wanted, expected) = (gradients(m, documents) for m in (fast, plain))
    torch.testing.assert_close(logits, wanted, rtol=1e-5, atol=1e-5)
    for name, grad in grads.items():
        torch.testing.assert_close(grad, expected[name], rtol=1e-4, atol=1e-5)
    assert 0 < metrics.generated_kernel_count <= 40  # one layer and a norm; plain, several hundred
