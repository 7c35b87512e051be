"""One experiment with its roles built: the world, the annotators, the methods, and the policies that stages made.

Written against the protocols; which class plays a role is said in the experiment's YAML.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from farm.asking.givers import is_free, require_gives
from farm.base.errors import Alarm, UserError
from farm.experiments import needs, presets
from farm.experiments.experiment import PLURAL, Experiment
from farm.experiments.feedback import Asked
from farm.experiments.sources import Sources
from farm.feedback.kind import kinds
from farm.roles import config
from farm.roles.protocols import (
    Aggregator,
    Annotator,
    Computation,
    Context,
    Evaluator,
    Method,
    Policy,
    PreferenceModel,
    Reporter,
    Samples,
    Scorer,
    World,
    asks,
)
from farm.roles.users import User, informed
from farm.storage.artifacts import alone
from farm.storage.store import Store, address, home
from farm.tables.further import Further
from farm.tables.turns import Prompt, prompts_of

SFT = "sft"
"""The name among the methods of the SFT policy itself"""


class Setting:
    """What the stages of one experiment share; two are never equal."""

    def __init__(self, experiment: Experiment, origin: str, store: Store) -> None:
        self.experiment, self.origin, self.store = experiment, origin, store
        self.seed = experiment.seed
        self.sources = Sources(experiment, origin)
        self.description = describe(experiment, origin)
        self._annotators: dict[str, Annotator] = {}
        self._givers: dict[str, Any] = {}
        self._loaded: dict[Path, Policy] = {}
        self._further: dict[str, Further] = {}

    # --- roles ----------------------------------------------------------------------------------------------------

    @cached_property
    def world(self) -> World:
        return config.build(World, self.experiment.world, Context(store=self.store), self.origin)

    @cached_property
    def preset(self) -> config.Preset | None:
        """What fits the world."""
        return _preset(self.experiment, self.origin)

    @cached_property
    def context(self) -> Context:
        return Context(world=self.world, features=self.world.features, store=self.store)

    def method(self, name: str) -> Method:
        return self._method(self.experiment.methods[name] or name)

    def _method(self, spec: config.Spec) -> Method:
        return config.build(Method, spec, self.context, self.origin, preset=self.preset)

    @cached_property
    def needs(self) -> dict[str, frozenset[str]]:
        """What each method learns from, all of it there."""
        return {n: needs.checked(self, f"the method {n}", self.method(n)) for n in self.experiment.methods}

    @cached_property
    def asks(self) -> dict[str, frozenset[str]]:
        """The kinds of feedback that each method asks for while it learns."""
        return {name: asks(self.method(name)) for name in self.experiment.methods}

    @property
    def models(self) -> dict[str, config.Spec]:
        """Name -> the method that fits a model of it to the feedback, once for all methods that need it."""
        return fitted(self.experiment)

    @property
    def models_needed(self) -> list[str]:
        """The models that methods need."""
        needed = frozenset[str]().union(*self.needs.values())
        return [name for name in self.models if name in needed]

    def model_needs(self, name: str) -> frozenset[str]:
        """What a model learns from, all of it there."""
        return needs.checked(self, f"the model {name}", self.fitting(name), within=(name,))

    def fitting(self, name: str) -> Method:
        """The method that makes the SFT policy ("sft") or a model."""
        spec = self.experiment.sft if name == SFT else self.models[name]
        assert spec is not None
        return self._method(spec)

    def annotator(self, role: str) -> Annotator:
        """The annotator of a role: "annotator" gives the training pairs, the others judge."""
        if role == "annotator":
            return cast(Annotator, self.giver("pairs"))
        if role not in self._annotators:
            judge = config.build(Annotator, self.experiment.judges[role], self.context, self.origin)
            self._require(judge, "pairs", f"judges.{role}")
            self._annotators[role] = judge
        return self._annotators[role]

    def giver(self, kind: str) -> Any:
        """Who gives feedback of a kind."""
        if kind not in self._givers:
            spec = self.sources.giver(kind)
            giver: Any = config.build(kinds()[kind].giver, spec, self.context, self.origin)
            named = kind in self.experiment.feedback
            self._require(giver, kind, f"feedback.{kind}" if named else "annotator")
            self._givers[kind] = giver
        return self._givers[kind]

    def _require(self, giver: Any, kind: str, key: str) -> None:
        """Refuse one who does not give a kind, by the key that names them."""
        try:
            require_gives(giver, kinds()[kind])
        except UserError as error:
            raise UserError(f"{self.origin}: {key}: {error}") from error

    def annotator_description(self, role: str) -> Any:
        """The same annotator's spec with every default written out."""
        described = self.description["feedback"]["pairs"].get("annotator")
        return described if role == "annotator" else self.description["judges"][role]

    def computation(self) -> Computation:
        """What ``compute`` describes."""
        assert self.experiment.compute is not None
        return config.build(Computation, self.experiment.compute, self.context, self.origin)

    def user(self, split: str = "train") -> User:
        """Who replies to policies about the instructions of a split, and is shown their further columns.

        Raises:
            UserError: where the experiment names none.
        """
        if self.experiment.user is None:
            raise UserError(f"{self.origin}: there is no user to talk to; set `user`, for example try_again")
        return informed(config.build(User, self.experiment.user, self.context, self.origin), self.further(split))

    @cached_property
    def user_is_free(self) -> bool:
        """Whether the user's replies are only computed; so where there is none."""
        return self.experiment.user is None or is_free(self.user())

    def evaluator(self) -> Evaluator:
        return config.build(Evaluator, self.experiment.evaluator, self.context, self.origin)

    def reporter(self) -> Reporter | None:
        e = self.experiment
        return None if e.reporter is None else config.build(Reporter, e.reporter, self.context, self.origin)

    def check(self) -> None:
        """Build every role once, so that a mistake in the last judge does not cost the whole training."""
        if self.experiment.compute is not None:
            self.computation()
            return
        needs.check(self)
        for role in self.experiment.judges:
            self.annotator(role)
        for kind, said in self.sources.feedback.items():
            if isinstance(said, Asked):
                self.giver(kind)
        for name in (*([SFT] if self.experiment.sft is not None else []), *self.models):
            self.fitting(name)
        if self.experiment.user is not None:
            self.user()
        self.evaluator()
        self.reporter()
        self.further("train")
        self._say_what_is_short()

    def _say_what_is_short(self) -> None:
        """An alarm where the world has fewer held-out instructions than were asked for."""
        e = self.experiment
        there = len(self.world.instructions(e.split, e.sizes.evaluation))
        if there < e.sizes.evaluation and "evaluation" in e.sizes.model_fields_set:
            short = f"`sizes.evaluation` is {e.sizes.evaluation:,}, but the world has {there:,} instructions"
            warnings.warn(f"{self.origin}: {short} in its split {e.split}: all are used", Alarm, stacklevel=2)

    # --- the world ------------------------------------------------------------------------------------------------

    @cached_property
    def texts(self) -> str:
        """A digest of what the world reads from files, whose names alone would not tell that they have changed: texts,
        and the model's weights where the world tells their ``revision``."""
        splits = [self._split_texts(split) for split in ("train", self.experiment.split)]
        demonstrations = self.world.demonstrations(self.experiment.sizes.demonstrations)
        outputs = [] if demonstrations is None else demonstrations["output"].tolist()
        return address(splits, outputs, getattr(self.world, "revision", None)).hex()

    def _split_texts(self, split: str) -> list[Any]:
        table, beside = self.world.instructions(split), self.further(split).table
        return [prompts_of(table), beside.to_json(orient="split")] if len(beside.columns) else prompts_of(table)

    def further(self, split: str) -> Further:
        """The further columns of the world's instructions, which every row about them has; where responses are given,
        also what their file says of its prompts, which are training instructions."""
        if split not in self._further:
            given = self.sources.given_of_prompts if split == "train" else None
            self._further[split] = replace(Further.of(self.world.instructions(split), self.origin), then=given)
        return self._further[split]

    @property
    def start(self) -> dict[str, Any]:
        """What determines the SFT policy, which every stage starts from."""
        e = self.experiment
        tuned = e.sft and {"method": self.description["sft"], "n": e.sizes.demonstrations, "seed": e.seed}
        return {"world": self.description["world"], "sft": tuned, "texts": self.texts}

    @cached_property
    def base(self) -> Policy:
        """The world's own policy."""
        # Some worlds train it when it is first wanted; of several processes that want it one does.
        with alone(home() / "worlds.lock"):
            return self.world.base_policy()

    @property
    def gold(self) -> Callable[[Samples], NDArray[np.float64]] | None:
        """The gold utility of responses, where the world's truth is known."""
        return self._gold if self.world.truth_known else None

    def _gold(self, samples: Samples) -> NDArray[np.float64]:
        return self.utility(samples.prompts, samples.outputs)

    def utility(self, instructions: list[Prompt], outputs: list[str]) -> NDArray[np.float64]:
        """The utility of texts by the world's gold weights, [n]."""
        weights = self.world.features.gold_weights
        terms = self.world.features(instructions, outputs)[list(weights)].to_numpy(np.float64)
        return terms @ np.array(list(weights.values()))

    # --- what stages made -----------------------------------------------------------------------------------------

    def kept_policy(self, folder: Path) -> Policy:
        """The policy in a stage's folder, loaded once: for the one that most stages start from."""
        if folder not in self._loaded:
            self._loaded[folder] = self.policy(folder)
        return self._loaded[folder]

    def release(self) -> None:
        """Forget the policies that are kept for stages to come; they are loaded again where they are wanted."""
        self._loaded.clear()
        self.__dict__.pop("base", None)

    def policy(self, folder: Path) -> Policy:
        """A policy of its own from a stage's folder."""
        return self._load(folder, (Policy,))

    def model(self, folder: Path) -> Scorer | PreferenceModel:
        return self._load(folder, (Scorer, PreferenceModel))

    def _load(self, folder: Path, roles: tuple[type[Any], ...]) -> Any:
        """What a stage made, sampled by the world's engine, on the world's device."""
        from farm.policies import load

        world = self.world
        loaded = load(folder / "model", getattr(world, "engine", None), getattr(world, "device", None))
        if not isinstance(loaded, roles):
            needed = " or a ".join(role.__name__ for role in roles)
            raise UserError(f"{folder.name} holds a {type(loaded).__name__}, but a {needed} is needed")
        return loaded


def _preset(experiment: Experiment, origin: str) -> config.Preset | None:
    found = presets.of(experiment.world, origin)
    return found.settings if found else None


def describe(experiment: Experiment, origin: str) -> dict[str, Any]:
    """The experiment with every name, class and default written out, as plain data."""
    e, preset, sources = experiment, _preset(experiment, origin), Sources(experiment, origin)

    def method(spec: config.Spec) -> dict[str, Any]:
        return config.described(Method, spec, origin, preset=preset)

    plain = e.model_dump(mode="json", by_alias=True, exclude={*PLURAL, "resources"})
    plain["world"] = config.described(World, e.world, origin)
    plain["sft"] = e.sft and method(e.sft)
    plain["reward_model"] = e.reward_model and method(e.reward_model)
    plain["preference_model"] = e.preference_model and method(e.preference_model)
    plain["models"] = {name: method(spec) for name, spec in fitted(e).items()}
    plain["annotator"] = config.described(Annotator, e.annotator, origin)
    plain["user"] = e.user and config.described(User, e.user, origin)
    plain["feedback"] = {kind: _described(sources, kind) for kind in sources.feedback}
    plain["judges"] = {role: config.described(Annotator, spec, origin) for role, spec in e.judges.items()}
    plain["compute"] = e.compute and config.described(Computation, e.compute, origin)
    plain["methods"] = {n: method(spec or n) for n, spec in e.methods.items()}
    plain["evaluator"] = config.described(Evaluator, e.evaluator, origin)
    plain["reporter"] = e.reporter and config.described(Reporter, e.reporter, origin)
    return plain


def fitted(experiment: Experiment) -> dict[str, config.Spec]:
    """Name -> the method that fits the model of it."""
    e = experiment
    named: dict[str, config.Spec | None] = {"reward_model": e.reward_model, "preference_model": e.preference_model}
    return {name: spec for name, spec in {**named, **e.models}.items() if spec is not None}


def _described(sources: Sources, kind: str) -> dict[str, Any]:
    said = sources.feedback[kind]
    plain = said.model_dump(mode="json", by_alias=True)
    if isinstance(said, Asked):
        plain["annotator"] = config.described(kinds()[kind].giver, sources.giver(kind), sources.origin)
    return plain


def describe_study(whole: Experiment, origin: str) -> dict[str, Any]:
    """The same of an experiment with a sweep or replicates, whose parts may be given by the sweep alone."""
    plain = whole.model_dump(mode="json", by_alias=True, exclude={"resources"})
    plain["aggregator"] = config.described(Aggregator, whole.aggregator, origin)
    plain["compute"] = whole.compute and config.described(Computation, whole.compute, origin)
    plain["evaluator"] = config.described(Evaluator, whole.evaluator, origin)
    plain["reporter"] = whole.reporter and config.described(Reporter, whole.reporter, origin)
    return plain
