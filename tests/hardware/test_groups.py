"""A stage over several devices: who waits for whom, what each process sees, and that a group learns what one does."""

from __future__ import annotations

import json
import sys
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch

from farm.asking.limits import Limits
from farm.base import platforms
from farm.experiments import experiment
from farm.experiments.running import StudyRunner
from farm.hardware import processes
from farm.hardware.device import device, using
from farm.scheduling import engines, in_step, local, together
from farm.scheduling.graph import Node
from farm.scheduling.local import Local
from farm.scheduling.perform import Outcome
from farm.storage.artifacts import Place
from tests.farm.table_world import write


@dataclass(frozen=True)
class Nothing:
    def __call__(self, place: Place) -> None:
        (place.folder / "made").write_text("x")


def stage(name: str, **more: Any) -> Node:
    return Node(name, name * 16, "method", Nothing(), trains=True, models=True, **more)


def test_a_stage_that_holds_a_model_has_a_gpu_where_there_are_any() -> None:
    assert stage("a").gpus_of(8) == 1 and stage("a").gpus_of(0) == 0
    assert stage("a", gpus=0).gpus_of(8) == 0 and stage("a", gpus=4).gpus_of(8) == 4
    assert stage("a", processes=2).gpus_of(8) == 2
    assert Node("b", "b", "annotation", Nothing()).gpus_of(8) == 0


@pytest.mark.parametrize(
    ("visible", "world", "expected"),
    [("0,1,2", None, 3), ("", None, None), ("-1", None, None), ("0,1,2", "cpu", None)],
    ids=["three GPUs", "no GPU", "GPUs that are hidden", "a world that stays on the processor"],
)
def test_as_many_stages_at_once_as_gpus(
    visible: str, world: str | None, expected: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    node = replace(stage("a"), models=world != "cpu")
    assert engines.places({"a": node}) == (expected or platforms.cores())


class Process:
    """Stands for a worker: what it was started with, and that it was ended."""

    def __init__(self, command: list[str], env: dict[str, str], **_: Any) -> None:
        self.gpus, self.ended = env["CUDA_VISIBLE_DEVICES"], False

    def kill(self) -> None:
        self.ended = True

    def wait(self) -> int:
        return 0


def test_each_worker_has_gpus_of_its_own_and_a_large_stage_waits_for_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Process] = []

    def popen(*given: Any, **more: Any) -> Process:
        started.append(Process(*given, **more))
        return started[-1]

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    monkeypatch.setattr(local.subprocess, "Popen", popen)
    here = Local(tmp_path, workers=3)

    def begin(*nodes: Node) -> None:
        for node in nodes:
            here.start(node, False, Limits())

    def busy() -> dict[str, str]:
        return {w.task.node.name: w.process.gpus for w in here._workers if w.task is not None}  # type: ignore[attr-defined]

    def end(name: str) -> None:
        next(w for w in here._workers if w.task is not None and w.task.node.name == name).task = None
        here._begin_what_fits()

    begin(stage("a"), stage("b"))
    assert busy() == {"a": "4", "b": "5"}
    begin(stage("c", gpus=2, processes=2), stage("d"))
    assert busy() == {"a": "4", "b": "5"}  # the large one waits for two, and what came later does not overtake it
    end("a")
    assert busy() == {"b": "5", "c": "4,6"} and started[0].ended  # the idle worker kept its models on GPU 4
    end("c")
    assert busy()["d"] in ("4", "6")
    here.close()
    assert all(process.ended for process in started)


def test_what_is_not_there_is_refused_in_one_sentence() -> None:
    four = stage("a", gpus=4, processes=4)
    assert together.refusal(four, Limits(), 4) is None
    assert "on 4 GPUs, and this machine has one GPU" in str(together.refusal(four, Limits(), 1))
    assert "no GPU" in str(together.refusal(four, Limits(), 0))
    assert together.refusal(stage("a", gpus=0, processes=4), Limits(), 0) is None
    assert together.refusal(stage("a", processes=2), Limits(), 0) is None
    assert "2 GPUs" in str(together.refusal(stage("a", processes=2), Limits(), 1))
    assert together.refusal(replace(stage("a", processes=2), models=False), Limits(), 1) is None  # of a tiny world
    assert "limits hold in one process" in str(together.refusal(replace(four, pays=True), Limits(budget=1.0), 4))


def test_a_group_finds_the_gpus_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A vLLM that had sampled for an earlier stage kept its share of the first."""
    ended: list[str] = []
    monkeypatch.setitem(sys.modules, "farm.engines.vllm", SimpleNamespace(stop=lambda: ended.append("vLLM")))
    work: Any = SimpleNamespace(release=lambda: ended.append("models"))
    together._make_room(replace(stage("a"), work=work))
    assert ended == ["models", "vLLM"]


def test_all_of_a_group_without_gpus_put_their_models_on_the_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first did, and the others took the GPU: each waited for the other."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    seen: list[str] = []
    for gpus in (0, 1):
        node = replace(stage("a", gpus=gpus, processes=2), work=lambda place: seen.append(device().type))
        in_step._take_part(tmp_path, node)
    assert seen == ["cpu", "cuda"]


@pytest.mark.parametrize("others", ["meet it too", "wait in the stage"])
def test_a_defect_that_all_meet_is_reported_and_one_that_one_meets_ends_it(
    others: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An alarm ended the followers before the first could say it; a defect of the first alone made all wait."""
    ended, waiting = threading.Event(), others == "wait in the stage"
    monkeypatch.setattr(in_step, "follows", lambda: True)
    monkeypatch.setattr(in_step, "PATIENCE", 0.01 if waiting else 600.0)
    monkeypatch.setattr(in_step.os, "_exit", lambda status: ended.set())
    said = [b"trains", json.dumps({"key": "a", "error": "RuntimeError: an alarm"}).encode()]

    def from_first(message: bytes) -> bytes:
        assert not waiting or len(said) == 2 or ended.wait(60)
        return said.pop(0)

    def alarmed(place: Place) -> None:
        raise RuntimeError("an alarm")

    monkeypatch.setattr(processes, "from_first", from_first)
    found = in_step.made_in_step(tmp_path, replace(stage("a"), work=alarmed), False, Limits())
    assert found == Outcome("a", "RuntimeError: an alarm") and ended.is_set() is waiting


def test_a_stage_that_another_run_has_made_meanwhile_is_trained_by_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first process found it and went on; the others trained, and waited in the first update for ever."""
    said: list[bytes] = []

    def from_first(message: bytes) -> bytes:
        said.append(message)
        return message

    monkeypatch.setattr(processes, "from_first", from_first)
    for found in (False, True):
        assert in_step.made_in_step(tmp_path, stage("a"), False, Limits()) == Outcome("a" * 16, found=found)
    trains, _, nobody, outcome = said
    assert trains and not nobody
    monkeypatch.setattr(in_step, "follows", lambda: True)
    monkeypatch.setattr(in_step, "_take_part", lambda *given: pytest.fail("it trained alone"))
    answers = [nobody, outcome]
    monkeypatch.setattr(processes, "from_first", lambda message: answers.pop(0))
    assert in_step.made_in_step(tmp_path, stage("a"), False, Limits()).found and not answers


def test_one_worker_gives_a_large_stage_all_the_gpus_that_it_asks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It saw one of the four, and was refused for want of the others."""
    started: list[dict[str, str]] = []

    def popen(command: list[str], env: dict[str, str], **more: Any) -> Process:
        started.append(env)
        return Process(command, env, **more)

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(local.subprocess, "Popen", popen)
    here = Local(tmp_path, workers=1)
    here.start(stage("large", gpus=4, processes=4), False, Limits())
    assert [env["CUDA_VISIBLE_DEVICES"] for env in started] == ["0,1,2,3"] and here.slots == 1
    assert started[0]["OMP_NUM_THREADS"] == str(here.threads)  # the one worker has all cores already
    here.close()


def test_a_group_without_gpus_may_be_larger_than_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    began: list[str] = []
    monkeypatch.setattr(processes.dist, "init_process_group", lambda back_end, **_: began.append(back_end))
    with using("cpu"):
        processes.start()
    assert began == ["gloo"]


METHODS = '''
import os
import signal
from dataclasses import dataclass, replace
from reference_methods.pairs.dpo import DPO

@dataclass(frozen=True, kw_only=True)
class Killed(DPO):
    """Its first process is killed in the third step of the first attempt."""
    def train(self, learning):
        mark = learning.checkpoints / "killed"
        def log(metrics):
            learning.log(metrics)
            if metrics["step"] == 2 and not mark.exists():
                mark.write_text("x")
                os.kill(os.getpid(), signal.SIGKILL)
        return super().train(replace(learning, log=log))
'''
DPO = {"learning_rate": 0.1, "batch_size": 64, "epochs": 1, "checkpoint_minutes": 0}


def tables(place: Path, name: str, engine: str, workers: int | None, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("FARM_HOME", str(place / f"home-{name}"))
    run = StudyRunner(experiment.load("table.yaml"), Path(f"run-{name}")).go(engine, workers)
    assert not run.failures
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    learnt = pd.DataFrame([line for line in lines if line["method"] == "dpo"])
    return run.leaderboard, learnt[["step", "loss", "margin", "gradient_norm"]]  # rounding decides ties of `accuracy`


def compare(one: Any, other: Any) -> None:
    for first, second in zip(one, other, strict=True):
        pd.testing.assert_frame_equal(first, second, atol=1e-4, rtol=1e-4, check_exact=False)


@pytest.mark.slow
def test_two_processes_learn_what_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, methods={"dpo": {"use": "dpo", **DPO}})
    alone = tables(tmp_path, "alone", "here", None, monkeypatch)
    write(tmp_path, methods={"dpo": {"use": "dpo", **DPO}}, resources={"dpo": {"processes": 2}})
    compare(alone, tables(tmp_path, "group", "here", None, monkeypatch))


@pytest.mark.slow
def test_a_killed_process_costs_one_attempt_and_no_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, methods={"dpo": {"use": "dpo", **DPO}})
    alone = tables(tmp_path, "alone", "here", None, monkeypatch)
    killed = {"class": "killed_for_test.Killed", **DPO}
    write(tmp_path, methods={"dpo": killed}, resources={"dpo": {"processes": 2}})
    (tmp_path / "killed_for_test.py").write_text(METHODS)
    compare(alone, tables(tmp_path, "group", "local", 2, monkeypatch))


class _Ray(ModuleType):
    """Stands for the package ray and its Train: keeps what it is given, and runs a group of one in this process."""

    def __init__(self, gpus: int) -> None:
        super().__init__("ray")
        self.options: list[dict[str, Any]] = []
        self.trainers: list[dict[str, Any]] = []
        self._gpus = gpus

    def is_initialized(self) -> bool:
        return True

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 8.0, **({"GPU": float(self._gpus)} if self._gpus else {})}

    def remote(self, function: Any) -> Any:
        def options(**given: Any) -> Any:
            self.options.append(given)
            return SimpleNamespace(remote=lambda *arguments: Reference(function, arguments))

        return SimpleNamespace(options=options)

    def made(self, reference: Any) -> Outcome:
        found: Outcome = reference.function(*reference.arguments)
        return found


@dataclass(frozen=True, eq=False)
class Reference:
    function: Any
    arguments: Any


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    def load(gpus: int) -> _Ray:
        package = _Ray(gpus)

        class TorchTrainer:
            def __init__(self, loop: Any, **given: Any) -> None:
                self.loop, self.given = loop, given
                package.trainers.append(given)

            def fit(self) -> None:
                self.loop(self.given["train_loop_config"])

        train, torch = ModuleType("ray.train"), ModuleType("ray.train.torch")
        for name in ("FailureConfig", "RunConfig", "ScalingConfig"):
            setattr(train, name, SimpleNamespace)
        torch.TorchConfig, torch.TorchTrainer = SimpleNamespace, TorchTrainer  # type: ignore[attr-defined]
        for name, module in (("ray", package), ("ray.train", train), ("ray.train.torch", torch)):
            monkeypatch.setitem(sys.modules, name, module)
        (tmp_path / "home" / "ray").mkdir(parents=True)
        monkeypatch.chdir(tmp_path)
        return package

    return load


def test_ray_gives_a_gpu_to_what_holds_a_model(ray: Any, tmp_path: Path) -> None:
    from farm.scheduling.on_ray import OnRay

    for gpus, expected in ((8, [1.0, 0.0, 0]), (0, [0.0, 0.0, 0])):
        package = ray(gpus) if gpus else _Ray(0)
        sys.modules["ray"] = package
        cluster = OnRay(tmp_path / "home" / "artifacts")
        for node in (stage("a"), Node("b", "b", "annotation", Nothing()), stage("c", gpus=0)):
            cluster.start(node, False, Limits())
        assert [given["num_gpus"] for given in package.options] == expected


def test_ray_train_makes_a_stage_that_asks_for_several(ray: Any, tmp_path: Path) -> None:
    package = ray(8)
    from farm.scheduling.on_ray import OnRay

    cluster = OnRay(tmp_path / "home" / "artifacts")
    node = stage("a", gpus=4, processes=4, cpus=8)
    cluster.start(node, False, Limits())
    assert package.options[0]["num_gpus"] == package.options[0]["num_cpus"] == 0  # its processes ask for their own
    (reference,) = cluster._running
    assert package.made(reference) == Outcome(node.key)
    given = package.trainers[0]
    assert vars(given["scaling_config"]) == {
        "num_workers": 4,
        "use_gpu": True,
        "resources_per_worker": {"CPU": 2.0, "GPU": 1.0},
    }
    assert given["torch_config"].backend == "cpu:gloo,cuda:nccl"
    assert given["run_config"].failure_config.max_failures == 5
    assert list((tmp_path / "home" / "artifacts").glob("a-*/made"))
    assert not list((tmp_path / "home" / "ray").glob("*.json"))
