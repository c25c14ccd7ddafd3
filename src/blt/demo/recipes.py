"""What the demo trains and for how long: three shapes, their rates, their shares of the time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from blt.data.sources import PYTHON
from blt.errors import UserError
from blt.model.config import ByteTransformerConfig, Config
from blt.patching import PatchingConfig
from blt.train.recipe import Recipe
from blt.train.run import CHECKPOINT
from blt.train.sections import DataConfig, TrainConfig

# Shares of all the time; the rest is for reading, calibration, scores, sample and report.
ENTROPY_SHARE, BLT_SHARE = 0.13, 0.34  # the baseline gets as much as the BLT

# Shapes and rates were chosen by short trials on one core, for this little time: at these sizes the
# learning rate decides more than the shape (BLT, 120 s: 2.24 bits per byte at 3e-3, 1.87 at 6e-3;
# the baseline with its tables, 110 s: 2.17 at 1.5e-3, 2.14 at 3e-3, 2.20 at 6e-3).
ENTROPY_MODEL = ByteTransformerConfig(dim=96, heads=3, layers=2, ff_dim=264, sliding_window=256)
MODEL = Config(
    local_dim=96,
    local_heads=3,
    encoder_ff_dim=264,
    decoder_layers=1,
    decoder_ff_dim=264,
    sliding_window=256,
    global_dim=192,
    global_heads=3,
    global_layers=3,
    global_ff_dim=528,
    hash_rows=30011,
    entropy_model=ENTROPY_MODEL,
)
BASELINE = ByteTransformerConfig(  # it has the BLT's tables too
    dim=128,
    heads=4,
    layers=4,
    ff_dim=352,
    sliding_window=256,
    hash_ngram_sizes=MODEL.hash_ngram_sizes,
    hash_rows=MODEL.hash_rows,
)
LEARNING_RATE = {"entropy_model": 1e-2, "blt": 7e-3, "baseline": 3e-3}
BATCH_BYTES = {"entropy_model": 4096, "blt": 4096, "baseline": 2048}


@dataclass(frozen=True)
class Plan:
    """What the user chose."""

    text: Path | None  # None: this Python's own source and documentation
    folder: Path  # run folder to make
    minutes: float  # for everything together
    patch_size: float  # bytes
    seed: int
    device: str
    entropy_model: str | None = None  # a folder, or "pretrained"; None: one is trained

    def __post_init__(self) -> None:
        if not 0 < self.minutes < float("inf"):
            raise UserError(f"--minutes must be positive, got {self.minutes}")
        if not 1 <= self.patch_size < float("inf"):
            raise UserError(f"--patch-size must be at least 1 byte, got {self.patch_size}")

    @property
    def data(self) -> DataConfig:
        source = PYTHON if self.text is None else str(self.text)
        return DataConfig(sources=(source,), context_bytes=2048)

    @property
    def blt_share(self) -> float:
        """Of all the time, for the BLT: half of what no entropy model needs goes to it, too."""
        return BLT_SHARE + (0 if self.entropy_model is None else ENTROPY_SHARE / 2)

    def recipe(self, name: str, share: float, **model: Any) -> Recipe:
        """The recipe of one of the three models."""
        train = TrainConfig(
            seconds=60 * self.minutes * share,
            lr=LEARNING_RATE[name],
            device=self.device,
            min_lr_ratio=0.02,
            log_every=10,
            evals=0,
            sample_prompts=(),
            checkpoint_every_seconds=30.0,
        )
        data = replace(self.data, batch_bytes=BATCH_BYTES[name])
        return Recipe(data=data, train=train, seed=self.seed, **model)

    def blt_recipe(self, patching: PatchingConfig | None) -> Recipe:
        """The BLT's; with θ once it is known."""
        own = str(self.folder / "entropy_model" / CHECKPOINT)
        return self.recipe(
            "blt",
            self.blt_share,
            kind="blt",
            model=replace(MODEL, patching=patching or PatchingConfig()),
            entropy_model=self.entropy_model or own,
            target_patch_size=0.0 if patching else self.patch_size,
        )
