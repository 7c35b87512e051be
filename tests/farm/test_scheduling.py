"""The scheduler on graphs of stages that do nothing, and the engine of processes on an experiment in a table."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from farm.asking.limits import Limits
from farm.base.errors import UserError
from farm.experiments import experiment
from farm.experiments import run_status as status
from farm.experiments.running import StudyRunner
from farm.scheduling.environment import search_path
from farm.scheduling.graph import Graph, Node, descendants
from farm.scheduling.here import Here
from farm.scheduling.perform import Outcome
from farm.scheduling.scheduler import schedule
from farm.storage.artifacts import Artifacts, Place
from tests.farm.table_world import environment, finish, same, start, write


@dataclass(frozen=True)
class Nothing:
    """Makes an empty stage; picklable."""

    def __call__(self, place: Place) -> None:
        return None


@dataclass(frozen=True)
class Fails:
    def __call__(self, place: Place) -> None:
        raise UserError("no luck")


class Instant:
    """An engine in which every stage is done at once, without files."""

    slots = 64

    def __init__(self) -> None:
        self.order: list[str] = []
        self._done: list[Outcome] = []

    def start(self, node: Node, again: bool, limits: Limits, alone: bool = False) -> None:
        self.order.append(node.key)
        self._done.append(Outcome(node.key))

    def finished(self) -> list[Outcome]:
        out, self._done = self._done, []
        return out

    def close(self) -> None:
        pass


def chain_graph(width: int, depth: int) -> Graph:
    """``width`` chains of ``depth`` stages that share their first, and one at the end that needs all."""
    graph: Graph = {"root": Node("root", "root", "sft", Nothing())}
    for i in range(width):
        before = "root"
        for d in range(depth):
            key = f"{i}-{d}"
            graph[key] = Node(key, key, "method", Nothing(), (before,))
            before = key
    last = tuple(f"{i}-{depth - 1}" for i in range(width))
    graph["end"] = Node("end", "end", "judgement", Nothing(), last)
    return graph


def test_ten_thousand_stages_take_seconds(tmp_path: Path) -> None:
    graph = chain_graph(2500, 4)
    assert len(graph) > 10_000
    engine = Instant()
    started = time.process_time()
    file = status.StatusFile(tmp_path / "run", "many", graph, Artifacts(tmp_path / "artifacts"), engine.slots)
    results = schedule(graph, Artifacts(tmp_path / "artifacts"), engine, watch=file.watch)
    file.end("finished")
    assert time.process_time() - started < 10
    assert len(results.made) == len(graph)
    place = {key: n for n, key in enumerate(engine.order)}
    assert all(place[need] < place[key] for key, node in graph.items() for need in node.needs)


def test_a_failure_stops_only_what_is_made_from_it(tmp_path: Path) -> None:
    graph = chain_graph(3, 2)
    graph["1-0"] = Node("1-0", "1-0", "method", Fails(), ("root",))
    results = schedule(graph, Artifacts(tmp_path), Here(tmp_path))
    assert set(results.failures) == {"1-0", "1-1", "end"}
    assert results.failures["1-1"].reason == "1-0 failed: no luck"
    assert results.failures["end"].because == "1-0"
    again = schedule(graph, Artifacts(tmp_path), Here(tmp_path))
    assert again.made == set()
    assert again.found == {"root", "0-0", "0-1", "2-0", "2-1"}


def test_what_is_forced_is_made_again_with_all_that_follows(tmp_path: Path) -> None:
    graph = chain_graph(2, 2)
    schedule(graph, Artifacts(tmp_path), Here(tmp_path))
    again = descendants(graph, ["1-0"])
    assert again == {"1-0", "1-1", "end"}
    assert schedule(graph, Artifacts(tmp_path), Here(tmp_path), again).made == again


def test_processes_and_this_process_give_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for engine, workers in (("here", None), ("local", 2)):
        monkeypatch.setenv("FARM_HOME", str(tmp_path / f"home-{engine}"))
        StudyRunner(experiment.load("table.yaml"), Path(f"run-{engine}")).go(engine, workers)
    same(tmp_path / "run-here", tmp_path / "run-local")


@pytest.mark.slow
def test_a_process_that_dies_costs_one_attempt_and_then_its_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    once, always = ({"class": "methods_for_test.Dying", "always": a} for a in (False, True))
    write(tmp_path, methods={"once": once, "always": always, "best_of_n": {"use": "best_of_n", "n": 2}})
    monkeypatch.chdir(tmp_path)
    run = StudyRunner(experiment.load("table.yaml"), Path("run")).go("local", 2)
    assert [f["method"] for f in run.failures] == ["always"]
    assert "was killed by SIGKILL, 2 times" in run.failures[0]["reason"]
    assert set(run.leaderboard["method"]) == {"sft", "once", "best_of_n"}


def running(process: psutil.Process) -> bool:
    """Whether it still computes; one that has ended may be listed until somebody asks how."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_workers_go_when_the_run_is_killed(tmp_path: Path) -> None:
    write(tmp_path, methods={"slow": {"class": "methods_for_test.Stepping", "steps": 1000}})
    process = start(tmp_path, "home", "--out", "run", "--engine", "local", "--workers", "1")
    mark = "slow-*.partial/checkpoints/steps"
    while process.poll() is None and not list((tmp_path / "home" / "artifacts").glob(mark)):
        time.sleep(0.02)
    for _ in range(10):  # the run writes down what is under way a little after the stage begins
        shown, _ = finish(start(tmp_path, "home", "run", command="status"))
        if "now      slow" in shown:
            break
    assert "table: running" in shown
    assert "now      slow" in shown
    workers = psutil.Process(process.pid).children(recursive=True)
    assert workers
    process.kill()
    process.communicate()
    while any(map(running, workers)):  # the time limit of all tests ends this one if they do not go
        time.sleep(0.05)
    before = next((tmp_path / "home" / "artifacts").glob(mark)).read_text()
    shown, _ = finish(start(tmp_path, "home", "run", command="status"))
    assert "table: stopped; the same command goes on" in shown
    assert int(before) > 0


def test_a_file_in_the_current_folder_takes_no_packages_place_in_workers(tmp_path: Path) -> None:
    """A user's module beside the YAML is found, by its folder; numpy.py in the folder where the run starts is not."""
    (tmp_path / "study").mkdir()
    write(tmp_path / "study", methods={"best_of_n": {"use": "best_of_n", "n": 2}})
    (tmp_path / "numpy.py").write_text("import pathlib\npathlib.Path('was_run').touch()\nraise ImportError('mine')\n")
    code = (
        "from pathlib import Path\nfrom farm.experiments import experiment\n"
        "from farm.experiments.running import StudyRunner\n"
        "StudyRunner(experiment.load('study/table.yaml'), Path('run')).go('local', 1)\n"
    )
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment(tmp_path, "home"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "was_run").exists()
    assert (tmp_path / "run" / "leaderboard.json").exists()


def test_a_notebooks_folder_is_looked_at_last(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", "/first", "/second"])
    assert search_path().split(os.pathsep) == ["/first", "/second", str(tmp_path)]
    monkeypatch.setattr(sys, "path", ["/first"])
    assert search_path() == "/first"


class _Ray:
    """Stands for the package ray: keeps what a task is started with."""

    def __init__(self) -> None:
        self.options: list[dict[str, Any]] = []

    def is_initialized(self) -> bool:
        return True

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 1.0}

    def remote(self, function: object) -> Any:
        def options(**given: object) -> Any:
            self.options.append(given)
            return SimpleNamespace(remote=lambda *arguments: object())

        return SimpleNamespace(options=options)


def test_rays_workers_ask_the_servers_that_are_meant_and_get_no_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = _Ray()
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.chdir(tmp_path)
    meant = {
        "OPENAI_BASE_URL": "http://127.0.0.1:1/v1",
        "ANTHROPIC_BASE_URL": "http://127.0.0.1:2",
        "HF_ENDPOINT": "http://127.0.0.1:3",
        "FARM_PRICES": "prices.yaml",
        "HF_HOME": str(tmp_path / "hf"),
    }
    keys = {"OPENAI_API_KEY": "sk-1", "ANTHROPIC_API_KEY": "sk-2", "HF_TOKEN": "hf_3", "MY_GATEWAY_KEY": "sk-4"}
    for name, value in {**meant, **keys}.items():
        monkeypatch.setenv(name, value)
    from farm.scheduling.on_ray import OnRay

    OnRay(tmp_path / "home" / "artifacts").start(Node("a", "a", "sft", Nothing()), False, Limits())
    sent = ray.options[0]["runtime_env"]["env_vars"]
    assert {name: sent[name] for name in meant} == {**meant, "FARM_PRICES": str(tmp_path / "prices.yaml")}
    assert not any(key in str(ray.options) for key in keys.values())
    monkeypatch.setenv("OPENAI_BASE_URL", "https://me:secret@gateway.example/v1")
    with pytest.raises(UserError, match="`OPENAI_BASE_URL` must not hold a user or a password") as caught:
        OnRay(tmp_path / "home" / "artifacts").start(Node("a", "a", "sft", Nothing()), False, Limits())
    assert "secret" not in str(caught.value)
