"""A budget holds wherever money is spent: a run that would cost more stops, loses nothing, and goes on with more."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

import farm
from farm.asking.limits import Limits, OverBudget
from farm.asking.purse import current
from farm.base.errors import Fruitless, UserError
from farm.experiments import experiment
from farm.experiments.running import StudyRunner
from farm.scheduling.account import Paying, opened
from farm.scheduling.graph import Graph, Node
from farm.scheduling.here import Here
from farm.scheduling.perform import Outcome
from farm.scheduling.scheduler import check_budget, schedule
from farm.storage.artifacts import Artifacts, Place
from tests.annotators.llm.fault_server import FaultServer
from tests.farm.table_world import finish, same, start, write

VERDICT = 0.05
"""US dollars: the server says that each question had 100 tokens, at $500 a million"""
ASKING = '''
from dataclasses import dataclass
import pandas as pd

@dataclass(frozen=True)
class Asks:
    """Asks about as many pairs as it is told to, one after another."""
    needs = frozenset()
    asks = frozenset({"pairs"})
    pairs: int = 30
    def train(self, learning):
        for i in range(self.pairs):
            texts = {"instruction": f"question {i}", "output_1": "good", "output_2": "good good"}
            learning.ask("pairs", pd.DataFrame([{**texts, "generator_1": "a", "generator_2": "b"}]))
        return learning.policy
'''


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultServer]:
    with FaultServer(delay=0.002) as server:
        prices = {"models": {"openai/judge": {"input": 500.0, "output": 0.0}}}
        (tmp_path / "prices.yaml").write_text(yaml.safe_dump(prices))
        monkeypatch.setenv("FARM_PRICES", str(tmp_path / "prices.yaml"))
        monkeypatch.setenv("FARM_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        monkeypatch.chdir(tmp_path)
        yield server


def judge(server: FaultServer) -> dict[str, Any]:
    return {"class": "annotators.llm.annotator.LLMAnnotator", "model": "openai/judge", "base_url": server.url}


def paid(place: Path, server: FaultServer, **changes: Any) -> None:
    """An experiment of about a hundred verdicts, five dollars: sixty for the training, forty for the answers."""
    asked = {"annotator": judge(server), "judges": {"judge": judge(server)}}
    methods = {"best_of_n": {"use": "best_of_n", "n": 8}}
    sizes = {"pairs": 60, "prompts": 50, "evaluation": 10, "samples": 2}
    write(place, **{**asked, "methods": methods, "sizes": sizes, **changes})
    (place / "asking_for_test.py").write_text(ASKING)


def go(budget: float | None, engine: str = "here", workers: int | None = None, out: str = "run") -> Any:
    study = experiment.load("table.yaml")
    return StudyRunner(study, Path(out)).go(engine, workers, Limits(budget=budget, concurrency=4))


def test_a_run_stops_at_its_budget_and_goes_on_with_a_larger_one(
    tmp_path: Path, server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    paid(tmp_path, server)
    with pytest.raises(Fruitless, match=r"the budget of \$1\.00 ends in the stage pairs: \$[\d.]+ is spent"):
        go(1.0)
    first = len(server.answered)
    assert 10 <= first <= 1.0 / VERDICT
    with pytest.raises(Fruitless, match="ends in the stage pairs"):
        go(1.0)
    assert len(server.answered) == first, "what earlier runs paid for counts"
    with pytest.raises(Fruitless, match=r"the budget of \$4\.00 ends in the stage judge judges"):
        go(4.0)
    assert first < len(server.answered) <= 4.0 / VERDICT
    assert not (tmp_path / "run" / "leaderboard.json").exists(), "no table leaves a method out for want of money"
    run = go(10.0)
    assert not run.failures
    assert 4.0 / VERDICT < len(server.answered) <= 100
    assert len(set(server.answered)) == len(server.answered), "nothing is asked twice"
    assert server.most_in_flight <= 4
    monkeypatch.setenv("FARM_HOME", str(tmp_path / "home-2"))
    go(None, out="run-2")
    same(tmp_path / "run", tmp_path / "run-2")


def test_the_command_says_one_sentence_and_workers_share_the_budget(tmp_path: Path, server: FaultServer) -> None:
    paid(tmp_path, server)
    words = ["--out", "run", "--engine", "local", "--workers", "2", "--concurrency", "4", "--budget"]
    _, errors = finish(start(tmp_path, "home", *words, "1"), 1)
    assert errors.count("farm:") == 1
    assert "farm: the budget of $1.00 ends in the stage pairs" in errors
    assert "failed" not in errors
    assert 10 <= len(server.answered) <= 1.0 / VERDICT
    finish(start(tmp_path, "home", *words, "10"))
    assert (tmp_path / "run" / "leaderboard.json").exists()
    assert 4.0 / VERDICT < len(set(server.answered)) == len(server.answered) <= 100
    assert server.most_in_flight <= 4


@pytest.mark.slow
def test_on_ray_a_run_stops_at_its_budget_and_goes_on_with_a_larger_one(
    tmp_path: Path, server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    paid(tmp_path, server)
    ray.init(num_cpus=2, object_store_memory=80_000_000, include_dashboard=False, log_to_driver=False)
    try:
        with pytest.raises(Fruitless, match=r"the budget of \$1\.00 ends in the stage pairs: \$[\d.]+ is spent"):
            go(1.0, "ray")
        assert 10 <= len(server.answered) <= 1.0 / VERDICT
        assert not go(10.0, "ray").failures
    finally:
        ray.shutdown()
    assert 4.0 / VERDICT < len(set(server.answered)) == len(server.answered) <= 100
    monkeypatch.setenv("FARM_HOME", str(tmp_path / "home-2"))
    go(None, out="run-2")
    same(tmp_path / "run", tmp_path / "run-2")


def test_a_method_that_asks_while_it_learns_keeps_to_the_budget(tmp_path: Path, server: FaultServer) -> None:
    gold = {"judge": {"class": "annotators.people.gold.GoldAnnotator"}}
    paid(tmp_path, server, judges=gold, methods={"asks": {"class": "asking_for_test.Asks"}}, reward_model=None)
    with pytest.raises(Fruitless, match="ends in the stage asks"):
        go(1.0)
    assert 10 <= len(server.answered) <= 1.0 / VERDICT
    assert not go(10.0).failures
    assert len(set(server.answered)) == len(server.answered) == 30


DYING = f'''{ASKING}
from typing import ClassVar
from annotators.people.gold import GoldAnnotator
from farm.roles.protocols import World

@dataclass(frozen=True)
class Reads:
    needs = frozenset({{"pairs"}})
    def train(self, learning):
        return learning.policy

@dataclass(frozen=True)
class Dying:
    """Takes a quarter of a dollar for each verdict, and is killed once; its file could not be described."""
    world: World
    asked: ClassVar[list[int]] = []
    dies_at: ClassVar[list[int]] = []

    def annotate(self, pairs, *, seed, replicate=0):
        table = GoldAnnotator(self.world).annotate(pairs, seed=seed, replicate=replicate)
        if self.dies_at and sum(self.asked) >= self.dies_at[0]:
            self.dies_at.clear()
            raise KeyboardInterrupt
        self.asked.append(len(pairs))
        return table.assign(price=0.25)

    def __post_init__(self):
        object.__setattr__(self, "service", open(__file__))
'''


@pytest.mark.parametrize(("stage", "asks", "dies_at", "rows"), [("asks", 12, 8, 12), ("pairs", 0, 10, 12)])
def test_what_an_annotator_without_a_store_was_paid_before_a_kill_is_not_paid_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, asks: int, dies_at: int, rows: int
) -> None:
    """Verdicts between a checkpoint and a kill were asked for, and paid, again."""
    monkeypatch.setenv("FARM_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("farm.asking.kept._AT_ONCE", 10)
    name = f"dying_{stage}_for_test"
    (tmp_path / f"{name}.py").write_text(DYING)
    learns = {"class": f"{name}.Asks", "pairs": asks} if asks else {"class": f"{name}.Reads"}
    write(
        tmp_path,
        annotator={"class": f"{name}.Dying"},
        judges={"judge": {"class": "annotators.people.gold.GoldAnnotator"}},
        methods={"learns": learns},
        reward_model=None,
        sizes={"pairs": rows, "prompts": 20, "evaluation": 10, "samples": 2},
    )

    def paid() -> float:
        plan = StudyRunner(experiment.load("table.yaml"), Path("run")).plans[0]
        return sum(plan.artifacts.paid(node.name, node.key) for node in plan.graph.values() if node.pays)

    dying = importlib.import_module(name).Dying
    dying.dies_at.append(dies_at)
    with pytest.raises(KeyboardInterrupt):
        go(100.0)
    assert (sum(dying.asked), paid()) == (dies_at, 0.25 * dies_at)
    assert not go(100.0).failures
    assert (sum(dying.asked), paid()) == (rows, 0.25 * rows)
    asked = list(dying.asked)
    monkeypatch.setenv("FARM_HOME", str(tmp_path / "home-2"))
    go(None, out="run-2")
    assert sum(dying.asked) == 2 * sum(asked)
    same(tmp_path / "run", tmp_path / "run-2")


def test_a_budget_needs_a_price(tmp_path: Path, server: FaultServer) -> None:
    unknown = {**judge(server), "model": "openai/unheard-of", "base_url": "https://gateway.example.com/v1"}
    paid(tmp_path, server, annotator=unknown)
    with pytest.raises(UserError, match="no price is known"):
        go(1.0)
    assert not server.answered


def test_a_judge_of_outputs_keeps_to_the_budget(tmp_path: Path, server: FaultServer) -> None:
    outputs, base = (
        [{"instruction": f"question {i}", "output": text * (i + 1), "generator": who} for i in range(60)]
        for who, text in (("one", "good "), ("base", "bad "))
    )
    (tmp_path / "judge.yaml").write_text(yaml.safe_dump(judge(server)))
    with pytest.raises(OverBudget, match=r"about \$\d"):
        farm.evaluate(outputs, judge="judge.yaml", baseline=base, budget=1.0, concurrency=4)
    assert 10 <= len(server.answered) <= 1.0 / VERDICT
    for _ in range(2):  # verdicts that are kept whole count as much as answers
        found = farm.evaluate(outputs, judge="judge.yaml", baseline=base, budget=10.0)
        assert found is not None
        assert len(set(server.answered)) == len(server.answered) == 60
    names = {"generator_1": "base", "generator_2": "one", "annotator": "people"}
    judged = [{"instruction": "q", "output_1": "a", "output_2": "b", "preference": 2.0, **names}]
    with pytest.raises(UserError, match="limits belong to a judge"):
        farm.evaluate(judged, budget=1.0)


# --- the scheduler ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pays:
    """Finds an answer of so many dollars in the store; picklable."""

    name: str
    dollars: float

    def __call__(self, place: Place) -> None:
        purse = current()
        assert purse is not None
        purse.ledger.known(self.name.encode(), min(self.dollars, purse.limits.budget or 0.0))
        if self.dollars > (purse.limits.budget or 0.0):
            raise OverBudget(self.dollars - purse.ledger.spent)


def paying(*dollars: float) -> Graph:
    names = "abcdef"[: len(dollars)]
    return {k: Node(k, k, "annotation", Pays(k, d), pays=True) for k, d in zip(names, dollars, strict=True)}


def test_what_is_left_goes_from_stage_to_stage_and_from_run_to_run(tmp_path: Path) -> None:
    graph, artifacts = paying(1.0, 3.0, 1.0), Artifacts(tmp_path)
    account = opened(Limits(budget=2.5), graph, artifacts)
    results = schedule(graph, artifacts, Here(tmp_path), account=account)
    assert (results.made, account.paid) == ({"a"}, {"a": 1.0, "b": 1.5, "c": 0.0})
    assert results.failures["b"].lacks == pytest.approx(1.5)
    assert results.failures["c"].because == "b", "what is left is not frittered away"
    with pytest.raises(Fruitless, match=r"\$2.50 ends in the stage b: \$2.50 is spent, and about \$1.50 more"):
        check_budget(results, account)
    again = opened(Limits(budget=5.0), graph, artifacts)
    assert again.paid == {"a": 1.0, "b": 1.5, "c": 0.0}, "of an unfinished stage, too"
    assert not schedule(graph, artifacts, Here(tmp_path), account=again).failures
    assert again.paid == {"a": 1.0, "b": 3.0, "c": 1.0}


def test_a_process_that_is_killed_leaves_what_it_paid(tmp_path: Path) -> None:
    def work(place: Place) -> None:
        purse = current()
        assert purse is not None
        purse.ledger.settle(0.0, 0.5)
        purse.ledger.settle(0.0, 0.25, 0.05)
        os.kill(os.getpid(), signal.SIGKILL)

    artifacts, limits = Artifacts(tmp_path), Limits(budget=2.0)
    child = multiprocessing.get_context("fork").Process(
        target=lambda: artifacts.make("a", "a", Paying(work, limits), {}, False)
    )
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert artifacts.paid("a", "a") == pytest.approx(0.8)
    account = opened(limits, paying(1.0, 3.0), artifacts)
    assert account.left("b").budget == pytest.approx(1.2), "another stage gets what is left"


class Waits:
    """An engine whose stages end one at a time, the first begun first."""

    slots = 8

    def __init__(self) -> None:
        self.running: list[str] = []
        self.together: list[set[str]] = []

    def start(self, node: Node, again: bool, limits: Limits, alone: bool = False) -> None:
        self.running.append(node.key)
        self.together.append(set(self.running))

    def finished(self) -> list[Outcome]:
        return [Outcome(self.running.pop(0), paid=0.5)]

    def close(self) -> None:
        pass


@pytest.mark.parametrize("limits", [Limits(), Limits(budget=9.0), Limits(requests_per_minute=10.0)])
def test_stages_that_may_pay_take_turns_within_limits(tmp_path: Path, limits: Limits) -> None:
    free = {k: Node(k, k, "method", Pays(k, 0.0)) for k in "xyz"}
    graph, engine = {**paying(1.0, 1.0, 1.0), **free}, Waits()
    results = schedule(graph, Artifacts(tmp_path), engine, account=opened(limits, graph, Artifacts(tmp_path)))
    assert results.made == set("abcxyz")
    most = max(len(running & set("abc")) for running in engine.together)
    assert most == (3 if limits == Limits() else 1)
    assert any(set("xyz") <= running for running in engine.together), "the others need not wait"


def test_ray_is_handed_what_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[tuple[Any, ...]] = []

    def remote(function: Any) -> Any:
        def run(*arguments: Any) -> Any:
            handed.append((function, *arguments))
            return object()

        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=run))

    monkeypatch.setitem(
        sys.modules, "ray", SimpleNamespace(is_initialized=lambda: True, cluster_resources=dict, remote=remote)
    )
    monkeypatch.setenv("FARM_STORE", str(tmp_path / "store.sqlite"))
    monkeypatch.chdir(tmp_path)
    from farm.scheduling.on_ray import OnRay

    graph = paying(3.0)
    account = opened(Limits(budget=2.0, concurrency=3), graph, Artifacts(tmp_path / "home" / "artifacts"))
    OnRay(tmp_path / "home" / "artifacts").start(graph["a"], False, account.left("a"))
    [(made, *arguments)] = handed
    assert Limits(budget=2.0, concurrency=3, whole=True) in arguments
    outcome = made(*arguments)  # as a process of the cluster would
    assert (outcome.paid, outcome.lacks) == (2.0, 1.0)
