"""The order of stages where several are made at once, on graphs whose best order is known."""

import heapq
import os
import random
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from farm.asking.limits import Limits
from farm.roles.work import Texts
from farm.scheduling import local, order, worker
from farm.scheduling.estimate import Estimate
from farm.scheduling.graph import Graph, Node, bottlenecks, descendants
from farm.scheduling.perform import Outcome
from farm.scheduling.scheduler import schedule
from farm.storage.artifacts import Artifacts
from tests.farm.test_scheduling import Nothing

TIMES = {"sft": 4.0, "feedme": 2.0, "model": 2.0, "search": 3.0, "ppo": 5.0, "answers": 1.0}
NEEDS = {"feedme": ("sft",), "model": ("sft",), "search": ("model",), "ppo": ("model",), "answers": ("ppo",)}


def graph_of(names: Mapping[str, float]) -> Graph:
    return {name: Node(name, name, "stage", Nothing(), NEEDS.get(name, ())) for name in names}


class Clock:
    """An engine whose stages take the given times, and that keeps when each begins and who is beside it."""

    def __init__(self, times: Mapping[str, float], slots: int) -> None:
        self.times, self.slots, self.now = times, slots, 0.0
        self.began: dict[str, float] = {}
        self.alone: list[str] = []
        self._running: list[tuple[float, str]] = []

    def start(self, node: Node, again: bool, limits: Limits, alone: bool = False) -> None:
        self.began[node.key] = self.now
        self.alone += [node.key] * alone
        heapq.heappush(self._running, (self.now + self.times[node.key], node.key))

    def finished(self) -> list[Outcome]:
        self.now, key = heapq.heappop(self._running)
        return [Outcome(key)]

    def close(self) -> None:
        """Nothing runs."""


def test_the_way_of_a_stage_is_the_longest_to_the_end() -> None:
    ways = order.ways(graph_of(TIMES), TIMES)
    assert ways == {"sft": 12.0, "feedme": 2.0, "model": 8.0, "search": 3.0, "ppo": 6.0, "answers": 1.0}


def test_the_longest_way_goes_first_and_ends_sooner(tmp_path: Path) -> None:
    slow = {**TIMES, "feedme": 6.0}
    graph = graph_of(slow)
    as_they_stand, by_ways = Clock(slow, 2), Clock(slow, 2)
    schedule(graph, Artifacts(tmp_path), as_they_stand)
    assert as_they_stand.began == {"sft": 0, "feedme": 4, "model": 4, "search": 6, "ppo": 9, "answers": 14}
    schedule(graph, Artifacts(tmp_path), by_ways, ways=order.ways(graph, slow))
    assert by_ways.began == {"sft": 0, "model": 4, "feedme": 4, "ppo": 6, "search": 10, "answers": 11}
    assert (as_they_stand.now, by_ways.now) == (15.0, 13.0)


@pytest.mark.parametrize("slots", [1, 2, 3, 8])
def test_the_same_stages_are_made_in_any_order(tmp_path: Path, slots: int) -> None:
    graph = graph_of(TIMES)
    for seed in range(20):
        engine = Clock(TIMES, slots)
        draw = random.Random(seed)
        results = schedule(graph, Artifacts(tmp_path), engine, ways={key: draw.random() for key in graph})
        assert results.made == set(graph)
        assert all(engine.began[n] + TIMES[n] <= engine.began[key] for key, node in graph.items() for n in node.needs)
        assert engine.now >= 12.0  # the longest way: no order is quicker


def test_times_are_seconds_on_record_then_texts_at_their_pace_then_those_of_their_kind() -> None:
    trained, written = Texts(trained=100), Texts(written=50, read=20)
    nodes = {
        "sft": Node("sft", "sft", "sft", Nothing(), texts=trained),
        "dpo": Node("dpo", "dpo", "method", Nothing(), texts=trained),
        "mine": Node("mine", "mine", "method", Nothing()),
        "answers": Node("answers", "answers", "answers", Nothing(), texts=written),
        "judge": Node("judge", "judge", "judgement", Nothing()),
    }
    unknown = order.times(nodes, lambda node: Estimate(None, None))
    assert unknown == {"sft": 300.0, "dpo": 300.0, "mine": 300.0, "answers": 120.0, "judge": 0.0}
    recorded = {"sft": 30.0, "judge": 5.0}
    found = order.times(nodes, lambda node: Estimate(recorded.get(node.key), None))
    assert found == {"sft": 30.0, "dpo": 30.0, "mine": 30.0, "answers": 12.0, "judge": 5.0}


def test_a_stage_beside_which_nothing_can_be_made_is_told_so(tmp_path: Path) -> None:
    engine = Clock(TIMES, 2)
    schedule(graph_of(TIMES), Artifacts(tmp_path), engine)
    assert engine.alone == ["sft"]  # not the answers, which come last as it happens, and may not after an interruption
    chain = {name: NEEDS.get(name, ()) for name in ("sft", "model", "ppo", "answers")}
    engine = Clock(TIMES, 2)
    schedule(graph_of(dict.fromkeys(chain, 1.0)), Artifacts(tmp_path), engine)
    assert engine.alone == ["sft", "model", "ppo", "answers"]


@pytest.mark.parametrize(("said", "threads"), [(None, {"alone": 4, "beside": 2}), ("3", {"alone": 3, "beside": 3})])
def test_a_stage_alone_has_all_cores_unless_the_user_says_how_many_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str | None, threads: dict[str, int]
) -> None:
    sent: list[Any] = []
    environments: list[dict[str, str]] = []

    def popen(*_: Any, env: dict[str, str], **__: Any) -> Any:
        environments.append(env)
        return process

    link = SimpleNamespace(send=sent.append, close=lambda: None, fileno=lambda: 0)
    process = SimpleNamespace(kill=lambda: None, wait=lambda: 0)
    monkeypatch.setattr(local, "Pipe", lambda: (link, link))
    monkeypatch.setattr(local.subprocess, "Popen", popen)
    monkeypatch.setattr(local.platforms, "cores", lambda: 4)
    monkeypatch.setattr(local, "gpus", list)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if said is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
        monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    engine = local.Local(tmp_path, workers=2)
    for name in threads:
        engine.start(Node(name, name, "stage", Nothing()), False, Limits(), name == "alone")
    engine.close()
    assert {node.name: given for _, node, _, _, given in sent} == threads
    assert {env["OMP_WAIT_POLICY"] for env in environments} == {"PASSIVE" if said is None else "ACTIVE"}


def test_a_worker_uses_as_many_threads_as_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    try:
        worker.use(3)
        assert (torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]) == (3, "3")
    finally:
        torch.set_num_threads(before)


def test_what_can_only_be_made_alone_is_comparable_with_all_others() -> None:
    for seed in range(200):
        draw, graph = random.Random(seed), dict[str, Node]()
        for number in range(draw.randint(1, 8)):
            needs = tuple(key for key in graph if draw.random() < 0.5)
            graph[str(number)] = Node(str(number), str(number), "stage", Nothing(), needs)
        made_from = {key: descendants(graph, [key]) for key in graph}
        expected = {a for a in graph if all(a in made_from[b] or b in made_from[a] for b in graph)}
        assert bottlenecks(graph) == expected
