"""Papers: intervals and verdicts with known answers, what a file may not say, and a paper that is run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats
from typer.testing import CliRunner

from farm import cli
from farm.asking.limits import Limits
from farm.base.errors import UserError
from farm.experiments import experiment, run_status
from farm.experiments.claims import paper as papers
from farm.experiments.claims import recorded, table
from farm.experiments.claims.effects import Effect, effect, inside, verdict
from farm.experiments.claims.paper import Cell, Claim, variants
from farm.experiments.claims.running import PaperRunner
from farm.experiments.running import Run, StudyRunner
from farm.storage.artifacts import Artifacts
from tests.farm.table_world import EXPERIMENT, write


def cell(values: Any, instructions: bool = True) -> pd.DataFrame:
    """Numbers [seeds, instructions] or [seeds] as a measure gives them."""
    z = np.asarray(values, dtype=np.float64)
    if not instructions:
        return pd.DataFrame({"seed": np.arange(len(z)), "value": z})
    seed, instruction = (axis.ravel() for axis in np.indices(z.shape))
    return pd.DataFrame({"seed": seed, "instruction": [f"i{k}" for k in instruction], "value": z.ravel()})


def test_the_effect_of_numbers_that_are_one_a_seed_is_the_paired_t_interval() -> None:
    one, other = np.array([1.0, 2.0, 4.0]), np.array([0.5, 1.0, 3.5])
    seen = effect([cell(one, False), cell(other, False)], [1, -1])
    low, high = stats.t.interval(0.95, 2, loc=2 / 3, scale=stats.sem(one - other))
    assert (seen.effect, seen.low, seen.high) == pytest.approx((2 / 3, low, high))
    assert (seen.n, seen.seeds) == (3, 3)


def test_what_seeds_and_instructions_share_cancels_in_a_difference_and_a_difference_in_an_interaction() -> None:
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(3, 1)) + 5 * rng.normal(size=(1, 40))
    seen = effect([cell(shared + 0.25), cell(shared)], [1, -1])
    assert (seen.effect, seen.low, seen.high) == pytest.approx((0.25, 0.25, 0.25))
    assert (seen.n, seen.seeds) == (120, 3)
    noise = rng.normal(size=(3, 40))
    crossed = [shared + noise + 1.0, shared, shared + noise + 0.4, shared]
    seen = effect(list(map(cell, crossed)), [1, -1, -1, 1])
    assert (seen.effect, seen.low, seen.high) == pytest.approx((0.6, 0.6, 0.6))


def test_an_interval_of_one_seed_is_clustered_by_instruction_and_of_seeds_that_differ_is_wide() -> None:
    values = np.random.default_rng(1).normal(size=(1, 50))
    seen = effect([cell(values)], [1])
    low, high = stats.t.interval(0.95, 49, loc=values.mean(), scale=stats.sem(values[0]))
    assert (seen.low, seen.high) == pytest.approx((low, high))
    moved = effect([cell(values[0] + np.array([[0.0], [3.0], [6.0]]))], [1])
    assert moved.high - moved.low > 10  # three seeds: t of about two degrees


def test_a_seed_that_one_cell_lacks_is_left_out_and_rows_without_a_value_are() -> None:
    one, other = cell([[1.0, 2.0], [3.0, 5.0], [7.0, 9.0]]), cell([[0.0, 0.0], [0.0, np.nan]])
    seen = effect([one, other], [1, -1])
    assert (seen.effect, seen.seeds, seen.n) == (pytest.approx(11 / 4), 2, 4)
    nothing = effect([one, other[:0]], [1, -1])
    assert np.isnan(nothing.effect) and nothing.seeds == 0 and verdict(nothing, "above") == "not shown"


def test_the_order_of_rows_changes_nothing() -> None:
    a, b = cell(np.random.default_rng(2).normal(size=(3, 9))), cell(np.random.default_rng(3).normal(size=(3, 9)))
    mixed = effect([a.sample(frac=1, random_state=1), b.sample(frac=1, random_state=2)], [1, -1])
    assert (mixed.effect, mixed.low) == pytest.approx((effect([a, b], [1, -1]).effect, effect([a, b], [1, -1]).low))


@pytest.mark.parametrize(
    ("low", "high", "above", "below"),
    [
        (0.1, 0.3, "shown", "contradicted"),
        (-0.3, -0.1, "contradicted", "shown"),
        (-0.1, 0.3, "not shown", "not shown"),
        (0.0, 0.3, "not shown", "not shown"),
        (np.nan, np.nan, "not shown", "not shown"),
    ],
)
def test_a_verdict_is_where_the_interval_lies(low: float, high: float, above: str, below: str) -> None:
    seen = Effect((low + high) / 2, low, high, 10, 3)
    assert (verdict(seen, "above"), verdict(seen, "below")) == (above, below)


def test_one_seed_shows_nothing_unless_its_numbers_are_exact() -> None:
    """With many instructions it showed whatever its one training had come to."""
    values = np.random.default_rng(1).normal(1.0, 0.1, size=(1, 50))
    seen = effect([cell(values)], [1])
    assert seen.low > 0.9 and verdict(seen, "above") == verdict(seen, "below") == "not shown"
    assert not inside(effect([cell(0.0 * values)], [1]), 0.5)
    alone = effect([cell([0.25], False), cell([0.0], False)], [1, -1], exact=True)
    assert (alone.effect, alone.low, alone.high) == (0.25, 0.25, 0.25)
    assert verdict(alone, "above") == "shown" and not inside(alone, 0.2) and inside(alone, 0.3)
    assert effect([cell([0.25, 0.25], False)], [1], exact=True).seeds == 2
    with pytest.raises(UserError, match=r"said to be `exact`, and is 0\.25 with seed 0 and 0\.5 with seed 2"):
        effect([cell([0.25, 0.25, 0.5], False)], [1], exact=True)


def test_an_equality_needs_a_narrow_interval() -> None:
    assert inside(Effect(0.0, -0.02, 0.02, 9, 3), 0.02)
    assert not inside(Effect(0.0, -0.5, 0.5, 9, 3), 0.02)  # low power does not pass
    assert not inside(Effect(0.0, np.nan, np.nan, 1, 1), 0.02)


# --- a file -----------------------------------------------------------------------------------------------------------

SHARED = {k: v for k, v in EXPERIMENT.items() if k != "methods"} | {"annotator": EXPERIMENT["judges"]["gold"]}
MORE = {"run": "main", "method": "best_of_8"}
LESS = {"run": "main", "method": "best_of_1"}
GOLD = {"args": {"judge": "gold"}}
PAPER: dict[str, Any] = {
    "title": "Best of more",
    "claim": "the best of more samples is better",
    "runs": {
        "shared": {**SHARED, "seeds": [1, 2, 3]},
        "main": {"methods": {"best_of_8": {"use": "best_of_n", "n": 8}, "best_of_1": {"use": "best_of_n", "n": 1}}},
    },
    "claims": [
        {"text": "8 beat 1", "measure": "column", "of": MORE, "against": LESS, "expect": "above"},
        {
            "text": "8 are judged worse",
            "measure": "win",
            "of": {**MORE, **GOLD},
            "against": {**LESS, **GOLD},
            "expect": "below",
        },
    ],
    "controls": [{"text": "a method is itself", "measure": "column", "of": LESS, "against": LESS, "within": 0.01}],
    "stated": [{"text": "samples are cheap", "paper": "cheap"}],
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FARM_HOME", str(tmp_path / "home"))
    return write(tmp_path)


def written(**changes: Any) -> str:
    Path("best.yaml").write_text(yaml.safe_dump({**PAPER, **changes}, sort_keys=False))
    return "best.yaml"


@pytest.mark.parametrize(
    ("claim", "complaint"),
    [
        ({"of": {**MORE, "run": "mian"}}, r"claims\[0\]: there is no run `mian`; did you mean `main`"),
        ({"of": {**MORE, "method": "best_of_9"}}, "no method `best_of_9`; did you mean `best_of_8`"),
        ({"measure": "colum"}, "there is no measure `colum`; did you mean `column`"),
        ({"of": {**MORE, "args": {"colum": "gold"}}}, "unknown key `colum` of Column; did you mean `column`"),
        ({"measure": "win", "of": {**MORE, "args": {"judge": "gould"}}}, "`judge_gould`, which main does not make"),
        ({"of": {**MORE, "variant": {"annotator.rate": 0}}}, "the run main does not sweep `annotator.rate`"),
        ({"expect": "more"}, "`claims.0.expect` = 'more' is wrong"),
        ({"against": None, "minus": [MORE, LESS]}, "so `against` must be given"),
    ],
)
def test_a_claim_that_names_what_is_not_there_is_refused_before_anything_runs(
    here: Path, claim: dict[str, Any], complaint: str
) -> None:
    first = {**PAPER["claims"][0], **claim}
    with pytest.raises(UserError, match=complaint) as said:
        papers.load(written(claims=[first]))
    assert "best.yaml" in str(said.value) and len(str(said.value)) < 300


@pytest.mark.parametrize("both", [{}, {"within": 0.1, "expect": "above"}])
def test_a_control_is_an_equality_or_has_a_sign(here: Path, both: dict[str, Any]) -> None:
    control = {"text": "x", "measure": "column", "of": LESS, "against": LESS, **both}
    with pytest.raises(UserError, match="a control is an equality, with `within`, or has a sign, with `expect`"):
        papers.load(written(controls=[control]))


def test_cells_of_runs_with_other_seeds_are_not_compared(here: Path) -> None:
    runs = {**PAPER["runs"], "other": {**PAPER["runs"]["main"], "seeds": [4, 5]}}
    claim = {**PAPER["claims"][0], "against": {**LESS, "run": "other"}}
    with pytest.raises(UserError, match="the runs main and other have other seeds"):
        papers.load(written(runs=runs, claims=[claim]))


def test_a_cell_means_all_variants_that_agree_with_it(here: Path) -> None:
    runs = {
        **PAPER["runs"],
        "main": {**PAPER["runs"]["main"], "sweep": {"annotator.rate": [0, 0.25], "sizes.pairs": [50, 99]}},
    }
    study = papers.load(written(runs=runs)).studies["main"]
    assert len(variants(study, Cell(run="main", method="dpo"))) == 12
    chosen = variants(study, Cell(run="main", method="dpo", variant={"annotator.rate": 0.25}))
    assert {v.labels["sizes.pairs"] for v in chosen} == {50, 99} and len(chosen) == 6
    claim = {**PAPER["claims"][0], "of": {**MORE, "variant": {"sizes.pairs": [50]}}}  # a value is no list of values
    with pytest.raises(UserError, match=r"the run main has no sizes\.pairs \[50\]"):
        papers.load(written(runs=runs, claims=[claim]))


def test_a_factor_that_is_crossed_keeps_its_effect_and_one_that_cannot_act_halves_it() -> None:
    """Planted effects 4 > 2 > 1 > 0 come out of a full factorial; over cells in which data cannot act, half of it."""
    rng = np.random.default_rng(4)
    planted = {"data": 4.0, "algorithm": 2.0, "model": 1.0, "dummy": 0.0}
    levels = np.array(np.meshgrid(*[[0, 1]] * 4)).reshape(4, -1).T
    noise = rng.normal(size=(3, 30))

    def factor(k: int, acts: bool = True) -> float:
        parts: list[list[pd.DataFrame]] = [[], []]
        for row in levels:
            moved = sum(
                size * (on if acts or k != j or row[1] else 0)
                for j, (size, on) in enumerate(zip(planted.values(), row, strict=True))
            )
            parts[row[k]].append(cell(noise + moved + 0.1 * rng.normal(size=noise.shape)))
        return effect([pd.concat(parts[1]), pd.concat(parts[0])], [1, -1]).effect

    assert [factor(k) for k in range(4)] == pytest.approx(list(planted.values()), abs=0.05)
    assert factor(0, acts=False) == pytest.approx(2.0, abs=0.05)


def test_a_paper_runs_resumes_and_records_what_was_seen(here: Path) -> None:
    planned = papers.load(written())
    run = PaperRunner(planned, Path("out")).go()
    said = json.loads((here / "out" / "claims.json").read_text())
    assert [c["verdict"] for c in said["claims"]] == ["shown", "contradicted", "stated"]
    assert [c["verdict"] for c in said["controls"]] == ["held"]
    assert list(run.claims.columns) == list(recorded.COLUMNS) and len(run.claims) == 3
    first = said["claims"][0]
    assert first["low"] <= first["effect"] <= first["high"] and (first["n"], first["seeds"]) == (30, 3)
    outputs = [pd.read_parquet(p) for p in sorted((here / "out/runs/main/runs").glob("*/tables/outputs.parquet"))]
    gold = [o.groupby("method")["gold"].mean() for o in outputs]
    assert first["effect"] == pytest.approx(np.mean([g["best_of_8"] - g["best_of_1"] for g in gold]))
    state = run_status.read(Path("out"))  # of the folder of a paper there was none
    assert state["state"] == state["experiments"]["main"]["state"] == "finished"
    assert run_status.lines(state)[:2] == ["out: finished", "main:"]
    again = PaperRunner(planned, Path("out")).go()  # the same folder, nothing made anew
    assert again.result == run.result
    path = recorded.record(planned, run.result)
    assert recorded.recorded(planned.path) == run.result and path.parent.name == "results"
    with pytest.raises(UserError, match="only what the file itself says is recorded"):
        recorded.record(papers.load("best.yaml", ["seeds=[4, 5]"]), run.result)


def test_a_paper_whose_claims_are_not_there_yet_is_under_way_or_was_stopped(here: Path) -> None:
    run = StudyRunner(experiment.load("table.yaml"), Path("out/runs/main")).go()
    file = run.folder / "status.json"
    assert run_status.read(Path("out"))["state"] == "running"  # this process may be at the next one
    file.write_text(json.dumps({**json.loads(file.read_text()), "process": 2**22 + 1}))
    state = run_status.read(Path("out"))
    assert state["state"] == "stopped" and run_status.lines(state)[0] == "out: stopped; the same command goes on"


def test_a_measure_may_read_a_variant_beside_that_of_its_cell(here: Path) -> None:
    methods: dict[str, Any] = {f"best_of_{n}": {"use": "best_of_n", "n": n} for n in (1, 9)}
    methods["curve"] = {"use": "best_of_n_curve", "n": 1, "prompts": 8, "candidates": 16}
    judges = {"judge": EXPERIMENT["judges"]["gold"], "humans": EXPERIMENT["judges"]["gold"]}
    main = {"methods": methods, "judges": judges, "sweep": {"annotator.rate": [0.1, 0.2]}, "seeds": [1, 2]}
    runs = {"shared": {**SHARED, "annotator": EXPERIMENT["annotator"]}, "main": main}
    args: dict[str, Any] = {"beside": {"annotator.rate": 0.2}, "least": 0.5}
    cell = {"run": "main", "method": "sft", "variant": {"annotator.rate": 0.1}, "args": args}
    claim = {"text": "they rank alike", "measure": "rank_agreement", "of": cell, "expect": "above"}
    at = {n: {**cell, "method": "curve", "args": {"table": "metrics", "where": {"n": n}}} for n in (1, 16)}
    rise = {"text": "gold rises", "measure": "column", "of": at[16], "against": at[1], "expect": "above"}
    found = PaperRunner(papers.load(written(runs=runs, claims=[claim, rise], controls=[])), Path("out")).go().result
    alike, rises, _ = found.claims  # the third is stated
    assert alike.n == rises.n == 2 and alike.effect is not None and 0 < alike.effect <= 0.5
    assert rises.effect is not None and rises.effect > 0
    args["beside"] = {"annotator.rate": 0.3}
    with pytest.raises(UserError, match=r"best.yaml: claims\[0\]: no variant of the run has .*0\.3"):
        papers.load(written(runs=runs, claims=[claim]))


def test_a_budget_is_for_all_experiments_of_a_paper_together(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each experiment is made within what the stages of the others, shared ones apart, have left."""
    main = PAPER["runs"]["main"]
    runs = {**PAPER["runs"], "other": {**main, "judges": {"judge": EXPERIMENT["judges"]["gold"]}}}
    runner, given = PaperRunner(papers.load(written(runs=runs)), Path("out")), []
    monkeypatch.setattr(Artifacts, "paid", lambda self, name, key: 0.125)
    monkeypatch.setattr(StudyRunner, "go", lambda self, e, w, limits: given.append(limits.budget) or Run(Path("out")))
    monkeypatch.setattr(
        PaperRunner, "_result", lambda self, failures: (_ for _ in ()).throw(UserError("measured later"))
    )
    with pytest.raises(UserError, match="measured later"):
        runner.go(limits=Limits(budget=10.0))
    paying = [{k for k, n in one.graph().items() if n.pays} for one in runner.runners.values()]
    alone = [len(paying[1] - paying[0]), len(paying[0] - paying[1])]
    assert given == [10.0 - 0.125 * n for n in alone] and min(alone) > 0


FUSE = '''
from farm.base.errors import UserError
from reference_methods.selection.best_of_n import BestOfN

class Fuse(BestOfN):
    """Fails with one seed."""
    def train(self, learning):
        if learning.seed == 2:
            raise UserError("the fuse has blown")
        return super().train(learning)
'''


def test_a_method_that_failed_with_one_seed_leaves_the_claim_the_others(here: Path) -> None:
    """It said "no row has method best_of_8", and neither why nor what the other seeds showed."""
    Path("fuse_for_test.py").write_text(FUSE)
    methods = {**PAPER["runs"]["main"]["methods"], "best_of_8": {"class": "fuse_for_test.Fuse", "n": 8}}
    run = PaperRunner(papers.load(written(runs={**PAPER["runs"], "main": {"methods": methods}})), Path("out")).go()
    assert [(failure["method"], failure["reason"]) for failure in run.failures] == [("best_of_8", "the fuse has blown")]
    assert [claim.seeds for claim in run.result.claims] == [2, 2, 0] and run.result.controls[0].seeds == 3
    assert (here / "out" / "claims.json").is_file()


def test_a_control_that_fails_voids_every_claim(here: Path) -> None:
    failing = {"text": "they are equal", "measure": "column", "of": MORE, "against": LESS, "within": 1e-6}
    result = PaperRunner(papers.load(written(controls=[failing]), ["seeds=[1, 2]"]), Path("out")).go().result
    assert [c.verdict for c in result.claims] == ["void", "void", "stated"]
    assert result.controls[0].verdict == "failed" and result.seeds == [1, 2]


def test_a_control_that_says_of_which_runs_it_is_voids_the_claims_about_them_alone(here: Path) -> None:
    runs = {**PAPER["runs"], "other": PAPER["runs"]["main"]}
    claim, other = PAPER["claims"][0], {"run": "other"}
    claims = [claim, {**claim, "of": {**MORE, **other}}, {**claim, "against": {**LESS, **other}}]
    failing = {"text": "they are equal", "measure": "column", "of": MORE, "against": LESS, "within": 1e-6}

    def planned(*voids: str) -> papers.Planned:
        controls = [{**failing, "voids": list(voids)}]
        return papers.load(written(runs=runs, claims=claims, controls=controls), ["seeds=[1, 2]"])

    result = PaperRunner(planned("other"), Path("out")).go().result
    assert [seen.verdict for seen in result.claims[:3]] == ["shown", "void", "void"]
    assert result.controls[0].verdict == "failed"
    both = planned("main").paper
    assert all(both.controls[0].is_about(claim) for claim in both.claims)  # one cell of each is of `main`
    with pytest.raises(
        UserError, match=r"controls\[0\]: `voids`: no claim is about a run `ohter`; did you mean `other`"
    ):
        planned("ohter")


def test_a_control_of_every_claim_leaves_the_digest_of_results_that_were_recorded(here: Path) -> None:
    control = PAPER["controls"][0]
    digests = [
        papers.load(written(controls=[{**control, **more}])).digest
        for more in ({}, {"voids": None}, {"voids": ["main"]})
    ]
    assert digests[0] == digests[1] != digests[2]


def test_a_number_that_is_known_is_taken_off() -> None:
    values = np.array([[0.2, 0.4], [0.3, 0.5]])
    for wide in (True, False):
        table = cell(values) if wide else cell(values.mean(1), False)
        seen, moved = effect([table], [1]), effect([table], [1]).less(0.25)
        assert (moved.effect, moved.low) == pytest.approx((seen.effect - 0.25, seen.low - 0.25))
        assert moved.high - moved.low == pytest.approx(seen.high - seen.low)
    claim = Claim(text="", measure="column", of=Cell(run="main", method="a"), against=0.25, expect="above")
    assert claim.known == 0.25 and [sign for _, sign in claim.cells] == [1.0]


def test_a_claim_against_a_number_is_run(here: Path) -> None:
    column = {"measure": "column", "of": {**LESS, "args": {"column": "gold"}}}
    claims = [{"text": "low", **column, "against": -100, "expect": "above"}]
    controls = [{"text": "high", **column, "against": 100, "expect": "below"}]
    result = PaperRunner(papers.load(written(claims=claims, controls=controls), ["seeds=[1, 2]"]), Path("out")).go()
    above, below = result.result.claims[0], result.result.controls[0]
    assert (above.verdict, below.verdict) == ("shown", "held")
    assert above.effect is not None and below.effect is not None
    assert above.effect - below.effect == pytest.approx(200)


def test_what_an_interaction_is_made_of() -> None:
    a, b, c, d = (Cell(run="main", method=m) for m in "abcd")
    claim = Claim(text="", measure="column", of=a, against=b, minus=(c, d), expect="above")
    assert claim.cells == [(a, 1), (b, -1), (c, -1), (d, 1)]


# --- the papers that there are ----------------------------------------------------------------------------------------


def test_docs_papers_is_made_of_the_files_and_the_recorded_results() -> None:
    document = Path(__file__).parents[2] / "docs" / "papers.md"
    assert document.read_text() == table.markdown(), "farm papers --markdown > docs/papers.md"


def test_every_role_of_alpaca_farms_file_is_built() -> None:
    """It takes long to run: what would stop it is known before."""
    for runner in PaperRunner(papers.load(papers.PREFIX + "alpaca_farm")).runners.values():
        runner.plans[0].setting.check()


def test_the_listing_fits_a_terminal_and_has_every_claim() -> None:
    lines = table.listing().splitlines()
    assert max(map(len, lines)) <= table.WIDTH
    heads = [line for line in lines if line.startswith("  ") and not line.startswith("    ") and line[2:3].islower()]
    numbered = [line for line in heads if line.split()[0] in ("shown", "not", "contradicted", "void", "stated")]
    assert len(numbered) >= len(recorded.table())


def test_farm_papers_as_json_has_one_row_a_claim_with_what_was_seen_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    few = {name: path for name, path in papers.names().items() if name in ("ties", "one_sided", "dragon")}
    monkeypatch.setattr(papers, "names", lambda: few)  # all take seconds
    done = CliRunner().invoke(cli._application(), ["papers", "--json"], catch_exceptions=False)
    rows = json.loads(done.stdout)
    for name in few:
        paper, found = papers.load(papers.PREFIX + name).paper, [row["claim"] for row in rows if row["name"] == name]
        tested = len(paper.claims)  # what is stated alone follows, once the others have been run
        assert tested <= len(found) == len(set(found)) <= tested + len(paper.stated)
    for row in rows:
        assert {"title", "verdict", "effect", "low", "high", "n", "seeds", "minutes"} <= set(row)
        if row["verdict"] in ("shown", "not shown", "contradicted"):
            assert row["low"] <= row["effect"] <= row["high"] and row["n"] >= row["seeds"] >= 3 and row["minutes"] > 0


def test_a_result_of_another_version_of_a_file_is_shown_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The part of a paper showed its old numbers where the table said that it was not run."""
    planned = papers.load(papers.PREFIX + "ties")
    found = recorded.recorded(planned.path)
    assert found is not None and f"Seeds 1, 2, 3, 4, 5; {found.minutes:.1f} minutes" in table.markdown()
    monkeypatch.setattr(recorded, "recorded", lambda path: found.model_copy(update={"digest": "0" * 16}))
    assert "minutes of stages" not in table.markdown()


@pytest.mark.parametrize("name", papers.names())
def test_a_recorded_result_is_of_this_version_of_its_file(name: str) -> None:
    planned = papers.load(papers.PREFIX + name)
    found = recorded.recorded(planned.path)
    if found is None:
        pytest.skip(f"it has not been run: farm run papers/{name} --record")
    assert found.digest == f"{planned.digest:016x}", f"its file has changed since: farm run papers/{name} --record"
    assert len(found.seeds) >= 3
    assert all(row["verdict"] for row in recorded.table([name]))


# --- computed tables --------------------------------------------------------------------------------------------------

COINS = '''
from dataclasses import dataclass

import numpy as np
import pandas as pd

@dataclass(frozen=True)
class Coins:
    """Tosses with a known mean: ``toss`` says for whom."""
    p: float = 0.5

    def tables(self, seed):
        u = np.random.default_rng(seed).random(400)
        both = {"fair": u < 0.5, "bent": u < self.p}
        ids = np.arange(400).astype(str)
        rows = [pd.DataFrame({"method": m, "instruction": ids, "head": h * 1.0}) for m, h in both.items()]
        return {"tosses": pd.concat(rows)}
'''


def test_a_run_computes_its_tables_and_claims_are_measured_on_them(here: Path) -> None:
    Path("coins_for_test.py").write_text(COINS)
    args = {"table": "tosses", "column": "head"}
    bent, fair = ({"run": "toss", "method": m, "args": args} for m in ("bent", "fair"))
    claim = {"text": "bent", "measure": "column", "of": bent, "against": fair, "expect": "above"}
    runs = {"shared": {"seeds": [1, 2, 3]}, "toss": {"compute": {"class": "coins_for_test.Coins", "p": 0.6}}}
    result = PaperRunner(papers.load(written(runs=runs, claims=[claim], controls=[])), Path("out")).go().result
    tosses = [np.random.default_rng(seed).random(400) for seed in (1, 2, 3)]
    assert result.claims[0].effect == pytest.approx(np.mean([(u < 0.6).mean() - (u < 0.5).mean() for u in tosses]))
    assert result.claims[0].verdict == "shown"
    assert sorted(p.name for p in Path("out/runs/toss/runs").iterdir()) == ["s1", "s2", "s3"]
    before = papers.load(written(runs=runs, claims=[claim], controls=[])).digest
    exact = papers.load(written(runs=runs, claims=[{**claim, "exact": True}], controls=[]))
    assert (
        exact.digest
        != before
        == papers.load(written(runs=runs, claims=[{**claim, "exact": False}], controls=[])).digest
    )
    with pytest.raises(UserError, match="bent: it is said to be `exact`"):
        PaperRunner(exact, Path("again")).go()


def test_what_computes_its_tables_has_no_methods_and_says_what_it_cannot(here: Path) -> None:
    Path("coins_for_test.py").write_text(COINS)
    claim = {"text": "", "measure": "column", "of": {"run": "toss", "method": "bent"}, "expect": "above"}
    for compute, methods, complaint in (
        ({"class": "coins_for_test.Coins"}, {"dpo": None}, "`compute` takes the place of `methods`"),
        ({"class": "coins_for_test.Coins", "q": 1}, {}, "unknown key `q` of Coins"),
    ):
        runs = {"toss": {"compute": compute, "methods": methods}}
        with pytest.raises(UserError, match=complaint):
            PaperRunner(papers.load(written(runs=runs, claims=[claim], controls=[])), Path("out")).go()


def test_a_computed_column_that_a_run_cannot_read_is_refused_where_it_is_made(here: Path) -> None:
    """It was found when claims were measured, after everything had been computed: `labels` are numbers in a run."""
    Path("worded_for_test.py").write_text(COINS.replace('"head": h * 1.0', '"head": h * 1.0, "labels": "regret"'))
    of = {"run": "toss", "method": "bent", "args": {"table": "tosses", "column": "head"}}
    claim = {"text": "bent", "measure": "column", "of": of, "expect": "above"}
    runs = {"toss": {"compute": {"class": "worded_for_test.Coins"}}}
    with pytest.raises(
        UserError, match="compute: `labels` of the table `tosses` has values that a run's tables cannot"
    ):
        PaperRunner(papers.load(written(runs=runs, claims=[claim], controls=[])), Path("out")).go()
