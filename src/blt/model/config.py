"""Shapes of the models, as plain dataclasses. Defaults are a laptop-sized model."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

from blt.errors import require, require_within
from blt.patching import PatchingConfig
from blt.vocab import VOCAB_SIZE

# What a number in a config may be, by its name in any of the classes below: far beyond every model
# that there is, and far below what asks for terabytes or leaves the range of float32.
RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("dim", "local_dim", "global_dim"), (2, 2**17)),
    "hash_dim": (1, 2**17),
    **dict.fromkeys(("heads", "local_heads", "global_heads", "kv_heads"), (1, 2**12)),
    "head_dim": (2, 2**12),
    **dict.fromkeys(("layers", "encoder_layers", "decoder_layers", "global_layers"), (1, 2**12)),
    **dict.fromkeys(("ff_dim", "encoder_ff_dim", "decoder_ff_dim", "global_ff_dim"), (1, 2**20)),
    "sliding_window": (1, 2**16),  # generation keeps so many positions of every text
    "cross_attention_k": (1, 2**8),
    "hash_functions": (1, 11),  # so many primes are given
    "hash_rows": (1, 2**31),
    "vocab_size": (1, 2**24),
    "rope_theta": (1.0, 1e15),
    "norm_eps": (1e-12, 1.0),
    # of RopeScaling
    **dict.fromkeys(("factor", "low_freq_factor", "high_freq_factor"), (1e-3, 1e6)),
    "original_max_position_embeddings": (1, 2**31),
}
SPECIAL = 2  # BOS and EOS of a token model, after the tokenizer's own tokens
NGRAM_SIZES = (1, 32)  # bytes, or tokens
Fold = Literal["case", "repeats"]  # what hashes do not see


def _check_ranges(config: object) -> None:
    for name, value in vars(config).items():
        if name in RANGES and value is not None:
            require_within(name, value, *RANGES[name])


def _check_heads(config: object, part: str = "") -> None:
    """Can the width of a part be divided among its heads?"""
    dim, heads = getattr(config, f"{part}dim"), getattr(config, f"{part}heads")
    block: Block = getattr(config, f"{part}block", LLAMA)
    if block.head_dim is None:
        require(dim % heads == 0, f"{part}dim {dim} is not a multiple of {part}heads {heads}")
        require(
            dim // heads % 2 == 0,
            f"{part}dim / {part}heads must be even (RoPE rotates pairs), got {dim // heads}",
        )
    shared = block.key_value_heads(heads)
    require(
        heads % shared == 0,
        f"{part}heads {heads} is not a multiple of {part}block.kv_heads {shared}",
    )


def _check_hashes(config: Any) -> None:
    """Of :class:`Config` and the transformers: can there be such n-grams?"""
    for size in config.hash_ngram_sizes:
        require_within("hash_ngram_sizes", size, *NGRAM_SIZES)
    for rule in config.hash_fold:
        require(rule in ("case", "repeats"), "hash_fold: case, repeats, both or none")
    for name in ("hash_fold", "hash_gate", "hash_dim"):
        require(
            bool(config.hash_ngram_sizes) or not getattr(config, name),
            f"{name} is about n-grams, and hash_ngram_sizes names none",
        )
    require(
        config.hash_dim is None or config.hash_gate,
        "hash_dim: rows of another width than the layers are read by a gate alone; set hash_gate",
    )


@dataclass(frozen=True)
class RopeScaling:
    """Slower rotations for a longer context, as in Llama 3.1: its ``rope_type`` ``llama3``.

    A pair of features that turns fewer than ``low_freq_factor`` times in the original context turns
    ``factor`` times slower, one that turns more than ``high_freq_factor`` times as before; between
    the two, something between.

    Raises:
        ValueError: a value out of its range, or factors in the wrong order; names the field.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int  # positions

    def __post_init__(self) -> None:
        _check_ranges(self)
        require(
            self.low_freq_factor < self.high_freq_factor,
            f"low_freq_factor {self.low_freq_factor} must be below high_freq_factor "
            f"{self.high_freq_factor}",
        )


@dataclass(frozen=True)
class Block:
    """How the layers of published transformers differ. The defaults are Llama's, and the paper's.

    Raises:
        ValueError: an impossible value; names the field.
    """

    kv_heads: int | None = None  # of keys and values, shared by queries (GQA); None: all heads
    head_dim: int | None = None  # features of a head; None: width / heads
    qkv_bias: bool = False  # on queries, keys and values (Qwen 2)
    # RMSNorm of queries and keys before they are rotated: of each head by itself (Qwen 3), or of
    # all heads together (OLMo 2)
    qk_norm: Literal["none", "head", "all"] = "none"
    # where attention and feed-forward have their norm: on what they read, or on what they give
    # (OLMo 2)
    norm: Literal["before", "after"] = "before"

    def __post_init__(self) -> None:
        _check_ranges(self)
        require(
            self.head_dim is None or self.head_dim % 2 == 0,
            f"head_dim must be even (RoPE rotates pairs), got {self.head_dim}",
        )
        require(self.qk_norm in ("none", "head", "all"), "qk_norm: none, head or all")
        require(self.norm in ("before", "after"), "norm: before or after")

    def key_value_heads(self, heads: int) -> int:
        """Heads of keys and values, for so many of queries."""
        return heads if self.kv_heads is None else self.kv_heads

    def features(self, dim: int, heads: int) -> int:
        """Features of a head, of layers of this width."""
        return dim // heads if self.head_dim is None else self.head_dim

    def unlike_llama(self) -> str | None:
        """The first option that is not Llama's, and its value: "qk_norm 'head'"; None: there is
        none."""
        for option in fields(self):
            if (value := getattr(self, option.name)) != option.default:
                return f"{option.name} {value!r}"
        return None


LLAMA = Block()


@dataclass(frozen=True)
class ByteTransformerConfig:
    """A byte-level transformer with a sliding window: entropy model, or baseline without patches.

    Raises:
        ValueError: an impossible shape; names the field.
    """

    dim: int = 256
    heads: int = 4
    layers: int = 4
    ff_dim: int = 688
    sliding_window: int = 512  # bytes
    rope_theta: float = 500000.0
    norm_eps: float = 1e-5
    # hash n-gram embeddings, as of Config
    hash_ngram_sizes: tuple[int, ...] = ()
    hash_functions: int = 1
    hash_rows: int = 50021
    hash_fold: tuple[Fold, ...] = ()
    hash_gate: bool = False
    hash_dim: int | None = None

    kind: ClassVar[str] = "byte"
    num_ids: ClassVar[int] = VOCAB_SIZE
    block: ClassVar[Block] = LLAMA
    rope_scaling: ClassVar[None] = None
    embedding_name: ClassVar[str] = "byte"  # of the parameter, in checkpoints

    def __post_init__(self) -> None:
        _check_ranges(self)
        _check_heads(self)
        _check_hashes(self)


@dataclass(frozen=True)
class TokenTransformerConfig:
    """A transformer over tokens: a baseline.

    Raises:
        ValueError: an impossible shape; names the field.
    """

    vocab_size: int = 4096  # tokens of the tokenizer
    dim: int = 256
    heads: int = 4
    layers: int = 6
    ff_dim: int = 688
    rope_theta: float = 500000.0
    rope_scaling: RopeScaling | None = None
    norm_eps: float = 1e-5
    block: Block = LLAMA
    # hash n-gram embeddings, as of Config; sizes are in tokens, or in bytes of the text they write
    hash_ngram_sizes: tuple[int, ...] = ()
    hash_of: Literal["tokens", "bytes"] = "tokens"
    hash_functions: int = 1
    hash_rows: int = 50021
    hash_fold: tuple[Fold, ...] = ()  # of "bytes"
    hash_gate: bool = False
    hash_dim: int | None = None

    kind: ClassVar[str] = "token"
    sliding_window: ClassVar[None] = None
    embedding_name: ClassVar[str] = "embedding"

    def __post_init__(self) -> None:
        _check_ranges(self)
        _check_heads(self)
        _check_hashes(self)
        require(self.hash_of in ("tokens", "bytes"), "hash_of: tokens or bytes")
        require(
            self.hash_of == "bytes" or not self.hash_fold,
            'hash_fold is about bytes: set hash_of = "bytes"',
        )
        require(
            bool(self.hash_ngram_sizes) or self.hash_of == "tokens",
            "hash_of is about n-grams, and hash_ngram_sizes names none",
        )

    @property
    def num_ids(self) -> int:
        """Ids of the vocabulary, BOS and EOS among them."""
        return self.vocab_size + SPECIAL


@dataclass(frozen=True)
class Config:
    """A Byte Latent Transformer (paper §3). Widths are features, windows are bytes.

    Raises:
        ValueError: an impossible shape; names the field.
    """

    # local encoder and decoder, on bytes
    local_dim: int = 256
    local_heads: int = 4
    encoder_layers: int = 1
    encoder_ff_dim: int = 688
    decoder_layers: int = 4
    decoder_ff_dim: int = 688
    sliding_window: int = 512
    # global transformer, on patches
    global_dim: int = 512
    global_heads: int = 8
    global_layers: int = 8
    global_ff_dim: int = 1376
    global_block: Block = LLAMA  # what its layers have
    # between the two
    cross_attention_k: int = 2  # slices per patch
    # "none": a patch is the maximum over its bytes, and is added to the bytes that see it (§6.3)
    encoder_cross_attention: Literal["last", "all", "none"] = "last"
    decoder_cross_attention: Literal["first", "all", "none"] = "all"
    # hash n-gram embeddings: one table per size and function
    hash_ngram_sizes: tuple[int, ...] = (3, 4, 5, 6, 7, 8)
    hash_functions: int = 1
    hash_rows: int = 50021
    hash_fold: tuple[Fold, ...] = ()  # what they do not see
    hash_gate: bool = False  # they are added after the first layer, which says how much
    hash_dim: int | None = None  # features of a row that a gate reads; None: as the layers have
    rope_theta: float = 500000.0
    global_rope_scaling: RopeScaling | None = None  # of positions of patches
    norm_eps: float = 1e-5
    patching: PatchingConfig = field(default_factory=PatchingConfig)
    entropy_model: ByteTransformerConfig | None = field(default_factory=ByteTransformerConfig)

    def __post_init__(self) -> None:
        _check_ranges(self)
        _check_heads(self, "local_")
        _check_heads(self, "global_")
        require(
            self.encoder_cross_attention in ("last", "all", "none"),
            "encoder_cross_attention: last, all or none",
        )
        require(
            self.decoder_cross_attention in ("first", "all", "none"),
            "decoder_cross_attention: first, all or none",
        )
        _check_hashes(self)
        require(
            self.entropy_model is not None or not self.patching.needs_entropies,
            f"patching rule {self.patching.rule!r} needs an entropy_model",
        )

    @property
    def encoder_crosses(self) -> int:
        """Cross-attention modules of the encoder."""
        return {"none": 0, "last": 1, "all": self.encoder_layers}[self.encoder_cross_attention]

    @property
    def decoder_crosses(self) -> int:
        """Cross-attention modules of the decoder."""
        return {"none": 0, "first": 1, "all": self.decoder_layers}[self.decoder_cross_attention]

    @property
    def head_dim(self) -> int:
        """Features of one head of a local layer."""
        return self.local_dim // self.local_heads


def gated_features(
    config: Config | ByteTransformerConfig | TokenTransformerConfig, dim: int
) -> int | None:
    """Features of the rows that a gate on hash n-grams reads; None: there is no gate.

    Args:
        dim: width of the layers that they are added to.
    """
    return (config.hash_dim or dim) if config.hash_gate else None
