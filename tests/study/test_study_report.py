"""What a study publishes: cells that recompute, intervals that hold, comparisons that are fair."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blt.study import Family, Study, figures, read_study
from blt.study.cells import Compared
from blt.study.evaluations import Evaluation
from blt.study.figures import legend, panels
from blt.study.fit import LEAST_FLOOR, band, fit
from blt.study.folder import COSTS, EVALS, SCORES, StudyFolder
from blt.study.report import write_report
from blt.study.tables import bits_table, tables_into, tables_of

ROOT = Path(__file__).parents[2]
KINDS = {"books": {"one": 5, "two": 3}, "code": {"three": 4}}  # texts, and pieces of each
BUDGETS, SEEDS, LRS = (1e9, 1e10), 3, (1e-3, 2e-3, 4e-3)
RECIPE = {"kind": "byte"}
SIZES = tuple((f"byte_model.layers={n}",) for n in (1, 2, 3))


def study() -> Study:
    base = {"data": {"sources": ["text.txt"], "batch_bytes": 256}, "train": {}}
    families = (Family("flat", "flat", RECIPE, SIZES), Family("deep", "deep", RECIPE, SIZES))
    heldout = {kind: dict.fromkeys(texts, ("x.txt",)) for kind, texts in KINDS.items()}
    return Study(BUDGETS, (SEEDS,) * 2, LRS, base, heldout, families)


def folder(tmp_path: Path) -> Path:
    """A study whose outcome is known: flat has 2 bits per byte at first, deep 2 % more."""
    made, chance, out = study(), np.random.default_rng(0), StudyFolder(tmp_path)
    out.make()
    heldout: dict[str, Any] = {}
    for kind, texts in KINDS.items():
        heldout[kind] = {}
        for text, count in texts.items():
            sizes = chance.integers(100, 200, count).tolist()
            heldout[kind][text] = {"pieces": sizes, "bytes": sum(sizes)}
            heldout[kind][text] |= {"documents": 1, "of_bytes": 2 * sum(sizes)}
    (tmp_path / "heldout.json").write_text(json.dumps(heldout))
    shares = {kind: dict.fromkeys(texts, 0.0) for kind, texts in KINDS.items()}
    (tmp_path / "overlap.json").write_text(json.dumps(shares))
    for family in made.families:
        for budget in BUDGETS:
            rate = 2.0 * (1.02 if family.name == "deep" else 1.0) * (0.9 if budget > 5e9 else 1.0)
            for size in range(3):
                for lr in LRS:
                    for seed in range(SEEDS if (size, lr) == (1, 2e-3) else 1):
                        point = made.point(family, budget, size, lr, seed)
                        worse = 0.1 * abs(size - 1) + 100 * abs(lr - 2e-3)
                        out.append(_run(point, rate + worse + 0.001 * seed))
                        if (size, lr) == (1, 2e-3):
                            bits = {
                                kind: {
                                    text: [
                                        round(rate * b * chance.uniform(0.9, 1.1), 1)
                                        for b in of["pieces"]
                                    ]
                                    for text, of in texts.items()
                                }
                                for kind, texts in heldout.items()
                            }
                            out.append({"name": point.name, "bits": bits}, SCORES)
    return tmp_path


def test_each_text_is_shown_where_all_families_have_run(tmp_path: Path) -> None:
    """A budget that one family has reached does not take the others' rows away."""
    out = StudyFolder(folder(tmp_path))
    compared = Compared.read(study(), out)
    kept = [line for line in compared.lines if (line["family"], line["budget"]) != ("deep", 1e10)]
    for lines, budget in ((compared.lines, "1e+10"), (kept, "1e+09")):
        tables_into(out, replace(compared, lines=lines))
        table = (tmp_path / "table.md").read_text()
        assert table.count("each text") == 1
        assert (
            f"## Bits per byte at {budget} FLOPs: books, each text\n\n| books | flat | deep |"
            in table
        )


def _run(point: Any, bits: float) -> dict[str, Any]:
    return {
        "name": point.name,
        "family": point.family,
        "budget": point.budget,
        "size": point.size,
        "lr": point.lr,
        "seed": point.seed,
        "flops": point.budget,
        "bytes_seen": 1000,
        "parameters": 10,
        "validation_bits": bits,
    }


def test_a_cell_is_the_mean_of_texts_and_seeds_and_lies_in_its_interval(tmp_path: Path) -> None:
    compared = Compared.read(study(), StudyFolder(folder(tmp_path)))
    cell = compared.cell("flat", 1e9, "books")
    by_hand = []
    for point in compared.points["flat", 1e9]:
        for text in KINDS["books"]:
            bits = compared.scores[point.name]["bits"]["books"][text]
            by_hand.append(sum(bits) / sum(compared.heldout["books"][text]["pieces"]))
    assert cell.value == pytest.approx(float(np.mean(by_hand)))
    assert cell.low < cell.value < cell.high
    assert cell.high - cell.low < 0.4
    assert "**" in bits_table(compared, "books")


def test_differences_are_paired(tmp_path: Path) -> None:
    """Of the same pieces: tighter than two intervals apart."""
    compared = Compared.read(study(), StudyFolder(folder(tmp_path)))
    one, other = (compared.cell(name, 1e9, "code") for name in ("flat", "deep"))
    more = compared.more("deep", "flat", 1e9, "code")
    assert more.value == pytest.approx(other.value / one.value - 1)
    same = compared.more("flat", "flat", 1e9, "code")
    assert same.low == same.high == 0


def recomputes(out: Path) -> tuple[int, str]:
    """The exit status of tools/recompute, and what it says."""
    command = [sys.executable, "-m", "tools.recompute", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


def test_every_published_cell_recomputes_and_a_changed_one_is_found(tmp_path: Path) -> None:
    out = folder(tmp_path)
    write_report(study(), out)
    status, said = recomputes(out)
    assert status == 0, said
    cells = int(said.splitlines()[-1].split()[0])
    assert cells >= 2 * 2 * 2 + 4  # families, budgets, kinds, and texts
    text = (out / "table.md").read_text()
    value = f"{Compared.read(study(), StudyFolder(out)).cell('flat', 1e9, 'books').value:.3f}"
    assert value in text
    (out / "table.md").write_text(text.replace(value, f"{float(value) - 0.004:.3f}", 1))
    status, said = recomputes(out)
    assert status == 1
    assert "flat" in said


def asked(out: Path) -> Study:
    """The study of :func:`folder`, whose models have been asked three things."""
    tasks = (
        Evaluation("noise", ("x.txt",), beside=("flat",)),
        Evaluation("cute", ("x",), beside=("flat",)),
        Evaluation("utf8"),
    )
    made, chance = replace(study(), evaluations=tasks), np.random.default_rng(1)
    for points in Compared.read(made, StudyFolder(out)).points.values():
        for point in points:
            for one in tasks:
                rows = ANSWERS[one.task](chance, point.family == "deep")
                line = {"name": f"{one.name} {point.name}", "run": point.name}
                StudyFolder(out).append({**line, "evaluation": one.name, "rows": rows}, EVALS)
    return made


def kept(row: dict[str, Any], key: str, values: Any, sizes: Any, strata: Any) -> dict[str, Any]:
    whole = len(values) if sizes is None else sum(sizes)
    row = {**row, key: float(sum(values) / whole)}
    return {"row": row, "key": key, "values": list(values), "sizes": sizes, "strata": strata}


def _noise(chance: np.random.Generator, deep: bool) -> list[dict[str, Any]]:
    """Deep loses half as much again; the text without noise comes first."""
    sizes, strata = [100] * 20, [0] * 10 + [1] * 10
    bits = (chance.uniform(40, 60, 20) * (1.5 if deep else 1.0)).round(3)
    return [
        kept({"noise": "none", "above_noise": 2.0}, "more_bits", [0.0] * 20, sizes, strata),
        kept({"noise": "Drop", "above_noise": 2.5}, "more_bits", bits.tolist(), sizes, strata),
    ]


def _cute(chance: np.random.Generator, deep: bool) -> list[dict[str, Any]]:
    credits = (chance.uniform(size=40) < (0.5 if deep else 0.25)).astype(int).tolist()
    return [kept({"task": "spell", "guess": 0.25}, "acc", credits, None, None)]


def _utf8(chance: np.random.Generator, deep: bool) -> list[dict[str, Any]]:
    """Every model writes texts of its own, of other lengths."""
    sizes = chance.integers(50, 100, 30).tolist()
    wrong = chance.integers(0, 3, 30).tolist()
    return [kept({"after": "nothing"}, "invalid_characters", wrong, sizes, None)]


ANSWERS = {"noise": _noise, "cute": _cute, "utf8": _utf8}


@pytest.mark.parametrize(("sizes", "wrong"), [(1, False), (3, True)])
def test_nobody_is_best_whose_search_goes_on_and_who_was_searched_whole_is_not_left_out(
    tmp_path: Path, sizes: int, wrong: bool
) -> None:
    """Of a family without a row; ``tools/retrain.py --score`` looks at single sizes."""
    out = folder(tmp_path)
    write_report(study(), out)
    run, score = (
        json.loads((out / file).read_text().splitlines()[0])
        for file in ("results.jsonl", "scores.jsonl")
    )
    bits = {
        kind: {text: [b / 2 for b in each] for text, each in of.items()}
        for kind, of in score["bits"].items()
    }
    for size in range(sizes):
        StudyFolder(out).append({**run, "name": f"new {size}", "family": "new", "size": size})
    StudyFolder(out).append({"name": "new 0", "bits": bits}, SCORES)
    status, said = recomputes(out)
    assert status == wrong, said
    assert wrong == ("More bits than the best, in per cent: flat" in said)


def test_answers_have_intervals_over_seeds_and_pieces_and_recompute(tmp_path: Path) -> None:
    out = folder(tmp_path)
    write_report(asked(out), out)
    text = (out / "table.md").read_text()
    for head in (
        "## noise at 1e+09 FLOPs: more_bits, ratio to flat",
        "## cute at 1e+10 FLOPs: acc, difference to flat",
        "## utf8 at 1e+10 FLOPs: invalid_characters",
        "| cute | guessing | flat | deep |",
        "| Drop | 2.500 [2.500, 2.500] | 2.500 [2.500, 2.500] |",  # the least and most of seeds
    ):
        assert head in text
    assert "| spell | 0.250 | 0." in text
    ratio = text.split("more_bits, ratio to flat")[1].split("| Drop | ")[1]
    value, low, high = map(float, re.findall(r"[0-9.]+", ratio)[:3])
    assert low < value < high
    assert value == pytest.approx(1.5, abs=0.1)
    losses = text.split("1e+09 FLOPs: more_bits\n")[1].split("##")[0]
    assert "none" not in losses  # clean text costs nothing more than itself
    status, said = recomputes(out)
    assert status == 0, said
    wrong = text.replace(f"| Drop | {ratio.split(' |')[0]}", "| Drop | 1.200 [1.100, 1.300]", 1)
    assert wrong != text
    (out / "table.md").write_text(wrong)
    status, said = recomputes(out)
    assert status == 1
    assert "Drop, deep: 1.200" in said


def test_nobody_is_compared_on_other_pieces(tmp_path: Path) -> None:
    """Models that wrote texts of their own have none in common."""
    out = folder(tmp_path)
    made = asked(out)
    both = replace(made, evaluations=(*made.evaluations[:2], Evaluation("utf8", beside=("flat",))))
    write_report(both, out)
    table = (out / "table.md").read_text().split("invalid_characters, difference to flat")[1]
    assert "| nothing |  |" in table
    assert "A cell is empty where the samples are not the same as of flat: deep." in table


def test_a_report_says_who_was_left_out_and_what_was_searched(tmp_path: Path) -> None:
    out = folder(tmp_path)
    paths = write_report(study(), out)
    assert all(path.stat().st_size > 0 for path in paths)
    text = (out / "table.md").read_text()
    assert "| flat | 1e+09 | 0 to 2 of 3 | 1 | 0.002 | 2.000 |" in text
    assert "The rule: of each group the best family goes on" in text
    rows = (out / "runs.csv").read_text().splitlines()
    assert len(rows) == 1 + len(StudyFolder(out).lines())
    assert rows[0].startswith("name,family,budget,size,lr,seed")


def test_a_study_that_is_not_done_is_reported_as_far_as_it_is(tmp_path: Path) -> None:
    out = folder(tmp_path)
    lines = (out / "results.jsonl").read_text().splitlines(keepends=True)
    flat = [
        line for line in lines if '"family": "flat"' in line and '"budget": 1000000000.0' in line
    ]
    (out / "results.jsonl").write_text("".join(flat))
    write_report(study(), out)
    text = (out / "table.md").read_text()
    assert "| flat | 1e+09 | 0 to 2 of 3 | 1 | 0.002 | 2.000 |" in text
    assert "1e+10" not in text
    assert "deep" not in text


def test_a_family_is_compared_with_the_seeds_that_have_ended_and_its_cell_says_so(
    tmp_path: Path,
) -> None:
    out = folder(tmp_path)
    gone = study().point(study().families[1], 1e10, 1, 2e-3, 2).name
    for file in ("results.jsonl", "scores.jsonl"):
        lines = (out / file).read_text().splitlines(keepends=True)
        (out / file).write_text("".join(line for line in lines if gone not in line))
    write_report(study(), out)
    table = (out / "table.md").read_text()
    assert table.count("(2 of 3 seeds)") == len(KINDS)
    (row, *_) = [line for line in table.splitlines() if line.startswith("| deep |")]
    assert row.endswith("(2 of 3 seeds) |")
    assert recomputes(out)[0] == 0
    (out / "table.md").write_text(table.replace("(2 of 3 seeds)", "(1 of 3 seeds)"))
    status, said = recomputes(out)
    assert status == 1
    assert "recomputed: 2 seeds" in said
    search = Compared.read(study(), StudyFolder(out)).search
    left = [point for point in search.chosen() if point not in search.chosen(whole=True)]
    assert {(point.family, point.budget) for point in left} == {("deep", 1e10)}


def test_a_variant_has_numbers_from_the_budget_on_that_it_joins(tmp_path: Path) -> None:
    out = StudyFolder(folder(tmp_path))
    tables = {"hash_ngram_sizes": [2], "hash_rows": 10, "hash_gate": True, "hash_dim": 96}
    recipe = {"kind": "byte", "byte_model": tables}
    wide = Family("wide", "flat", recipe, SIZES, varies="flat", joins=1e10)
    made = replace(study(), families=(*study().families, wide), rate_tries=(3, 1))
    scores = {line["name"]: line["bits"] for line in out.lines(SCORES)}
    for size, seed in ((0, 0), (1, 0), (2, 0), (1, 1), (1, 2)):
        point = made.point(wide, 1e10, size, 2e-3, seed)
        out.append(_run(point, 1.9 + 0.1 * abs(size - 1)))
        if size == 1:
            other = made.point(made.families[0], 1e10, 1, 2e-3, seed).name
            out.append({"name": point.name, "bits": scores[other]}, SCORES)
    compared = Compared.read(made, out)
    row = next(line for line in bits_table(compared, "code").splitlines() if "| wide |" in line)
    flat = next(line for line in bits_table(compared, "code").splitlines() if "| flat |" in line)
    of_wide, of_flat = (text.strip("| ").split(" | ") for text in (row, flat))
    assert of_wide[1:3] == ["10 rows of 96, n = 2 bytes", "joins later"]
    assert of_wide[3].strip("*").split()[0] == of_flat[3].strip("*").split()[0]


def test_no_family_of_the_study_lacks_what_another_has() -> None:
    """Each with and without tables, of equal rows; sizes, rates and text are the same."""
    made = read_study(ROOT / "recipes" / "study" / "tables-or-patches.toml")
    points = [made.point(family, made.budgets[0], 0, made.lrs[0], 0) for family in made.families]
    rows = {point.family: tables_of([point]) for point in points}
    plain = [name for name, of in rows.items() if of == "none"]
    for name in plain:
        if name != "BPE 4096":  # a smaller vocabulary; the larger one has all variants
            assert any(other.startswith(f"{name} + ") for other in rows), name
    for name, of in rows.items():
        assert of == "none" or of.startswith("600,01"), name  # 6 or 2 tables of prime sizes
    kinds: dict[str, set[Any]] = {}
    for family in made.families:
        kinds.setdefault(family.recipe["kind"], set()).add((family.sizes, family.first_size))
        assert len(family.sizes) >= 3
        recipe = made.point(family, made.budgets[0], 0, made.lrs[0], 0).recipe
        assert recipe.train.optimizer == "muon"
        assert recipe.data == made.point(made.families[0], made.budgets[0], 0, 1e-3, 0).recipe.data
    assert {len(ladders) for ladders in kinds.values()} == {1}
    wide = [family for family in made.families if "of 96" in rows[family.name]]
    assert {family.recipe["kind"] for family in wide} == set(kinds)
    assert len({family.joins for family in wide}) == 1


def test_a_power_law_is_found_its_floor_is_not_zero_and_its_band_holds_it() -> None:
    chance = np.random.default_rng(0)
    flops = np.repeat([1e12, 3e12, 1e13, 3e13, 1e14], 3)
    exact = 1.2 + 40 * flops**-0.15
    found = fit(flops.tolist(), exact.tolist())
    at = np.geomspace(1e12, 1e14, 20)
    np.testing.assert_allclose(found(at), 1.2 + 40 * at**-0.15, rtol=5e-3)
    assert fit([1e12, 1e13, 1e14], [3.0, 2.0, 1.3]).floor >= LEAST_FLOOR
    little = fit([1e12, 1e13, 1e14], [0.4, 0.25, 0.2])  # of text that is almost always the same
    assert 0 < little.floor < 0.2 < little(np.asarray([1e14]))[0] < 0.25
    inside = []
    for seed in range(6):
        noisy = exact + chance.normal(0, 0.02, len(flops))
        low, high = band(flops.tolist(), noisy.tolist(), at, seed)
        assert (high - low).max() < 0.1
        inside.append((low <= 1.2 + 40 * at**-0.15) & (high >= 1.2 + 40 * at**-0.15))
    assert np.mean(inside) > 0.7


def test_a_legend_names_the_lines_of_all_panels_once() -> None:
    figure, axes_of = panels(2)
    for axes, names in zip(axes_of, (["flat", "deep"], ["deep", "wide"]), strict=True):
        for name in names:
            axes.plot([0, 1], [0, 1], label=name)
    legend(figure, axes_of)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["flat", "deep", "wide"]


def test_a_legend_names_nobody_who_is_nowhere_in_the_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, drawn = folder(tmp_path), dict[str, Any]()
    for points in Compared.read(study(), StudyFolder(out)).points.values():
        if points[0].family == "flat":
            cost = {"name": points[0].name, "seconds_per_megabyte": 9.0}
            StudyFolder(out).append(cost, COSTS)

    def keep(figure: Any, path: Path) -> None:
        drawn[path.name] = figure

    monkeypatch.setattr(figures, "save_picture", keep)
    figures.write_figures(Compared.read(study(), StudyFolder(out)), out)
    named = {
        name: [text.get_text() for text in figure.legends[0].get_texts()]
        for name, figure in drawn.items()
    }
    assert named["bits-over-seconds.png"] == ["flat"]
    assert named["bits-over-flops.png"] == named["bowls.png"] == ["flat", "deep"]


def test_tables_need_no_library_of_figures() -> None:
    """A bare machine with a GPU runs studies, and may lack it."""
    code = "import sys; sys.modules['matplotlib'] = None; import blt.study, blt.study.tables"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_tables_are_those_of_the_runs_that_are_compared(tmp_path: Path) -> None:
    """Sizes and budgets may have tables of their own."""
    out, plain = StudyFolder(folder(tmp_path)), study()
    tables = "byte_model.hash_ngram_sizes=[3]", "byte_model.hash_rows=5000"
    sizes = (SIZES[0], (*SIZES[1], *tables), SIZES[2])  # the middle one is the best
    sized = replace(plain, families=(replace(plain.families[0], sizes=sizes), plain.families[1]))
    at_budget = replace(plain, changes=((), tables))
    for made, shown in (
        (plain, "none"),
        (sized, "5,000 rows, n = 3 bytes"),
        (at_budget, "none at 1e+09 FLOPs; 5,000 rows, n = 3 bytes at 1e+10 FLOPs"),
    ):
        rows = bits_table(Compared.read(made, out), "books").splitlines()
        assert rows[2].startswith(f"| flat | {shown} | ")
