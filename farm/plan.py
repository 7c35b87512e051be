"""Which stages an experiment has: a graph whose keys are known before anything is made.

    sft ─▶ pairs ─▶ annotation ─▶ reward model ─▶ method ─▶ its answers ─▶ the verdict of each judge on them
     └──────────────────────────────────────────────┘
(A preference model may stand beside the reward model, or in its place.)

A stage's key is the address of its description: the specs, sizes and seed that determine it, and the keys of the stages
it reads. :class:`Plan` describes; :class:`farm.stages.Stages` makes.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from farm import config, rng
from farm.artifacts import Artifacts, Place
from farm.errors import Alarm, UserError
from farm.experiment import PLURAL, Experiment, Resources
from farm.graph import Graph, Node
from farm.protocols import Aggregator, Annotator, Evaluator, Method, Reporter, World
from farm.stages import Stages
from farm.store import Store, address, canonical, home

SFT = "sft"
"""The name among the methods of the SFT policy itself"""


class Plan:
    """The stages of one experiment."""

    def __init__(self, experiment: Experiment, origin: str) -> None:
        self.experiment, self.origin = experiment, origin
        self.artifacts = Artifacts(home() / "artifacts")
        self.stages = Stages(experiment, origin, Store(store_path()))
        self.description = describe(experiment, origin)
        self._nodes: Graph = {}
        self._make: dict[str, Callable[[Place], dict[str, Any] | None]] = {}
        self._text = experiment.model_dump_json()

    @cached_property
    def graph(self) -> Graph:
        """All stages, those that are needed before those that need them."""
        assert self.answers
        for role in self.experiment.judges:
            for name in (SFT, *self.experiment.methods):
                self.judgement(role, name)
        _remember(self)
        return self._nodes

    def make(self, key: str, place: Place) -> dict[str, Any] | None:
        """Make one stage of the graph; those that it needs must be done."""
        if key not in self.graph:
            raise UserError("the source of a class has changed since the run began; repeat the command")
        return self._make[key](place)

    def check(self) -> None:
        """Build everything once, so that a mistake in the last judge does not cost the whole training."""
        e = self.experiment
        for name in e.methods:
            self.stages.method(name)
        for role in ("annotator", *e.judges):
            self.stages.annotator(role)
        for spec in (e.sft, e.reward_model, e.preference_model):
            if spec is not None:
                config.build(Method, spec, self.stages.context, self.origin)
        self.evaluator()
        self.reporter()
        self._say_what_is_short()

    def _say_what_is_short(self) -> None:
        """An alarm where the world has fewer held-out instructions than were asked for."""
        e = self.experiment
        there = len(self.stages.world.instructions(e.split, e.sizes.evaluation))
        if there < e.sizes.evaluation and "evaluation" in e.sizes.model_fields_set:
            short = f"`sizes.evaluation` is {e.sizes.evaluation:,}, but the world has {there:,} instructions"
            warnings.warn(f"{self.origin}: {short} in its split {e.split}: all are used", Alarm, stacklevel=2)

    def without_texts(self) -> None:
        """Plan as if the world's texts were unknown, for a dry run where they cannot be had; nothing then is done."""
        self.stages.texts = ""

    def evaluator(self) -> Evaluator:
        return config.build(Evaluator, self.experiment.evaluator, self.stages.context, self.origin)

    def reporter(self) -> Reporter | None:
        e = self.experiment
        return None if e.reporter is None else config.build(Reporter, e.reporter, self.stages.context, self.origin)

    @property
    def digest(self) -> int:
        """Of all that the experiment says."""
        return rng.text_id(canonical(self.description))

    # --- the stages, in order -------------------------------------------------------------------------------------

    @cached_property
    def _sft_description(self) -> dict[str, Any]:
        e = self.experiment
        tuned = e.sft and {"method": self.description["sft"], "n": e.sizes.demonstrations, "seed": e.seed}
        return {"world": self.description["world"], "sft": tuned, "texts": self.stages.texts}

    @cached_property
    def sft(self) -> Node | None:
        """The stage that makes the SFT policy; None where the base policy is used as it is."""
        if self.experiment.sft is None:
            return None
        like = self.description["sft"]
        units = self.experiment.sizes.demonstrations
        return self._add(SFT, "sft", self._sft_description, self.stages.sft, like=like, units=units)

    @cached_property
    def pairs(self) -> Node:
        sizes, temperature = self.experiment.sizes, self.experiment.temperature
        description = {
            **self._sft_description,
            "pairs": sizes.pairs,
            "temperature": temperature,
            "seed": self.experiment.seed,
        }
        sft = self._folder(self.sft)
        return self._add(
            "pairs",
            "pairs",
            description,
            lambda place: self.stages.pairs(place, sft),
            [self.sft],
            units=2 * sizes.pairs,
        )

    @cached_property
    def preferences(self) -> Node:
        """The annotated pairs."""
        pairs = self._path(self.pairs)
        description = {"pairs": self.pairs.key, "annotator": self.description["annotator"]}
        return self._add(
            "annotation",
            "annotation",
            description,
            lambda place: self.stages.annotation(place, pairs),
            [self.pairs],
            like=self.description["annotator"],
            units=self.experiment.sizes.pairs,
        )

    @cached_property
    def reward_model(self) -> Node | None:
        """A reward model fitted to the training feedback; made once, shared by the methods that need it."""
        return self._fitted("reward_model")

    @cached_property
    def preference_model(self) -> Node | None:
        """A preference model fitted to the training feedback; made once, shared likewise."""
        return self._fitted("preference_model")

    def _fitted(self, role: str) -> Node | None:
        if (described := self.description[role]) is None:
            return None
        preferences, sft = self._path(self.preferences), self._folder(self.sft)
        description = {"preferences": self.preferences.key, role: described, "seed": self.experiment.seed}
        name = role.replace("_", " ")
        return self._add(
            name,
            name,
            description,
            lambda place: self.stages.fitted(place, role, sft, preferences),
            [self.sft, self.preferences],
            like=described,
            units=self.experiment.sizes.pairs,
        )

    def method(self, name: str) -> Node:
        """The training of one method."""
        e, needs = self.experiment, self.stages.method(name).needs
        models: dict[str, Node] = {}
        for role in sorted(needs & {"reward_model", "preference_model"}):
            if (model := getattr(self, role)) is None:
                raise UserError(f"{self.origin}: the method {name} needs `{role}`, which is null")
            models[role] = model
        preferences = self.preferences if "preferences" in needs else None
        description = {
            **self._sft_description,
            "method": self.description["methods"][name],
            "preferences": preferences.key if preferences else None,
            "models": {role: model.key for role, model in models.items()},
            "annotator": self.description["annotator"] if "annotator" in needs else None,
            "prompts": e.sizes.prompts,
            "pairs": e.sizes.pairs,
            "seed": e.seed,
        }
        sft, told = self._folder(self.sft), self._folder(preferences)
        folders = {role: self._path(model) for role, model in models.items()}
        return self._add(
            name,
            "method",
            description,
            lambda place: self.stages.train(place, name, sft, told, folders),
            [self.sft, preferences, *models.values()],
            method=name,
            like=[self.description["methods"][name], e.sizes.model_dump()],
        )

    @cached_property
    def answers(self) -> dict[str, Node]:
        """The answers of the SFT policy and of every method."""
        return {name: self._answers(name) for name in (SFT, *self.experiment.methods)}

    @cached_property
    def _proxy(self) -> Node | None:
        """The reward model whose scores stand beside the answers; none is fitted for that alone."""
        needed = any("reward_model" in self.stages.method(name).needs for name in self.experiment.methods)
        return self.reward_model if needed else None

    def _answered(self, name: str) -> dict[str, Any]:
        """What determines the texts of a policy's answers."""
        e, trained = self.experiment, self.sft if name == SFT else self.method(name)
        asked = {"n": e.sizes.evaluation, "samples": e.sizes.samples, "split": e.split, "t": e.answer_temperature}
        return {"policy": trained.key if trained else self._sft_description, "asked": asked, "seed": e.seed}

    def _answers(self, name: str) -> Node:
        e, scorer = self.experiment, self._proxy
        trained = self.sft if name == SFT else self.method(name)
        description = {**self._answered(name), "proxy": scorer.key if scorer else None}
        policy, sft, proxy = self._folder(trained), self._folder(self.sft), self._folder(scorer)
        return self._add(
            f"{name} answers",
            "answers",
            description,
            lambda place: self.stages.answers(place, name, policy, sft, proxy),
            [trained, self.sft, scorer],
            method=None if name == SFT else name,
            like=self.description["methods"].get(name),
            units=e.sizes.evaluation * e.sizes.samples,
        )

    def judgement(self, role: str, name: str) -> Node:
        """The verdicts of one judge on the answers of one method."""
        answers, baseline = self.answers[name], self.answers[SFT]
        description = {
            "answers": self._answered(name),
            "baseline": self._answered(SFT),
            "judge": self.description["judges"][role],
            "least_verdicts": self.experiment.least_verdicts,
            "seed": self.experiment.seed,
        }
        shown, against = self._path(answers), self._path(baseline)
        return self._add(
            f"{role} judges {name}",
            "judgement",
            description,
            lambda place: self.stages.judgement(place, role, name, shown, against),
            [answers, baseline],
            method=None if name == SFT else name,
            like=self.description["judges"][role],
            units=self.experiment.sizes.evaluation * self.experiment.sizes.samples,
        )

    # --- parts ----------------------------------------------------------------------------------------------------

    def _path(self, node: Node) -> Path:
        return self.artifacts.folder(node.name, node.key)

    def _folder(self, node: Node | None) -> Path | None:
        return None if node is None else self._path(node)

    def _add(
        self,
        name: str,
        kind: str,
        description: dict[str, Any],
        make: Callable[[Place], dict[str, Any] | None],
        needs: list[Node | None] | None = None,
        *,
        method: str | None = None,
        like: Any = None,
        units: int = 1,
    ) -> Node:
        key = self.artifacts.key(name, description)
        if key in self._nodes:
            return self._nodes[key]
        e = self.experiment
        asked = e.resources.get(method or "", e.resources.get(kind, Resources())) if e.resources else Resources()
        world = self.description["world"]
        facts = {
            "kind": kind,
            "world": address(world).hex(),
            "class": like.get("class") if isinstance(like, dict) else None,
            "like": address(kind, world, like).hex(),
            "units": units,
            "seed": e.seed,
            "description": description,
        }
        node = Node(
            name,
            key,
            kind,
            StageWork(self._text, self.origin, key),
            tuple(dict.fromkeys(n.key for n in needs or [] if n is not None)),
            facts,
            method,
            units,
            asked.cpus,
            asked.gpus,
        )
        self._nodes[key], self._make[key] = node, make
        return node


def describe(experiment: Experiment, origin: str) -> dict[str, Any]:
    """The experiment with every name, class and default written out, as plain data."""
    e = experiment
    plain = e.model_dump(mode="json", exclude={*PLURAL, "resources"})
    plain["world"] = config.described(World, e.world, origin)
    plain["sft"] = e.sft and config.described(Method, e.sft, origin)
    plain["reward_model"] = e.reward_model and config.described(Method, e.reward_model, origin)
    plain["preference_model"] = e.preference_model and config.described(Method, e.preference_model, origin)
    plain["annotator"] = config.described(Annotator, e.annotator, origin)
    plain["judges"] = {role: config.described(Annotator, spec, origin) for role, spec in e.judges.items()}
    plain["methods"] = {n: config.described(Method, spec or n, origin) for n, spec in e.methods.items()}
    plain["evaluator"] = config.described(Evaluator, e.evaluator, origin)
    plain["reporter"] = e.reporter and config.described(Reporter, e.reporter, origin)
    return plain


def describe_study(whole: Experiment, origin: str) -> dict[str, Any]:
    """The same of an experiment with a sweep or replicates, whose parts may be given by the sweep alone."""
    plain = whole.model_dump(mode="json", exclude={"resources"})
    plain["aggregator"] = config.described(Aggregator, whole.aggregator, origin)
    plain["evaluator"] = config.described(Evaluator, whole.evaluator, origin)
    plain["reporter"] = whole.reporter and config.described(Reporter, whole.reporter, origin)
    return plain


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
        known = _KNOWN.get((self.experiment, self.origin, str(home() / "artifacts")))
        plan = known or Plan(Experiment.model_validate(json.loads(self.experiment)), self.origin)
        return plan.make(self.key, place)
