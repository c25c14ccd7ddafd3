"""Sections of a recipe: text, training, and what only some models have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from blt.data.form import Learn, SourceConfig, converses, weights_of, without_weight
from blt.errors import nearest, require, require_list
from blt.machine.precision import Precision
from blt.model.compiling import Compile
from blt.texts.noises import NOISES, PAPER
from blt.train.optim import MatrixOptimizer

MOST_SEED = 2**63 - 1
POSITIVE = (
    *("epochs", "bytes", "seconds", "flops", "lr", "clip"),
    *("log_every", "eval_bytes", "checkpoint_every_seconds", "keep_checkpoints"),
    *("accumulate", "most_skipped", "most_norm"),
)


@dataclass(frozen=True)
class DataConfig:
    """What to learn from; lengths in bytes."""

    # Files, folders, globs, hf:NAME, prepared folders, ...; or tables that say how they are read
    sources: tuple[str | SourceConfig, ...] = ()
    weights: tuple[float, ...] = ()  # share of each source; none: as much as there is of each
    heldout: float = 0.05  # share of documents that is never trained on
    max_bytes: int | None = None  # of all sources together that are not prepared
    context_bytes: int = 2048  # longest piece of a document that the model sees at once
    batch_bytes: int = 8192  # ids per step
    # Of conversations what the assistant says, and of prompts with completions these; or all
    learn: Learn = "completions"
    max_broken: int = 100  # rows without a document that are left out of one file
    noise: float = 0.0  # share of segments that are disturbed, others in every epoch
    noises: tuple[str, ...] = tuple(PAPER)  # how, each equally often

    def __post_init__(self) -> None:
        require_list("data.sources", self.sources)
        require(bool(self.sources), 'data.sources: name text, such as ["book.txt"]')
        if weights := weights_of(self.sources):
            require(not self.weights, "data.weights: the sources have a weight each already")
            object.__setattr__(self, "weights", weights)
        object.__setattr__(self, "sources", tuple(map(without_weight, self.sources)))
        require(
            len(self.weights) in (0, len(self.sources)) and all(w > 0 for w in self.weights),
            f"data.weights: one positive number for each source, or none, got {self.weights}",
        )
        require(0 < self.heldout < 1, f"data.heldout must be between 0 and 1, got {self.heldout}")
        least_of = {"max_bytes": 1, "context_bytes": 1, "batch_bytes": 2, "max_broken": 0}
        for name, least in least_of.items():
            value = getattr(self, name)
            enough = value is None or value >= least
            require(enough, f"data.{name} must be at least {least}, got {value}")
        self._check_noise()

    @property
    def converses(self) -> bool:
        """Is one of the sources of conversations?"""
        return converses(self.sources)

    def _check_noise(self) -> None:
        """Each noise once and known, and a share of them where they are named."""
        require(0 <= self.noise <= 1, f"data.noise must be between 0 and 1, got {self.noise}")
        for name in self.noises:
            require(name in NOISES, f"data.noises: no {name!r}; {nearest(name, [*NOISES])}")
            require(self.noises.count(name) == 1, f"data.noises: {name!r} is named twice")
        require(bool(self.noises) or not self.noise, "data.noise: data.noises names none")
        unused = not self.noise and self.noises != tuple(PAPER)
        require(not unused, "data.noises: no text is disturbed; set data.noise, such as 0.2")


@dataclass(frozen=True)
class TrainConfig:
    """How long and how to train; the first of ``steps``, ``epochs``, ``bytes``, ``seconds`` and
    ``flops`` to end ends it."""

    steps: int | None = None  # 0: none, of a model that begins from another (init)
    epochs: float | None = None  # passes over the text that is trained on
    bytes: int | None = None  # of text, read in all
    seconds: float | None = None  # wall clock, evaluations and checkpoints included
    flops: float | None = None  # forward and backward, and the entropy model's forward
    optimizer: MatrixOptimizer = "adamw"  # of matrices inside layers; AdamW for the rest
    lr: float = 1e-3
    schedule: Literal["cosine", "wsd"] = "cosine"  # wsd: constant, then a linear decay
    min_lr_ratio: float = 0.1  # of lr, at the end
    warmup: float = 0.05  # share of the training
    decay: float = 0.2  # of wsd: share of the training in which lr falls
    accumulate: int = 1  # batches of each process in one step
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.1
    clip: float = 1.0  # norm of all gradients together
    most_norm: float | None = None  # skip steps whose norm is so many times the usual one
    most_skipped: int = 10  # skipped steps in a row that end the training
    stale_patches: float = 0.0  # share of a BLT's patches that its decoder gets late, as in drafts
    recompute: bool = False  # global layers keep nothing for backward: less memory, more time
    compile: Compile = "auto"  # fuse layers with torch.compile; "auto": on a GPU
    precision: Precision = "auto"
    device: str = "auto"
    log_every: int | None = None  # steps; None: each on a CPU, each tenth on a GPU, which waits
    evals: int = 5  # held-out evaluations, evenly spread, the last one at the end
    eval_bytes: int = 32768  # of held-out text per evaluation
    sample_prompts: tuple[str, ...] = ("",)  # continued at each evaluation, by one process
    checkpoint_every_seconds: float = 60.0
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ()  # besides metrics.jsonl
    keep_checkpoints: int = 1  # the last one, and older ones in checkpoints/

    def __post_init__(self) -> None:
        limits = (self.steps, self.epochs, self.bytes, self.seconds, self.flops)
        require(
            any(limit is not None for limit in limits),
            "train: steps, epochs, bytes, seconds or flops must say when to stop",
        )
        require((self.steps or 0) >= 0, f"train.steps must not be negative, got {self.steps}")
        for name in POSITIVE:
            value = getattr(self, name)
            require(value is None or value > 0, f"train.{name} must be positive, got {value}")
        for name in ("min_lr_ratio", "warmup", "decay", "stale_patches"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"train.{name} must be between 0 and 1, got {value}")
        for beta in self.betas:
            require(0 <= beta < 1, f"train.betas must be at least 0 and below 1, got {beta}")
        require(self.weight_decay >= 0, f"train.weight_decay must not be {self.weight_decay}")
        require(self.evals >= 0, f"train.evals must not be negative, got {self.evals}")


@dataclass(frozen=True)
class ByteifyConfig:
    """How a BLT takes over a token model: its layers (paper §5.2), and what it knows of tokens."""

    source: str = ""  # a folder or hub id: ours, or a Llama, Qwen, ...; `blt byteify` fills it in
    # Share of the training, first, in which the layers stay as they are and read the source's own
    # embeddings; the encoder learns to give them, the decoder to read what comes out.
    frozen: float = 0.5
    distill: float = 0.5  # there, weight of the source's byte probabilities, instead of the bytes'
    global_lr: float = 0.1  # of the global transformer afterwards, as a share of train.lr
    scratch: bool = False  # nothing is taken over but shape and cuts: what to compare with

    def __post_init__(self) -> None:
        for name in ("frozen", "global_lr", "distill"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"byteify.{name} must be between 0 and 1, got {value}")


@dataclass(frozen=True)
class RoutingConfig:
    """How the patching rule "learned" is brought to ``target_patch_size`` (arXiv 2507.07955)."""

    ratio_loss: float = 0.03  # weight of what presses towards it, beside nats per byte
    warmup: float = 0.3  # share of the training in which patches are allowed to grow up to it

    def __post_init__(self) -> None:
        require(self.ratio_loss >= 0, f"routing.ratio_loss must not be {self.ratio_loss}")
        in_range = 0 <= self.warmup <= 1
        require(in_range, f"routing.warmup must be between 0 and 1, got {self.warmup}")


@dataclass(frozen=True)
class LoraConfig:
    """Adapters to train in place of the weights of a model that is there."""

    rank: int = 16
    alpha: float = 32.0  # what an adapter adds is multiplied with alpha / rank
    dropout: float = 0.0  # of what adapters read
    # parts of layers' names, such as "global_transformer" or "attention.qkv"; none: all linear
    # layers of the local and global models
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require(self.rank >= 1, f"lora.rank must be at least 1, got {self.rank}")
        require(self.alpha > 0, f"lora.alpha must be positive, got {self.alpha}")
        require(0 <= self.dropout < 1, f"lora.dropout must be in [0, 1), got {self.dropout}")
