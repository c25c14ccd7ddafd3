"""Trains the runs of a study, each in its folder, and says what came of them."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from blt.byteify import hooks_of
from blt.data.text import Source
from blt.errors import UserError, require
from blt.files import checksums
from blt.lm import LanguageModel, load
from blt.machine.precision import choose_device, choose_dtype
from blt.study.config import Point, Study
from blt.study.folder import StudyFolder, overrun
from blt.study.lines import Line
from blt.study.scoring import validation
from blt.study.search import Search
from blt.study.timing import Clock, Watch
from blt.train.build import learned_tokenizer
from blt.train.corpus import open_text
from blt.train.job import train_recipe
from blt.train.loop import OnProgress, Report
from blt.train.recipe import Recipe
from blt.train.run import CHECKPOINT, RECIPE, TENSORS
from blt.train.trainer import DivergedError

log = logging.getLogger("blt")
OnPoint = Callable[[str], OnProgress | None]  # what begins → where its reports go
LESS = "give its patcher a smaller model or smaller batches, or the study larger budgets"


class Training:
    """The runs of a study in its folder; all read the same text, which is opened once for all
    that read it alike.

    Args:
        clock: told how long runs take.
        on_point: called before each run.
    """

    def __init__(
        self, study: Study, out: StudyFolder, clock: Clock, on_point: OnPoint | None
    ) -> None:
        self.study, self.out, self.clock, self.on_point = study, out, clock, on_point
        self._sources: dict[tuple[int, int], list[Source]] = {}  # by how recipes read the text

    def has_weights(self, point: Point) -> bool:
        """Is a run's checkpoint there? It is not where only the lines of a study were kept."""
        return (self.out.run(point.name) / CHECKPOINT).is_dir()

    def train(self, point: Point) -> None:
        """Train, or go on with, one run, and write its line."""
        self.out.note(point)
        recipe = self.resolved(point)
        watch = Watch(None if self.on_point is None else self.on_point(point.name))
        folder = self.out.run(point.name)
        begun, start = (folder / RECIPE).is_file(), time.monotonic()
        try:
            model = train_recipe(recipe, folder, begun, watch, hooks=hooks_of(recipe))
        except KeyboardInterrupt:
            message = f"stopped in {point.name}; the same command goes on there"
            raise KeyboardInterrupt(message) from None
        except DivergedError as error:
            self._give_up(point, watch, error)
            return
        line = self._line(point, recipe, model, watch)
        if times := overrun(line):
            log.warning(
                "%s: its %d steps took %.2f times its budget of FLOPs; give it smaller batches, a "
                "smaller model or patcher, or a larger budget",
                *(point.name, watch.reports[-1].step, times),
            )
        self.out.append(line)
        if not begun:
            self.clock.note(line["flops"], time.monotonic() - start)
        self._tidy(point)

    def _give_up(self, point: Point, watch: Watch, error: DivergedError) -> None:
        """Write the line of a run that no number came of: its rate, or size, is the worst.

        Raises:
            DivergedError: of a patcher, that others wait for.
        """
        if point.family not in [family.name for family in self.study.families]:
            raise error
        log.warning("%s: gave up, and counts as the worst: %s", point.name, error)
        none: Line = {"validation_bits": None, "validation": {}}
        self.out.append({**self._facts(point, watch.reports), **none, "gave_up": str(error)})
        shutil.rmtree(self.out.run(point.name) / CHECKPOINT, ignore_errors=True)

    def resolved(self, point: Point) -> Recipe:
        """With its patcher and tokenizer, which lie in the folder; a patcher's FLOPs are spent."""
        recipe = point.recipe
        if point.patcher is not None:
            flops = (recipe.train.flops or 0.0) - self._patcher_flops(point)
            if flops <= 0:
                raise UserError(f"{point.name}: {point.patcher} took all of its budget; {LESS}")
            train = replace(recipe.train, flops=flops)
            model = str(self.out.run(point.patcher) / CHECKPOINT)
            recipe = replace(recipe, train=train, entropy_model=model)
        if recipe.token_model is not None and recipe.tokenizer is None:
            size = recipe.token_model.vocab_size
            path = self.out.tokenizer(size, partial(self._new_tokenizer, recipe, size))
            recipe = replace(recipe, tokenizer=str(path))
        return recipe

    def sources(self, recipe: Recipe) -> list[Source]:
        """The text that all runs share, opened once for each length of a segment, and of what is
        evaluated; which text it is, :func:`blt.study.read_study` has seen to be the same.

        Raises:
            UserError: a source that holds nothing out.
        """
        how = recipe.data.context_bytes, recipe.train.eval_bytes
        if how not in self._sources:
            opened = open_text(recipe, heldout_bytes=self.study.validation_bytes)
            for source in opened:
                none = f"{self.study.where}: base.data.sources: {source.name} holds nothing out"
                require(any(source.heldout), f"{none}, and searches go by that: prepare it again")
            self._sources[how] = opened
        return self._sources[how]

    def model(self, name: str, recipe: Recipe) -> LanguageModel:
        """What a run of that name has trained, on the device that its recipe names."""
        return load(self.out.run(name) / CHECKPOINT, choose_device(recipe.train.device))

    def _patcher_flops(self, point: Point) -> float:
        found = (line for line in self.out.lines() if line["name"] == point.patcher)
        return 0.0 if point.patcher is None else float(next(found)["flops"])

    def _new_tokenizer(self, recipe: Recipe, vocab_size: int) -> str:
        return learned_tokenizer(self.sources(recipe), recipe.data, vocab_size).json

    def _line(self, point: Point, recipe: Recipe, model: LanguageModel, watch: Watch) -> Line:
        parts = validation(model, self.sources(recipe), recipe, self.study.validation_bytes)
        return {
            **self._facts(point, watch.reports),
            "seconds": watch.seconds(model.device),
            "precision": str(choose_dtype(recipe.train.precision, model.device)).split(".")[1],
            "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
            **parts,
        }

    def _spends(self, point: Point) -> Line:
        """The part of its budget that a run may take, where that is not all."""
        spends = {family.name: family.spends for family in self.study.families}
        part = spends.get(point.family, 1.0)
        return {"spends": part} if part < 1 else {}

    def _facts(self, point: Point, reports: Sequence[Report]) -> Line:
        """What is known of a run without its model."""
        last = reports[-1] if reports else None
        patcher_flops = self._patcher_flops(point)
        return {
            "name": point.name,
            "family": point.family,
            "budget": point.budget,
            **self._spends(point),
            "size": point.size,
            "lr": point.lr,
            "seed": point.seed,
            "flops": (last.flops if last else 0.0) + patcher_flops,
            "patcher_training_flops": patcher_flops,
            "steps": last.step if last else 0,
            "bytes_seen": last.bytes_seen if last else 0,
            "training_patch_size": last.patch_size if last else None,
            "skipped": last.skipped if last else 0,
            "validation_bytes": self.study.validation_bytes,
        }

    def _tidy(self, point: Point) -> None:
        """Optimisers are of no use any more, nor are weights that a search did not choose."""
        checkpoint = self.out.run(point.name) / CHECKPOINT
        checksums.forget(checkpoint, f"{TENSORS}/")
        shutil.rmtree(checkpoint / TENSORS, ignore_errors=True)
        search = Search(self.study, self.out.lines())
        for beaten in search.beaten():
            shutil.rmtree(self.out.run(beaten.name) / CHECKPOINT, ignore_errors=True)
