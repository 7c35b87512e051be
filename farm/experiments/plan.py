"""Which stages an experiment has: a graph whose keys are known before anything is made.

A stage's key is the address of what it declares (:mod:`farm.experiments.stages`), of the keys of the stages that it
reads, and of the code that makes it. The plan starts at what is wanted and walks what each stage reads.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from farm.base import rng
from farm.base.errors import Alarm, UserError, nearest
from farm.experiments import room
from farm.experiments.experiment import Experiment, Resources
from farm.experiments.setting import SFT, Setting
from farm.experiments.stages import kinds
from farm.experiments.stages.accuracy import AccuracyStage
from farm.experiments.stages.answers import Answers
from farm.experiments.stages.computed import Computed
from farm.experiments.stages.dialogues import Dialogues
from farm.experiments.stages.feedback import FeedbackStage
from farm.experiments.stages.judgement import Judgement
from farm.experiments.stages.stage import Size, Stage, StageContext
from farm.scheduling.graph import Graph, Node
from farm.storage.artifacts import Artifacts, Place
from farm.storage.code_digest import file_digest
from farm.storage.store import Store, address, canonical, home

_MOVED = {"pairs": "responses", "annotation": "feedback", "reward model": "model", "preference model": "model"}
"""kinds of stages of the first edition -> what they are called now"""


class Plan:
    """The stages of one experiment."""

    def __init__(self, experiment: Experiment, origin: str) -> None:
        known = [*kinds(), *experiment.methods]
        for name in experiment.resources:
            if name in _MOVED:
                raise UserError(f"{origin}: `{name}` of resources is called `{_MOVED[name]}` now")
            if name not in known:
                raise UserError(f"{origin}: unknown key `{name}` of resources; {nearest(name, known)}")
        self.experiment, self.origin = experiment, origin
        self.artifacts = Artifacts(home() / "artifacts")
        self.setting = Setting(experiment, origin, Store(store_path()))
        self._nodes: dict[Stage, Node] = {}
        self._text = experiment.model_dump_json(by_alias=True)

    @property
    def names(self) -> tuple[str, ...]:
        """The rows of the leaderboard: SFT and the methods."""
        return (SFT, *self.experiment.methods)

    @cached_property
    def wanted(self) -> Sequence[Stage]:
        """What the tables are made of."""
        if self.experiment.compute is not None:
            return [Computed(self.setting)]
        answers: list[Stage] = [Answers(self.setting, name) for name in self.names]
        if self.experiment.user is not None:
            answers += [Dialogues(self.setting, name) for name in self.names]
        judged = [Judgement(self.setting, r, name) for r in self.experiment.judges for name in self.names]
        accuracy = [AccuracyStage(self.setting)] if self.experiment.accuracy and self.setting.models_needed else []
        return [*answers, *judged, *accuracy]

    @cached_property
    def stages(self) -> dict[str, Stage]:
        """key -> stage, those that are read before those that read them."""
        for stage in self.wanted:
            self.node(stage)
        _remember(self)
        return {node.key: stage for stage, node in self._nodes.items()}

    @property
    def graph(self) -> Graph:
        """The same as nodes, which other processes can be given."""
        return {key: self._nodes[stage] for key, stage in self.stages.items()}

    @property
    def feedback(self) -> dict[str, FeedbackStage]:
        """Kind -> the stage of it, of those that something learns from."""
        return {stage.of: stage for stage in self.stages.values() if isinstance(stage, FeedbackStage)}

    def warn_of_unused(self) -> None:
        """An alarm for each kind of feedback that the experiment names and nothing learns from."""
        asked = frozenset[str]().union(*self.setting.asks.values())
        for kind in self.experiment.feedback:
            if kind not in self.feedback and kind not in asked:
                said = f"{self.origin}: feedback.{kind}: no method or model here needs {kind}, so none are made"
                warnings.warn(said, Alarm, stacklevel=2)

    @property
    def device_lines(self) -> list[str]:
        """What it runs on, and what of it fits there (:mod:`farm.experiments.room`)."""
        trained = {node.name: node.processes for node in self.graph.values() if node.trains}
        return room.lines(self.setting.description, trained)

    def node(self, stage: Stage) -> Node:
        """A stage with its key; what it reads comes before it."""
        if stage not in self._nodes:
            needs = tuple(dict.fromkeys(self.node(read).key for read in stage.reads()))
            self._nodes[stage] = self._node(stage, needs)
        return self._nodes[stage]

    def folder(self, stage: Stage) -> Path:
        """Where a stage is when it is done."""
        node = self.node(stage)
        return self.artifacts.folder(node.name, node.key)

    def make(self, key: str, place: Place) -> dict[str, Any] | None:
        """Make one stage of the graph; those that it reads must be done."""
        if key not in self.stages:
            raise UserError("the source of a class has changed since the run began; repeat the command")
        return self.stages[key].make(StageContext(place, self.folder))

    def without_texts(self) -> None:
        """Plan as if the world's texts were unknown, for a dry run where they cannot be had; nothing then is done."""
        self.setting.texts = ""

    @property
    def digest(self) -> int:
        """Of all that the experiment says."""
        return rng.text_id(canonical(self.setting.description))

    def _node(self, stage: Stage, needs: tuple[str, ...]) -> Node:
        label, size, resources = stage.label(), stage.size(), self._resources(stage)
        description = {**stage.describe(), "reads": needs, "stage": file_digest(type(stage).__module__)}
        key = self.artifacts.key(label, description)
        return Node(
            name=label,
            key=key,
            kind=stage.kind,
            work=StageWork(self._text, self.origin, key),
            needs=needs,
            facts={**self._alike(stage, size), "units": size.units, "description": description},
            method=stage.method,
            units=size.units,
            texts=size.texts,
            trains=stage.trains,
            pays=size.asks is not None or size.asks_while_learning,
            cpus=resources.cpus,
            gpus=resources.gpus,
            models=size.asks is None and getattr(self.setting.world, "device", None) != "cpu",
            processes=resources.together if stage.trains else 1,
        )

    def _resources(self, stage: Stage) -> Resources:
        given = self.experiment.resources
        return given.get(stage.method or "", given.get(stage.kind, Resources()))

    def _alike(self, stage: Stage, size: Size) -> dict[str, Any]:
        """By what estimates compare it with earlier stages."""
        world = self.setting.description["world"]
        return {
            "kind": stage.kind,
            "world": address(world).hex(),
            "class": size.like.get("class") if isinstance(size.like, dict) else None,
            "like": address(stage.kind, world, size.like).hex(),
            "seed": self.experiment.seed,
        }


def store_path() -> Path:
    """The store of answers: one file, or one a machine where several share the folder (FARM_STORE)."""
    import os

    return Path(os.environ.get("FARM_STORE") or home() / "store.sqlite")


# --- the same stage in another process --------------------------------------------------------------------------------

_KNOWN: dict[tuple[str, str, str], Plan] = {}
_MOST = 8


def _remember(plan: Plan) -> None:
    while len(_KNOWN) >= _MOST:
        _KNOWN.pop(next(iter(_KNOWN)))
    _KNOWN[plan._text, plan.origin, str(plan.artifacts.root)] = plan


@dataclass(frozen=True)
class StageWork:
    """One stage of an experiment as something that can be sent to another process: the plan is made again there."""

    experiment: str
    """as JSON"""
    origin: str
    key: str

    def __call__(self, place: Place) -> dict[str, Any] | None:
        plan = self._known() or Plan(Experiment.model_validate(json.loads(self.experiment)), self.origin)
        return plan.make(self.key, place)

    def release(self) -> None:
        """Let go of the models that this process has kept for its next stages: others need the room."""
        if (plan := self._known()) is not None:
            plan.setting.release()

    def _known(self) -> Plan | None:
        return _KNOWN.get((self.experiment, self.origin, str(home() / "artifacts")))
