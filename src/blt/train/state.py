"""trainer.json: the part of a training's state that fits in JSON, and what its values may be."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from blt.errors import require
from blt.files.schema import Amount, Count, Schema
from blt.train.sections import MOST_SEED

NAMES = "tensors"  # names of the trainer's tensors
RNG = "rng"  # that of the random numbers' state


class Place(Schema, extra="forbid"):
    """Where the stream of one source stands."""

    epoch: Count
    index: Count
    offset: Count
    given: Count


class LoaderState(Schema):
    seed: Annotated[int, Field(ge=0, le=MOST_SEED)]
    sources: list[Place]


class TrainerValues(Schema):
    """What every checkpoint has, and what no training can have come to."""

    step: Count
    bytes_seen: Count
    flops: Amount = 0.0
    skipped: Count
    skipped_in_a_row: Count
    usual_norm: Amount
    loader: LoaderState
    documents: str
    seconds: Amount
    prepared_seconds: Amount = 0.0
    evals_done: Count
    device: str | None = None  # its name
    bfloat16_is_faster: bool | None = None  # there, as it was measured
    tensors: list[str]

    @model_validator(mode="after")
    def _together(self) -> Self:
        require(self.step <= self.bytes_seen, f"step {self.step}: has not seen a byte each")
        prepared = self.prepared_seconds <= self.seconds
        require(prepared, f"prepared_seconds {self.prepared_seconds}: more than all seconds")
        counts = self.step >= self.skipped >= self.skipped_in_a_row
        require(counts, f"skipped {self.skipped}: of {self.step} steps, not so many")
        require(RNG in self.tensors, f"{NAMES}: without {RNG}")
        return self
