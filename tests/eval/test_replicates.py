"""Replicates and the validation study: known answers, invariances, and how often the intervals cover."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from eval.evaluators.replicates import Replicated, Replicates, correlations
from eval.evaluators.validation_study import ValidationStudy, expected_spearman
from farm.base.errors import UserError
from farm.experiments import run_folder
from farm.roles.protocols import Comparison, Replication
from farm.statistics.two_ways import Crossed, interval
from farm.statistics.uncertainty import mean

METHODS = {"sft": 0.0, "a": 0.4, "b": 0.8, "c": 1.2, "d": 1.6, "e": 2.0}


def folder(place: Path, seed: int, shift: dict[str, float], judges: tuple[str, ...] = ("judge", "humans")) -> Path:
    """A run folder with win rates sigmoid(METHODS + shift) on 40 instructions x 4 samples."""
    generator = np.random.default_rng(seed)
    rows = []
    for name, strength in METHODS.items():
        for i in range(40):
            for k in range(4):
                gold = strength + shift.get(name, 0.0) + generator.normal(0, 0.3)
                rows.append(
                    {"method": name, "instruction": f"i{i}", "sample": k, "output": "x" * (5 + k), "gold": gold}
                )
    outputs = pd.DataFrame(rows).assign(generator=lambda t: t["method"], kl=0.5, proxy=lambda t: t["gold"])
    verdicts = {}
    for number, role in enumerate(judges):
        p = 1 / (1 + np.exp(-outputs["gold"] / (1 + number)))
        won = np.random.default_rng((seed, number)).random(len(outputs)) < p
        verdicts[role] = outputs[["method", "instruction"]].assign(
            preference=np.where(won, 2.0, 1.0), status="ok", price=0.001, input_tokens=1, output_tokens=1
        )
    place.mkdir(parents=True)
    (place / "tables").mkdir()
    run_folder.write_config(place, {"name": "x", "seed": seed, "judges": {role: {} for role in judges}})
    outputs.to_parquet(place / "tables" / "outputs.parquet")
    verdicts["judge"].to_parquet(place / "tables" / "preferences.parquet")
    for role, table in verdicts.items():
        table.to_parquet(place / "tables" / f"judge_{role}.parquet")
    board = outputs.groupby("method")["gold"].mean().reset_index().assign(win_rate=50.0)
    run_folder.write_tables(place, {"leaderboard": board})
    return place


def replication(place: Path, shift: dict[str, float] | None = None) -> Replication:
    rows, folders = [], []
    for arm, seed_of in (("simulated", 0), ("human", 100)):
        for seed in (1, 2):
            name = f"{arm}-{seed}"
            rows.append({"variant": name, "annotator": arm, "seed": seed})
            folders.append(folder(place / name, seed + seed_of, shift or {}))
    return Replication(pd.DataFrame(rows), folders, 1)


def test_one_seed_is_the_clustered_interval_and_differences_are_paired() -> None:
    generator = np.random.default_rng(0)
    z = generator.normal(0, 1, (1, 50, 2))
    cells = Crossed(z, np.ones_like(z))
    value, error, degrees = cells.contrasts(np.array([[1.0, 0.0], [1.0, -1.0]]))
    one = mean(z[0, :, 0], np.arange(50))
    assert value[0] == pytest.approx(one.value)
    assert error[0] == pytest.approx(one.standard_error)
    assert degrees[0] == pytest.approx(49)
    paired = mean(z[0, :, 0] - z[0, :, 1], np.arange(50))
    assert error[1] == pytest.approx(paired.standard_error)


def test_several_seeds_are_the_two_way_interval() -> None:
    generator = np.random.default_rng(1)
    z = generator.normal(0, 1, (3, 20, 1)) + generator.normal(0, 0.5, (3, 1, 1)) + generator.normal(0, 1, (1, 20, 1))
    cells = Crossed(z, np.ones_like(z))
    value, error, _ = cells.contrasts(np.ones((1, 1)))
    seeds, instructions = np.indices((3, 20))
    known = mean(z.ravel(), instructions.ravel(), seeds.ravel())
    assert value[0] == pytest.approx(known.value)
    assert error[0] == pytest.approx(known.standard_error, rel=0.02)


@pytest.mark.parametrize(("seeds", "between"), [(3, 0.0), (3, 0.03), (5, 0.05)])
def test_the_interval_covers_with_few_seeds(seeds: int, between: float) -> None:
    generator = np.random.default_rng(seeds)
    covered = 0
    for _ in range(400):
        z = 0.6 + generator.normal(0, between, (seeds, 1, 1)) + generator.normal(0, 0.2, (1, 100, 1))
        z = z + generator.normal(0, 0.25, (seeds, 100, 1))
        low, high = interval(*Crossed(z, np.ones_like(z)).contrasts(np.ones((1, 1))), 0.95)
        covered += int(low[0] <= 0.6 <= high[0])
    assert covered / 400 > 0.92


def test_the_tables_of_replicates(tmp_path: Path) -> None:
    found = replication(tmp_path)
    tables = Replicates(rounds=100).aggregate(found)
    board = tables["leaderboard"]
    assert len(board) == 2 * len(METHODS)
    assert (board["seeds"] == 2).all()
    best = board[board["annotator"] == "simulated"].iloc[0]
    assert best["method"] == "e"
    assert best["win_rate_low"] < best["win_rate"] < best["win_rate_high"]
    pairs = tables["pairwise"]
    assert len(pairs) == 2 * 15
    assert (pairs["p_holm"] >= pairs["p"]).all()
    assert (pairs["p_fdr"] <= pairs["p_holm"] + 1e-12).all()
    assert pairs.set_index(["annotator", "first", "second"]).loc[("simulated", "e", "sft"), "difference"] > 20
    assert len(tables["changes"]) == len(METHODS)
    assert tables["results"]["variant"].nunique() == 4


def test_the_order_of_the_experiments_changes_nothing(tmp_path: Path) -> None:
    found = replication(tmp_path)
    order = [1, 0, 3, 2]
    other = Replication(found.variants.iloc[order].reset_index(drop=True), [found.folders[i] for i in order], 1)
    one, two = (Replicates(rounds=100).aggregate(r)["leaderboard"] for r in (found, other))
    pd.testing.assert_frame_equal(one, two)


def test_the_validation_of_two_arms_that_agree(tmp_path: Path) -> None:
    tables = ValidationStudy(Replicates(rounds=100), rounds=200).aggregate(replication(tmp_path))
    table = tables["validation"]
    assert table["method"].tolist()[0] == "e"
    assert table.set_index("method").loc["sft", "published_human"] == 44.3
    summary = tables["validation_summary"].set_index(["first", "second"]).loc[("simulated", "human")]
    assert summary["spearman"] > 0.9
    assert summary["spearman_low"] <= summary["spearman"] <= summary["spearman_high"] <= 1
    assert summary["published_spearman"] == 0.98
    assert 0.8 < summary["expected_spearman"] <= 1
    (said,) = tables["headlines"]["headline"]
    assert f"{len(METHODS)} methods: Spearman {summary['spearman']:.3f} [" in said
    costs = tables["validation_costs"].set_index(["feedback", "purpose"])
    labels = 2 * len(METHODS) * 160
    assert costs.loc[("human", "training"), "price"] == 0.25 * labels
    assert costs.loc[("simulated", "training"), "ratio"] == pytest.approx(250)
    assert costs.loc[("simulated", "evaluation"), "published_ratio"] == 25


def test_a_rank_mismatch_is_listed_with_both_differences(tmp_path: Path) -> None:
    found = replication(tmp_path / "x")
    turned = [folder(tmp_path / f"turned-{s}", 100 + s, {"a": 1.6, "e": -1.6}) for s in (1, 2)]
    found = Replication(found.variants, [*found.folders[:2], *turned], 1)
    tables = ValidationStudy(Replicates(rounds=50), rounds=50).aggregate(found)
    mismatch = tables["mismatches"].set_index(["first", "second"]).loc[("e", "a")]
    assert mismatch["simulated_difference"] > 0 > mismatch["human_difference"]
    assert mismatch["clear"]


def test_expected_spearman_is_one_without_errors_and_falls_with_them() -> None:
    x = np.linspace(0, 1, 12)
    nothing, some, much = (np.full(12, e) for e in (0.0, 0.05, 0.2))
    values = [expected_spearman(x, 2 * x, e, 2 * e, 500, 1) for e in (nothing, some, much)]
    assert values[0] == pytest.approx(1)
    assert values[0] > values[1] > values[2] > 0
    assert np.isnan(expected_spearman(x, x, np.full(12, 9.0), nothing, 100, 1))


def test_a_study_that_is_no_validation_is_refused(tmp_path: Path) -> None:
    found = replication(tmp_path)
    wrong = Replication(found.variants.rename(columns={"annotator": "x"}).assign(y=1), found.folders, 1)
    with pytest.raises(UserError, match="sweeps over one key with the two values"):
        ValidationStudy(Replicates(rounds=10), rounds=10).aggregate(wrong)
    with pytest.raises(UserError, match="needs a judge called `people`"):
        ValidationStudy(Replicates(rounds=10), rounds=10, human_judge="people").aggregate(found)


def test_a_run_folder_without_tables_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a run folder with tables"):
        run_folder.read_comparison(tmp_path)


def test_correlations_of_a_measure_with_itself(tmp_path: Path) -> None:
    found = Replicated.read(replication(tmp_path))
    own = found.columns_of(0)
    row = correlations(found, "judge", own, "judge", own, 100, 0.95)
    assert row["spearman"] == row["kendall"] == pytest.approx(1)


def test_a_comparison_is_read_as_it_was_written(tmp_path: Path) -> None:
    found = run_folder.read_comparison(folder(tmp_path / "x", 3, {}))
    assert isinstance(found, Comparison)
    assert list(found.annotations) == ["judge", "humans"]
    assert found.seed == 3


def test_the_page_of_a_study_has_its_figures_and_escapes_what_others_wrote(tmp_path: Path) -> None:
    from eval.report.html import Html

    found = replication(tmp_path / "runs")
    place = tmp_path / "study"
    place.mkdir()
    run_folder.write_config(place, {"name": "<script>alert(1)</script>", "about": "x"})
    failed = pd.DataFrame([{"variant": "v", "method": "m", "stage": "s", "reason": "<img src=x onerror=alert(1)>"}])
    tables = ValidationStudy(Replicates(rounds=50), rounds=50).aggregate(found)
    run_folder.write_tables(place, {**tables, "variants": found.variants, "failures": failed})
    page = Html().write(place).read_text()
    assert "<script>alert(1)" not in page
    assert "<img src=x" not in page
    assert page.count("<svg") >= 2
    for words in (
        "Is the ranking in simulation",
        "As AlpacaFarm published it",
        "Rank correlations by setting",
        "Failed",
    ):
        assert words in page


def test_alpacafarms_published_correlations_follow_from_its_table() -> None:
    from eval.evaluators.validation_study import PUBLISHED_R_SQUARED, PUBLISHED_SPEARMAN, published
    from eval.ranks.ranking import pearson, spearman

    table = published()
    assert len(table) == 10
    assert round(float(spearman(table["simulated"], table["human"])), 2) == PUBLISHED_SPEARMAN
    assert round(float(pearson(table["simulated"], table["human"])) ** 2, 2) == PUBLISHED_R_SQUARED
