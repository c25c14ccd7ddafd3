"""trainer.json: the part of a training's state that fits in JSON, and what its values may be."""

from __future__ import annotations

import json
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from blt.config_io import first_error
from blt.errors import UserError, require

NAMES = "tensors"  # names of the trainer's tensors
MOST = 2**60  # of steps and bytes: what fits in 64 bits, with room to count on
Count = Annotated[int, Field(ge=0, le=MOST)]
Amount = Annotated[float, Field(ge=0, le=1e30)]  # of seconds or FLOPs; finite


class _Values(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class Position(_Values):
    """Of one source's stream."""

    model_config = ConfigDict(strict=True, extra="forbid")
    epoch: Count
    index: Count
    offset: Count
    given: Count


class LoaderState(_Values):
    seed: Count
    sources: list[Position]


class TrainerValues(_Values):
    """What every checkpoint has; more may come with later versions."""

    step: Count
    bytes_seen: Count
    flops: Amount = 0.0
    skipped: Count
    skipped_in_a_row: Count
    usual_norm: Amount
    loader: LoaderState
    documents: str
    seconds: Amount
    evals_done: Count
    tensors: list[str]

    @model_validator(mode="after")
    def _together(self) -> Self:
        require(self.step <= self.bytes_seen, f"step {self.step}: has not seen a byte each")
        counts = self.step >= self.skipped >= self.skipped_in_a_row
        require(counts, f"skipped {self.skipped}: of {self.step} steps, not so many")
        require("rng" in self.tensors, "tensors: without rng")
        return self


def check_values(values: dict[str, Any], where: str) -> None:
    """Refuse what no training can have come to.

    Raises:
        UserError: opens with ``where``, and names the key.
    """
    try:
        TrainerValues.model_validate_json(json.dumps(values))
    except ValidationError as error:
        raise UserError(f"{where}: {first_error(error)}") from None
