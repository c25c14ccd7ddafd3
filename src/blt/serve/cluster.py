"""The same app on a Ray cluster: ``serve run blt.serve.cluster:build model=/shared/checkpoint``.

Every replica is one process with the model, its engine and its queue; Ray Serve spreads requests
over replicas, starts new ones under load and instead of those that died.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field
from ray import serve

from blt.checkpoint.pretrained import PRETRAINED
from blt.errors import require
from blt.evals.recut import check_asked
from blt.generate.weights import Precision
from blt.machine.hardware import cache_memory
from blt.serve import logs
from blt.serve.app import create_app
from blt.serve.model import model_of
from blt.serve.settings import Limits, Settings


class Options(BaseModel):
    """What ``serve run`` takes as NAME=VALUE, and a Serve config file under ``args``."""

    model_config = ConfigDict(extra="forbid")
    model: str = PRETRAINED
    adapter: str = ""
    name: str = ""
    keys: str = ""
    allowed_hosts: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    batch: int = Field(default=16, ge=1)
    queue: int = Field(default=64, ge=1)  # of each replica
    precision: Precision | None = None
    draft_bytes: int = Field(default=0, ge=0)
    threshold: float | None = None
    target_patch_size: float | None = None
    calibrate_on: str = ""
    template: str = ""
    timeout: float = Field(default=300.0, gt=0)
    drain: float = Field(default=60.0, gt=0)
    min_replicas: int = Field(default=1, ge=0)
    max_replicas: int = Field(default=4, ge=1)
    cpus: float = Field(default=1.0, ge=0)  # of each replica
    gpus: float = Field(default=0.0, ge=0)
    # auto: a GPU where gpus gives one, else the CPU. Ray shows each replica its own GPU, the first.
    device: Literal["auto", "cpu", "cuda", "cuda:0"] = "auto"

    def place(self) -> str:
        """Where the model of each replica works.

        Raises:
            UserError: a GPU that Ray has not been asked for, or one that would be idle.
        """
        place = self.device if self.device != "auto" else "cuda" if self.gpus else "cpu"
        on_gpu = place.split(":")[0] == "cuda"
        require(
            on_gpu == (self.gpus > 0),
            f"device: {self.device!r} with gpus={self.gpus:g}; give gpus=1 and device=cuda, or "
            "neither",
        )
        return place

    def budget(self, device: torch.device) -> int | None:
        """Bytes for caches in a replica that shares its GPU; None: as the engine has it."""
        return cache_memory(device, self.gpus) if 0 < self.gpus < 1 else None

    def settings(self) -> Settings:
        return Settings(
            self.model,
            adapter=self.adapter,
            name=self.name,
            keys=self.keys,
            allowed_hosts=self.allowed_hosts,
            cors_origins=self.cors_origins,
            max_batch=self.batch,
            max_queue=self.queue,
            precision=self.precision,
            draft_bytes=self.draft_bytes,
            threshold=self.threshold,
            target_patch_size=self.target_patch_size,
            calibrate_on=self.calibrate_on,
            template=self.template,
            limits=Limits(timeout=self.timeout),
        )


def build(options: Options) -> Any:
    """The Serve application; replicas are added while more than a batch is being asked of each.

    Raises:
        UserError: an impossible option.
    """
    settings, place = options.settings(), options.place()  # refused here, not in each replica
    check_asked(settings.threshold, settings.target_patch_size, settings.calibrate_on or None)

    def app() -> FastAPI:  # in the replica
        logs.to_stderr()
        model = model_of(settings, place)
        return create_app(model, replace(settings, memory_budget=options.budget(model.device)))

    deployment = serve.deployment(
        name="blt",
        autoscaling_config={
            "min_replicas": options.min_replicas,
            "initial_replicas": max(1, options.min_replicas),
            "max_replicas": max(options.max_replicas, options.min_replicas),
            "target_ongoing_requests": options.batch,
        },
        # What an engine's queue cannot take it refuses itself, with 429.
        max_ongoing_requests=2 * (options.batch + options.queue),
        ray_actor_options={"num_cpus": options.cpus, "num_gpus": options.gpus},
        graceful_shutdown_timeout_s=options.drain,
        health_check_period_s=5,
    )
    return deployment(serve.ingress(app)()).bind()
