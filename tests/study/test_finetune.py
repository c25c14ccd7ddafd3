"""A model learns answers alone, and what it took is counted right."""

from __future__ import annotations

from itertools import count, cycle, islice
from math import isfinite
from typing import Any

import pytest
import torch

from blt import vocab
from blt.errors import UserError
from blt.evals.characters import Question, Words, questions, strings
from blt.lm import BLT, ByteLM, LanguageModel, TokenLM
from blt.model.config import ByteTransformerConfig, Config, PatchingConfig, TokenTransformerConfig
from blt.study.finetune import Lesson, Look, answered, batch_of, finetune, splitting, until
from blt.tokens.tokenizer import ByteTokenizer
from blt.train import DataConfig, Recipe, TrainConfig

RECIPE = Recipe("byte", DataConfig(("x",)), TrainConfig(steps=1, precision="float32"))
ASKED = [
    Question("colour", b"Which colour has grass?", b" green\n"),
    Question("colour", b"Which has snow?", b" white\n"),
    Question("number", b"How many?", b" 3\n"),
]
BAD = (2, 3, 4)  # steps without a number
MIXED = list(islice(questions(Words.divided(strings(300)).train, ["count", "spell"], 0), 8))


def model_of(kind: str) -> LanguageModel:
    torch.manual_seed(0)
    shape: dict[str, Any] = {"dim": 16, "heads": 2, "layers": 1, "ff_dim": 32}
    if kind == "byte":
        return ByteLM(ByteTransformerConfig(**shape))
    if kind == "token":
        text = b"".join(q.prompt + q.answer for q in (*ASKED, *MIXED))
        tokenizer = ByteTokenizer.train([text], 300)
        return TokenLM(TokenTransformerConfig(vocab_size=300, **shape), tokenizer)
    widths = dict.fromkeys(("local_dim", "global_dim"), 16)
    widths |= dict.fromkeys(("encoder_ff_dim", "decoder_ff_dim", "global_ff_dim"), 32)
    heads = {"local_heads": 2, "global_heads": 2, "global_layers": 1, "decoder_layers": 1}
    return BLT(Config(**widths, **heads, hash_rows=50, patching=PatchingConfig(rule="space")))


@pytest.mark.parametrize("kind", ["byte", "blt", "token"])
def test_the_loss_is_that_of_the_answers_alone(kind: str) -> None:
    model = model_of(kind)
    batch = batch_of(MIXED)
    with torch.no_grad():
        ready = model.ready(batch)
        found = float(model.loss(model.predict(ready), ready.targets))
    slow = -sum(model.log_likelihoods([(q.prompt, q.answer) for q in MIXED]))
    assert found == pytest.approx(slow, rel=1e-4)
    wanted = batch.targets[batch.targets != vocab.PAD]
    assert vocab.decode(wanted) == b"".join(q.answer for q in MIXED)
    assert batch.num_bytes == sum(len(q.prompt + q.answer) for q in MIXED)


@pytest.mark.parametrize("kind", ["byte", "token"])
def test_what_a_model_learns_and_what_that_took_is_counted(kind: str) -> None:
    model, lesson = model_of(kind), Lesson(lr=2e-2, steps=300, questions=3, every=5)
    looks = list(finetune(model, cycle(ASKED), ASKED, lesson, RECIPE))
    assert [look.step for look in looks] == [5 * n for n in range(len(looks))]
    assert looks[-1].right == {"colour": 1.0, "number": 1.0} == answered(model, ASKED)
    assert 2 < len(looks) < 60  # it ends once all is learned
    per_step = sum(len(q.prompt + q.answer) for q in ASKED)
    assert [look.bytes for look in looks] == [per_step * look.step for look in looks]
    assert looks[0].nats is None
    assert looks[-1].nats is not None
    assert looks[1].flops > looks[0].flops == 0
    assert looks[2].flops == pytest.approx(2 * looks[1].flops)


def test_steps_that_were_left_out_have_no_part_in_the_loss() -> None:
    model, steps = model_of("byte"), count(1)
    loss = model.loss
    model.loss = lambda *of: loss(*of) * (float("nan") if next(steps) in BAD else 1)  # type: ignore[method-assign]
    lesson = Lesson(lr=1e-3, steps=6, questions=3, every=2)
    looks = list(finetune(model, cycle(ASKED), ASKED, lesson, RECIPE))
    assert [look.nats is None for look in looks] == [True, False, True, False]  # of steps 3, 4 none
    assert all(look.nats is None or isfinite(look.nats) for look in looks)


def test_a_goal_is_reached_at_the_first_look_that_shows_it() -> None:
    shares = [(0.0, 0.0), (0.9, 0.2), (0.8, 1.0), (1.0, 0.9), (0.0, 0.0)]
    looks = [Look(n, n, n, None, {"a": a, "b": b}) for n, (a, b) in enumerate(shares)]
    steps = [found and found.step for found in (until(looks, 0.9, k) for k in ("a", "b", None))]
    assert steps == [1, 2, 2]
    assert until(looks, 0.96) is None


def test_half_an_answer_or_more_than_one_is_wrong() -> None:
    class Writer:
        def generate(self, prompts: list[bytes], **_: Any) -> list[Any]:
            texts = [(b" gre", "stop"), (b" white", "length"), (b" 3", "stop")]
            return [type("", (), {"data": d, "finish_reason": r})() for d, r in texts]

    assert answered(Writer(), ASKED) == {"colour": 0.0, "number": 1.0}  # type: ignore[arg-type]


def test_tokens_are_split_only_while_a_token_model_learns() -> None:
    model = model_of("token")
    assert isinstance(model, TokenLM)
    batch, whole = batch_of(MIXED), model.tokenizer
    plain = model.ready(batch)
    with splitting(model, 1.0, 0):
        split = model.ready(batch)
    assert len(split.targets) > len(plain.targets)
    assert (split.patch_size or 0) < (plain.patch_size or 0)
    assert vocab.decode(split.batch.targets) == vocab.decode(plain.batch.targets)
    assert model.tokenizer is whole
    with (
        pytest.raises(UserError, match="byte model has no tokens"),
        splitting(model_of("byte"), 1.0, 0),
    ):
        pass
