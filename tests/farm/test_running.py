"""A run that goes wrong, is asked for less, for more, or for nothing yet."""

import json
import random
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from farm.base import progress
from farm.base.errors import UserError
from farm.experiments import experiment
from farm.experiments.running import Run, StudyRunner
from farm.experiments.stages import kinds
from farm.forecasts.forecast import foresee, text
from farm.tables.records import PairIds, unanswered
from tests.farm.table_world import EXPERIMENT, finish, same, start, write


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FARM_HOME", str(tmp_path / "home"))
    return write(tmp_path)


def go(*settings: str, out: str = "run", force: tuple[str, ...] = (), only: list[str] | None = None) -> Run:
    return StudyRunner(experiment.load("table.yaml", settings, only=only), Path(out), force).go()


BROKEN = "methods.broken={class: methods_for_test.Broken}"


def test_a_failed_method_is_shown_with_its_reason_and_the_others_go_on(tmp_path: Path) -> None:
    write(tmp_path, reporter="html")
    out, errors = finish(start(tmp_path, "home", "--out", "run", "--set", BROKEN), status=1)
    assert "failed      broken: RuntimeError: it was never going to work" in out
    last = errors.strip().splitlines()[-1]
    assert last.startswith("farm: broken failed: RuntimeError: it was never going to work; see run/failures.csv")
    board = pd.read_json(tmp_path / "run" / "leaderboard.json")
    assert set(board["method"]) == {"sft", "best_of_n", "dpo"}
    failures = pd.read_csv(tmp_path / "run" / "failures.csv")
    assert failures.loc[0, "method"] == "broken"
    assert "methods_for_test.py" in failures.loc[0, "trace"]
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "finished"


def test_where_every_method_fails_there_is_no_run(here: Path) -> None:
    write(here, methods={"broken": {"class": "methods_for_test.Broken"}})
    with pytest.raises(UserError, match="every method failed; the first: broken: RuntimeError: it was never"):
        go()
    assert not (here / "run" / "leaderboard.json").exists()


JUDGE = "judges.judge={class: annotators.llm.annotator.LLMAnnotator, model: mock/mumble, prompt: plain_line}"


def test_a_judge_that_never_answers_ranks_nobody(tmp_path: Path) -> None:
    """Identical outputs, ties that nobody was asked about, made it 50.0 ±0.0."""
    write(tmp_path)
    out, errors = finish(start(tmp_path, "home", "--out", "run", "--set", JUDGE), status=1)
    assert "50.0" not in out and not (tmp_path / "run" / "leaderboard.json").exists()
    last = errors.strip().splitlines()[-1]
    assert "judge of sft: 0 verdicts on" in last and "unparseable" in last and "`least_verdicts` asks for 80%" in last


def test_what_judges_did_not_say_is_told_and_may_be_allowed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gold = EXPERIMENT["judges"]["gold"]
    judge = {"class": "annotators.noise.observation.Observed", "annotator": gold}  # withholds about half
    write(here, judges={"judge": judge, "gold": gold})
    with pytest.raises(UserError, match=r"judge of sft: \d+ verdicts on \d+ pairs of different outputs"):
        go()
    go("least_verdicts=0.3", out="allowed")
    assert "verdicts are missing" in capsys.readouterr().err
    table = pd.read_parquet(here / "allowed" / "tables" / "judge_judge.parquet")
    differing, missing = unanswered(table)
    assert 0 < sum(missing.values()) < differing == int((table["output_1"] != table["output_2"]).sum())
    with pytest.raises(UserError, match="`least_verdicts` asks for 80%"):  # what was allowed then is not now
        go()


def test_feedback_without_a_verdict_trains_nobody(here: Path) -> None:
    write(here, annotator={"class": "annotators.llm.annotator.LLMAnnotator", "model": "mock/mumble"})
    with pytest.raises(UserError, match=r"the annotator: 0 verdicts on \d+ pairs"):
        go()


def test_only_some_methods(here: Path) -> None:
    assert set(go(only=["dpo"]).leaderboard["method"]) == {"sft", "dpo"}
    with pytest.raises(UserError, match="`only` dpoo: there is no such method; did you mean `dpo`"):
        go(only=["dpoo"])


def test_force_makes_a_stage_again_and_what_it_leads_to(here: Path) -> None:
    go()
    go(force=("dpo",), out="again")
    stages = {s["stage"]: s["found"] for s in json.loads((here / "again" / "costs.json").read_text())["stages"]}
    assert {name for name, found in stages.items() if not found} == {
        "dpo",
        "dpo answers",
        "judge judges dpo",
        "gold judges dpo",
    }
    same(here / "run", here / "again")
    with pytest.raises(UserError, match="`force` dop: there is no such stage; did you mean `dpo`"):
        go(force=("dop",))


def test_a_dry_run_makes_nothing_and_knows_from_earlier_runs(here: Path) -> None:
    first = foresee(StudyRunner(experiment.load("table.yaml")), 1)
    assert first["to_do"] == len(first["stages"]) == 14
    assert first["stages_without_a_time"] == 14
    assert first["verdicts"] == 300 + 3 * 2 * 100
    assert not (here / "home" / "artifacts").exists()
    assert not list(here.glob("runs/*"))
    go()
    after = foresee(StudyRunner(experiment.load("table.yaml")), 1)
    assert after["to_do"] == 0
    other = foresee(StudyRunner(experiment.load("table.yaml", ["methods.dpo.beta=0.7"])), 2)
    assert [s["stage"] for s in other["stages"] if not s["done"]] == [
        "dpo",
        "dpo answers",
        "judge judges dpo",
        "gold judges dpo",
    ]
    assert other["stages_without_a_time"] == 0
    assert 0 < other["seconds"] < 60
    assert "10 stages are done and 4 to do" in text(other)


def test_a_dry_run_without_the_data(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = StudyRunner(experiment.load("alpaca_farm", ["world.data=nowhere"]))
    foreseen = foresee(runner, 8)
    assert "nowhere: there is no file sft in .json" in foreseen["absent"]
    methods = [s for s in foreseen["stages"] if s["kind"] == "method"]
    assert len(methods) == 13
    assert foreseen["verdicts"] == 10_000 + 14 * 805
    assert all(s["gpu"] for s in methods)


def test_alpaca_farm_takes_the_papers_splits(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"sft": 4, "preference": 3, "unlabeled": 5, "val": 2, "eval": 6}
    (here / "data").mkdir()
    for name, n in sizes.items():
        rows = [{"instruction": f"{name} {i}", "input": "x" * (i % 2), "output": f"answer {i}"} for i in range(n)]
        (here / "data" / f"{name}.json").write_text(json.dumps(rows))
    monkeypatch.setattr("farm.worlds.text.TextWorld.revision", "0")
    study = experiment.load(
        "alpaca_farm", ["world.data=data", "sizes={pairs: 3, prompts: 5, evaluation: 6, samples: 1}"]
    )
    plan = StudyRunner(study).plans[0]
    world = plan.setting.world
    assert world.instructions("train")["instruction"].tolist()[:3] == [
        "preference 0",
        "preference 1\n\nx",
        "preference 2",
    ]
    assert len(world.instructions("train")) == 8
    assert len(world.instructions("test")) == 6
    assert len(world.instructions("validation")) == 2
    assert world.demonstrations()["output"].tolist() == [f"answer {i}" for i in range(4)]
    assert foresee(StudyRunner(study), 1)["absent"] is None


def test_a_sweep_shares_what_it_can(here: Path) -> None:
    study = experiment.load("table.yaml", ["sweep={annotator.rate: [0.0, 0.25]}", "seeds=[1, 2]"])
    runner = StudyRunner(study, Path("run"))
    names = [node.name for node in runner.graph().values()]
    assert names.count("responses") == 2  # one a seed
    assert names.count("pairs") == 4
    assert names.count("sft answers") == 4  # they are scored by the reward model of the setting
    run = runner.go()
    board = run.leaderboard
    assert len(board) == 2 * 3
    assert set(board["annotator.rate"]) == {0.0, 0.25}
    assert (board["seeds"] == 2).all()
    assert sorted(p.name for p in (here / "run" / "runs").iterdir()) == [
        f"rate={r},s{s}" for r in ("0.0", "0.25") for s in (1, 2)
    ]
    assert len(run.table("results")) == 4 * 3
    assert set(run.table("changes")["annotator.rate"]) == {0.25}
    assert not (here / "run" / "runs" / "rate=0.0,s1" / "checkpoints").exists()


def test_a_variant_that_fails_leaves_the_others(here: Path) -> None:
    write(here, sweep={"annotator": {"good": "person", "bad": {"use": "flip", "rate": 0.1, "key": "nothing"}}})
    with pytest.raises(UserError, match="key"):  # a mistake in any variant is found before anything is made
        go()
    assert not (here / "home" / "artifacts").exists()


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"sweep": {"metods.dpo.beta": [1]}}, "sweep: unknown key `metods.dpo.beta`; did you mean `methods`"),
        ({"sweep": {"methods.dpo.betta": [1]}}, "unknown key `betta` of DPO; did you mean `beta`"),
        ({"sweep": {"sizes.pars": [1]}}, "unknown key `sizes.pars`; did you mean `pairs`"),
        ({"sweep": {"seeds": [[1]]}}, "unknown key `seeds`"),
        ({"sweep": {}}, "`sweep` must be a mapping"),
        ({"sweep": {"sizes.pairs": []}}, "`sizes.pairs` has no value"),
        ({"sweep": {"sizes.pairs": [5, 5]}}, "two variants of the sweep are both called"),
        ({"sweep": {"random": {"draws": 1, "over": {"temperature": {"unifrom": [0, 1]}}}}}, "did you mean `uniform`"),
        ({"seeds": [1, 1]}, "`seeds` must be different numbers"),
        ({"seeds": []}, "`seeds` must be different numbers"),
        ({"resources": {"metod": {}}}, "unknown key `metod` of resources; did you mean `method`"),
        ({"resources": {"annotation": {}}}, "`annotation` of resources is called `feedback` now"),
    ],
)
def test_mistakes_in_a_sweep_name_the_key(here: Path, changes: dict[str, object], complaint: str) -> None:
    write(here, **changes)
    with pytest.raises(UserError) as caught:
        StudyRunner(experiment.load("table.yaml"))
    assert complaint in str(caught.value)


def test_no_reward_model_is_trained_that_no_method_needs(here: Path) -> None:
    write(here)
    kinds = {node.kind for node in StudyRunner(experiment.load("table.yaml", only=["dpo"])).graph().values()}
    assert "feedback" in kinds and "model" not in kinds
    assert "model" in {node.kind for node in StudyRunner(experiment.load("table.yaml")).graph().values()}


def test_a_stage_declares_all_of_itself(here: Path) -> None:
    """Keys follow what is read; equal stages are one; a label is one of a kind within an experiment."""
    plan = StudyRunner(experiment.load("table.yaml")).plans[0]
    assert set(kinds()) >= {stage.kind for stage in plan.stages.values()}
    labels = [stage.label() for stage in plan.stages.values()]
    assert len(set(labels)) == len(labels)
    place = {key: number for number, key in enumerate(plan.stages)}
    for key, stage in plan.stages.items():
        assert set(plan.graph[key].needs) == {plan.node(read).key for read in stage.reads()}
        assert all(place[need] < place[key] for need in plan.graph[key].needs)
    other = StudyRunner(experiment.load("table.yaml", ["sizes.evaluation=7"])).plans[0]
    shared = {stage.kind for key, stage in other.stages.items() if key in plan.stages}
    assert {"responses", "feedback", "model"} <= shared and not shared & {"answers", "judgement"}


def test_checkpoints_outlive_a_kill_and_go_with_the_stage(tmp_path: Path) -> None:
    write(tmp_path, methods={"slow": {"class": "methods_for_test.Stepping", "steps": 40, "waits": True}})
    process = start(tmp_path, "home", "--out", "run")
    artifacts = tmp_path / "home" / "artifacts"
    while process.poll() is None and not list(artifacts.glob("slow-*.partial/checkpoints/steps")):
        time.sleep(0.01)
    process.kill()
    process.communicate()
    done = int(next(artifacts.glob("slow-*.partial/checkpoints/steps")).read_text())
    assert 0 < done < 40
    (tmp_path / "go").touch()
    finish(start(tmp_path, "home", "--out", "run"))
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["method"] == "slow"] == list(range(done, 40))
    assert not list(artifacts.glob("*.partial"))


def test_killed_at_random_moments_it_comes_to_the_same_end(tmp_path: Path) -> None:
    """SIGKILL and Ctrl-C, in processes and without, wherever they strike."""
    methods = {"dpo": EXPERIMENT["methods"]["dpo"], "waiting": {"class": "methods_for_test.Waiting"}}
    write(tmp_path, methods=methods)
    chance, waits = random.Random(7), tmp_path / "waits"
    for number, engine in ((signal.SIGKILL, ["--engine", "local", "--workers", "2"]), (signal.SIGINT, [])):
        process = start(tmp_path, "home", "--out", "run", *engine)
        before = len(list((tmp_path / "home").glob("artifacts/[!.]*/stage.json")))
        wanted = before + chance.randrange(0, 4)
        waits.unlink(missing_ok=True)
        while process.poll() is None and not waits.exists():
            if len(list((tmp_path / "home").glob("artifacts/[!.]*/stage.json"))) >= wanted:
                break
            time.sleep(0.002)
        time.sleep(chance.random() * 0.05)
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)
        if "from farm.cli import main" not in errors:  # Ctrl-C in the middle of an import ends Python in several ways
            assert process.returncode in (-signal.SIGKILL, -signal.SIGINT, 130), errors
    (tmp_path / "go").touch()
    finish(start(tmp_path, "home", "--out", "run"))
    finish(start(tmp_path, "uninterrupted", "--out", "other"))
    same(tmp_path / "run", tmp_path / "other")


def test_clean_says_first_and_keeps_what_is_in_use(here: Path) -> None:
    go()
    (here / "home" / "artifacts" / ".dpo-0123.abc").mkdir()
    listed, _ = finish(start(here, "home", command="clean"))
    assert "left over from an interruption" in listed
    assert "stage dpo" not in listed
    assert (here / "home" / "artifacts" / ".dpo-0123.abc").exists()
    finish(start(here, "home", "--yes", "--days", "0", command="clean"))
    assert [p.name for p in (here / "home" / "artifacts").iterdir()] == ["timings.jsonl"]
    assert (here / "home" / "store.sqlite").exists()
    go(out="again")
    same(here / "run", here / "again")


def test_the_resolved_config_is_an_experiment_with_the_same_stages(here: Path) -> None:
    from farm.experiments import origins

    tree = origins.resolved("table.yaml", ["methods.dpo.beta=0.3"])
    shown = origins.text(tree)
    assert "beta: 0.3" in shown
    lines = {line.split("#")[0].strip(): line.rpartition("# ")[2] for line in shown.splitlines()}
    assert lines["beta: 0.3"] == "--set methods.dpo.beta"
    assert lines["learning_rate: 0.1"] == "table.yaml"
    assert lines["pairs: 300"] == "table.yaml"
    assert lines["demonstrations: 2000"] == "default of the experiment"
    assert lines["class: reference_methods.pairs.dpo.DPO"] == "entry point farm.methods (reference_methods.pairs)"
    assert lines["temperature: 2.0"] == "table.yaml"
    plain = yaml.safe_load(shown)
    (here / "resolved.yaml").write_text(yaml.safe_dump(plain))
    one = StudyRunner(experiment.load("table.yaml", ["methods.dpo.beta=0.3"])).graph()
    two = StudyRunner(experiment.load("resolved.yaml")).graph()
    assert set(one) == set(two)


def test_the_schema_of_editors_agrees_with_the_program(here: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    from farm.experiments.schema import experiment_schema
    from farm.roles.named_configs import named

    schema = experiment_schema()
    checker = jsonschema.Draft202012Validator(schema)
    checker.check_schema(schema)
    for path in named("experiments").values():
        assert not list(checker.iter_errors(yaml.safe_load(path.read_text()))), path
    pocket = yaml.safe_load(named("experiments")["pocket"].read_text())
    for wrong in (
        {"metods": {}},
        {"methods": {"ppo": {"use": "ppo", "betta": 1}}},
        {"annotator": {"use": "training", "rate": "x"}},
        {"annotator": "trainig"},
        {"sizes": {"pars": 1}},
    ):
        assert list(checker.iter_errors({**pocket, **wrong})), wrong


def test_that_rows_are_fewer_questions_is_said_also_of_a_run_that_finds_them(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {
        "world": {"use": "matrix", "prompts": 1},
        "sft": None,
        "reporter": None,
        "reward_model": None,
        "judges": {"judge": "preference"},
    }
    few |= {
        "name": "few",
        "annotator": "preference",
        "methods": {"dpo": {"epochs": 1}},
        "sizes": {"pairs": 61, "prompts": 4, "evaluation": 1, "samples": 2},
    }
    for _ in range(2):
        monkeypatch.setattr(progress, "_said", set())
        StudyRunner(experiment.from_mapping(few, "few.yaml"), here / "few").go()
        asked = len(np.unique(PairIds(pd.read_parquet(here / "few" / "tables" / "preferences.parquet")).pair))
        assert f"pairs: 61 rows are {asked} different questions" in capsys.readouterr().err and asked < 55
