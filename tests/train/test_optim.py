"""Optimisers do what their formulas say, for sparse gradients as for dense ones."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import blt
from blt.train.muon import Muon, orthogonal
from blt.train.optim import MatrixOptimizer, RowwiseAdam, learning_rate, optimizers
from blt.train.update import Guard, RowGradients, total_norm, update
from operations import Operations
from shapes import TINY_BLT

ROWS, DIM = 12, 3


def sparse(rows: list[int], values: Tensor) -> Tensor:
    return torch.sparse_coo_tensor(torch.tensor([rows]), values, (ROWS, DIM), check_invariants=True)


def dense_reference(table: Tensor, grads: list[Tensor], lr: float, beta: float) -> Tensor:
    """Row by row, with the bias correction of Adam by the row's own count of steps."""
    table = table.clone()
    mean_square, count = [0.0] * ROWS, [0] * ROWS
    for grad in grads:
        for row in grad.abs().sum(-1).nonzero().flatten().tolist():
            count[row] += 1
            square = grad[row].square().mean().item()
            mean_square[row] = beta * mean_square[row] + (1 - beta) * square
            corrected = mean_square[row] / (1 - beta ** count[row])
            table[row] -= lr * grad[row] / (math.sqrt(corrected) + 1e-8)
    return table


def test_schedules_warm_up_hold_and_decay() -> None:
    cosine = [learning_rate(p / 100, 1.0, 0.1, 0.1) for p in range(101)]
    assert cosine[0] == 0.0
    assert cosine[10] == max(cosine) == 1.0
    assert cosine[55] == pytest.approx(0.55)
    assert cosine[100] == pytest.approx(0.1)
    wsd = [learning_rate(p / 100, 1.0, 0.1, 0.1, decay=0.2) for p in range(101)]
    assert wsd[5] == 0.5
    assert wsd[10:81] == pytest.approx([1.0] * 71)
    assert wsd[90] == pytest.approx(0.55)
    assert wsd[100] == pytest.approx(0.1)


def test_rowwise_adam_takes_dense_gradients_for_sparse_ones() -> None:
    """As divided tables have them: rows that are all zero stay as they are."""
    torch.manual_seed(0)
    tables = [nn.Parameter(torch.ones(ROWS, DIM)) for _ in range(2)]
    steps = [RowwiseAdam([table], lr=0.1) for table in tables]
    for rows in ([1, 2], [2, 7], [2]):
        grad = sparse(rows, torch.randn(len(rows), DIM))
        tables[0].grad, tables[1].grad = grad, grad.to_dense()
        for optimizer in steps:
            optimizer.step()
    torch.testing.assert_close(*tables)
    assert torch.equal(tables[1][0], torch.ones(DIM))


rows_of_a_batch = st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=9)


@given(st.lists(rows_of_a_batch, min_size=1, max_size=6))
def test_rowwise_adam_equals_a_dense_reference(steps: list[list[int]]) -> None:
    torch.manual_seed(0)
    table = nn.Parameter(torch.randn(ROWS, DIM))
    before, grads = table.detach().clone(), []
    optimizer = RowwiseAdam([table], lr=0.1, beta=0.9)
    for rows in steps:  # a row may occur twice: its gradients add up
        table.grad = sparse(rows, torch.randn(len(rows), DIM))
        grads.append(table.grad.to_dense())
        optimizer.step()
    torch.testing.assert_close(table.detach(), dense_reference(before, grads, 0.1, 0.9))
    assert sum(x.numel() for x in optimizer.state[table].values()) == 2 * ROWS


def test_the_norm_counts_sparse_rows_by_their_sum() -> None:
    table, matrix = nn.Parameter(torch.zeros(ROWS, DIM)), nn.Parameter(torch.zeros(4, 4))
    table.grad, matrix.grad = sparse([3, 3, 5], torch.randn(3, DIM)), torch.randn(4, 4)
    expected = (table.grad.to_dense().square().sum() + matrix.grad.square().sum()).sqrt()
    assert float(total_norm([table, matrix])) == pytest.approx(float(expected))


@given(st.lists(st.lists(rows_of_a_batch, min_size=2, max_size=4), min_size=1, max_size=4))
def test_rows_of_several_batches_add_up_as_pytorch_adds_them(
    steps: list[list[list[int]]],
) -> None:
    """The same bits in tables and state; norms to rounding, as there are zeros between."""
    torch.manual_seed(0)
    ours, plain = (nn.Parameter(torch.ones(ROWS, DIM)) for _ in range(2))
    optimizer, reference = RowwiseAdam([ours], lr=0.1), RowwiseAdam([plain], lr=0.1)
    added = RowGradients([ours])
    for batches in steps:
        parts = [sparse(rows, torch.randn(len(rows), DIM)).coalesce() for rows in batches]
        plain.grad = sum(parts[1:], parts[0])
        for part in parts:
            ours.grad = part
            added.take()
        added.give_back()
        assert ours.grad is not None
        torch.testing.assert_close(ours.grad.to_dense(), plain.grad.to_dense())
        norms = total_norm([ours], rows_once=True), total_norm([plain])
        torch.testing.assert_close(*norms)
        optimizer.step()
        reference.step()
        assert torch.equal(ours, plain)
        for name, state in optimizer.state[ours].items():
            assert torch.equal(state, reference.state[plain][name]), name


def weights_of(kind: MatrixOptimizer) -> tuple[list[Any], list[nn.Parameter]]:
    """Optimisers of each kind, and what they change."""
    torch.manual_seed(0)
    lm = blt.BLT(TINY_BLT)
    made = optimizers(lm, 1e-2, (0.9, 0.95), 0.1, kind)
    return made, [parameter for parameter in lm.parameters() if parameter.requires_grad]


def gradients(parameters: list[nn.Parameter], seed: int, factor: float = 1.0) -> None:
    torch.manual_seed(seed)
    for parameter in parameters:
        if len(parameter) > 260:
            parameter.grad = factor * sparse_rows(parameter)
        else:
            parameter.grad = factor * torch.randn_like(parameter)


def sparse_rows(table: torch.Tensor) -> torch.Tensor:
    rows = torch.randint(len(table), (9,)).unique()
    values = torch.randn(len(rows), table.shape[1])
    return torch.sparse_coo_tensor(rows[None], values, table.shape, is_coalesced=True)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_clipping_within_the_update_is_clipping_before_it(kind: MatrixOptimizer) -> None:
    """Three steps of which the second is clipped to a tenth of its norm."""
    made, parameters = weights_of(kind)
    plain, others = weights_of(kind)
    for number, factor in enumerate((1.0, 10.0, 0.5)):
        gradients(parameters, number, factor)
        gradients(others, number, factor)
        norm = total_norm(parameters)
        clip = float(norm) / 10 if number == 1 else 1e9
        update(made, parameters, lr=1e-2, clip=clip, norm=norm, out=torch.tensor(False))
        for parameter in others:
            assert parameter.grad is not None
            parameter.grad = parameter.grad / (10 if number == 1 else 1)
        for optimizer in plain:
            optimizer.step()
    for ours, wanted in zip(parameters, others, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_step_that_is_left_out_leaves_no_trace(kind: MatrixOptimizer, bad: float) -> None:
    made, parameters = weights_of(kind)
    plain, others = weights_of(kind)
    guard = Guard.new(torch.device("cpu"), None)
    for number in range(3):
        gradients(parameters, number)
        if number == 1:
            for parameter in parameters:
                assert parameter.grad is not None
                grad = parameter.grad
                (grad._values() if grad.is_sparse else grad).view(-1)[0] = bad
        norm = total_norm(parameters)
        out = guard.leaves_out(torch.tensor(1.0), norm)
        assert bool(out) == (number == 1)
        update(made, parameters, lr=1e-2, clip=1e9, norm=norm, out=out)
        if number != 1:
            gradients(others, number)
            out = torch.tensor(False)
            update(plain, others, lr=1e-2, clip=1e9, norm=total_norm(others), out=out)
    for ours, wanted in zip(parameters, others, strict=True):
        assert torch.equal(ours, wanted)
    for ours_of, wanted_of in zip(made, plain, strict=True):
        states = (ours_of.state_dict()["state"], wanted_of.state_dict()["state"])
        for number, entries in states[0].items():
            for name, value in entries.items():
                assert torch.equal(value, states[1][number][name]), (number, name)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_every_trained_weight_has_one_optimizer_and_only_matrices_decay(
    lm: blt.BLT, kind: MatrixOptimizer
) -> None:
    *dense, rowwise = optimizers(lm, 1e-3, (0.9, 0.95), 0.1, kind)
    names = {id(parameter): name for name, parameter in lm.named_parameters()}
    groups: dict[float, set[str]] = {0.0: set(), 0.1: set()}
    for group in (group for optimizer in dense for group in optimizer.param_groups):
        found = {names[id(p)] for p in group["params"]}
        assert not found & groups[group["weight_decay"]]
        groups[group["weight_decay"]] |= found
    if kind == "muon":
        (inner,) = (group["params"] for group in dense[1].param_groups)
        assert groups[0.1] - {names[id(p)] for p in inner} == {"decoder.head.weight"}
    (tables,) = ({names[id(p)] for p in group["params"]} for group in rowwise.param_groups)
    assert tables == {"encoder.embedding.ngram"}
    assert "encoder.embedding.byte" in groups[0.0]
    assert all("norm" in name or name.endswith("byte") for name in groups[0.0])
    trained = {name for name, p in lm.named_parameters() if p.requires_grad}
    assert groups[0.0] | groups[0.1] | tables == trained
    assert not any(name.startswith("entropy_model") for name in trained)
    lm.encoder.embedding.sparse_gradients = False


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_the_schedule_warms_up_and_comes_down(progress: float, warmup: float, low: float) -> None:
    lr = learning_rate(progress, 1.0, warmup, low)
    assert 0 <= lr <= 1 + 1e-9
    if progress >= warmup:
        assert lr >= low - 1e-9
    assert learning_rate(1.0, 1.0, 0.1, low) == pytest.approx(low)
    assert learning_rate(0.1, 1.0, 0.1, low) == pytest.approx(1.0)
    assert learning_rate(0.05, 1.0, 0.1, low) == pytest.approx(0.5)


@pytest.mark.parametrize("shape", [(24, 40), (40, 24), (32, 32)])
def test_muon_in_float32_steps_as_pytorchs_in_bfloat16_does(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blt.train.muon.choose_dtype", lambda *_: torch.float32)
    torch.manual_seed(0)
    start = torch.randn(shape)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    options = {"lr": 0.1, "weight_decay": 0.1, "adjust_lr_fn": "match_rms_adamw"}
    made = Muon([ours], **options), torch.optim.Muon([theirs], **options)  # type: ignore[arg-type]
    for _ in range(5):
        before = ours.detach().clone()
        ours.grad = torch.randn(shape)
        theirs.grad = ours.grad.clone()
        for optimizer in made:
            optimizer.step()
        step = (ours - before).norm()
        assert (ours - theirs).norm() < 0.05 * step  # bfloat16 has three digits
    states = [optimizer.state_dict()["state"][0] for optimizer in made]
    torch.testing.assert_close(*states)


@given(
    st.lists(st.sampled_from([(3, 5), (5, 3)]), min_size=4, max_size=8),
    st.sampled_from([0, 15, 30, 1000]),
    st.booleans(),
)
def test_muon_steps_matrices_together_as_each_alone(
    shapes: list[tuple[int, int]], numbers: int, left_out: bool
) -> None:
    """However many numbers are stacked, and without gradients for the last matrix."""
    torch.manual_seed(0)
    starts = [torch.randn(shape) for shape in shapes]
    together = [nn.Parameter(start.clone()) for start in starts]
    alone = [nn.Parameter(start.clone()) for start in starts]
    options: dict[str, Any] = {"lr": 0.1, "weight_decay": 0.1, "adjust_lr_fn": "match_rms_adamw"}
    of_all, of_each = Muon(together, **options), [Muon([matrix], **options) for matrix in alone]
    for optimizer in (of_all, *of_each):
        optimizer.grad_scale, optimizer.found_inf = torch.tensor(1.5), torch.tensor(0.0)  # type: ignore[attr-defined]
    for number in range(3):
        for ours, theirs in zip(together[:-1], alone[:-1], strict=True):
            ours.grad = torch.randn_like(ours)
            theirs.grad = ours.grad.clone()
        for optimizer in (of_all, *of_each):
            optimizer.found_inf.fill_(left_out and number == 1)  # type: ignore[attr-defined]
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("blt.train.muon.STACKED_ON_CPU", numbers)
                optimizer.step()
    for ours, theirs, optimizer in zip(together, alone, of_each, strict=True):
        torch.testing.assert_close(ours, theirs)
        torch.testing.assert_close(dict(of_all.state[ours]), dict(optimizer.state[theirs]))


def test_muon_takes_as_many_operations_for_ten_small_matrices_as_for_two() -> None:
    """But for reading and writing each: on a GPU each operation is a launch."""

    def operations(matrices: int) -> int:
        made = [nn.Parameter(torch.randn(3, 5)) for _ in range(matrices)]
        optimizer = Muon(made, lr=0.1, adjust_lr_fn="match_rms_adamw")
        for matrix in made:
            matrix.grad = torch.randn(3, 5)
        optimizer.step()
        with Operations() as counted:
            optimizer.step()
        return counted.launches

    assert operations(10) == operations(2) < 1.5 * operations(1)


def test_orthogonalised_singular_values_are_about_one() -> None:
    torch.manual_seed(0)
    matrix = torch.randn(16, 48, dtype=torch.float64)
    values = torch.linalg.svdvals(orthogonal(matrix, (3.4445, -4.775, 2.0315), 5, 1e-7))
    assert values.min() > 0.5
    assert values.max() < 1.5
