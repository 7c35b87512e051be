"""What an experiment's YAML may say, and how it is read: names, changed settings, sweeps and replicates.

One YAML is one experiment or many: ``sweep`` (farm.experiments.sweeps) and ``seeds`` make variants of it, each an
experiment of its own. What happens then is in farm.experiments.plan (which stages), farm.experiments.stages (how each
is made) and farm.experiments.running (in order).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from farm.base import files
from farm.base.bounds import Count, Natural, NotNegative, Positive, Share
from farm.base.errors import OptionError, UserError, nearest
from farm.experiments import presets, sweeps
from farm.experiments.feedback import Responses, check_kinds
from farm.experiments.sweeps import Label
from farm.feedback.kind import kinds
from farm.roles import config, named_configs
from farm.roles.config import Spec

BASELINE = "baseline"
"""The generator of the outputs that every method is judged against: a sample of the SFT policy with draws of its own"""

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
_LONGEST = 150
"""bytes of an experiment's name; file systems take 255 with the seed and the digest"""
_NOT_METHODS = {"sft", BASELINE, "responses", "accuracy", "reward_model", "preference_model", *kinds()}
_NOT_ROLES = {"annotator"}


class Sizes(BaseModel):
    model_config = ConfigDict(extra="forbid")

    demonstrations: Natural = 2000
    """instructions with a demonstration, for SFT"""
    pairs: Count = 2000
    """annotated pairs of SFT responses"""
    prompts: Count = 1000
    """unlabelled instructions that methods may sample for"""
    evaluation: Count = 200
    """held-out instructions"""
    samples: Count = 4
    """answers to each held-out instruction, of every method"""


class Resources(BaseModel):
    """What one stage occupies while it is made."""

    model_config = ConfigDict(extra="forbid")

    cpus: Positive = 1
    """only a cluster asks"""
    gpus: NotNegative | None = None
    """left out, a stage that holds a model has one where there are any; 0 hides them from it. Two and more train a
    stage in as many processes"""
    processes: Count | None = None
    """how many train it together; left out, as many as it has GPUs"""

    @property
    def together(self) -> int:
        """How many processes train the stage."""
        return self.processes or max(1, int(self.gpus or 1))


class Experiment(BaseModel):
    """What an experiment's YAML may say."""

    model_config = ConfigDict(extra="forbid")

    name: str
    about: str = ""
    seed: int = 1
    """of everything random"""
    seeds: list[int] | None = None
    """replicates: the whole experiment once for each of these seeds"""
    sweep: dict[str, Any] | None = None
    """settings with several values each, see farm.experiments.sweeps"""
    world: Spec
    """instructions, a base policy, and what is known of the truth"""
    sft: Spec | None = "sft"
    """the method that turns the base policy into the SFT policy; null where the world has no demonstrations"""
    annotator: Spec = "training"
    """who gives the training feedback, where `feedback` names nobody"""
    responses: Responses = Field(default_factory=Responses)
    """what feedback is given on"""
    feedback: dict[str, Spec | None] = {}
    """kind -> who gives it, {annotator, design, by, n}, or {from, map} (farm/experiments/feedback.py)"""
    reward_model: Spec | None = "reward_model"
    """the method that fits a reward model to the training feedback, for methods that need one and as their proxy"""
    preference_model: Spec | None = None
    """the method that fits a preference model to the training feedback, for methods that say ``shared_preference``"""
    models: dict[str, Spec | None] = {}
    """name -> a method that fits a model, for methods that say ``reward_model: NAME``; made where one needs it"""
    accuracy: bool = False
    """whether to measure how often each model agrees with judges, and with the truth, on held-out instructions"""
    compute: Spec | None = None
    """a class that makes tables itself, in the place of methods; then the world serves only a class that asks for it"""
    user: Spec | None = None
    """who replies to a policy, for methods that learn from dialogues; all methods then talk to held-out ones"""
    turns: int = Field(default=5, ge=1)
    """the most responses of the policy in a held-out dialogue"""
    methods: dict[str, Spec | None]
    """name in the table -> method; a name alone means the named config"""
    judges: dict[str, Spec] = {"judge": "evaluation"}
    """role -> annotator; `judge` ranks the leaderboard, others (humans, gold) are compared with it. {kind, annotator}
    judges by feedback of another kind on both answers"""
    least_verdicts: Share = 0.8
    """share of the pairs with different outputs on which a judge must give a verdict, or its judgement fails"""
    sizes: Sizes = Field(default_factory=Sizes)
    """how many of everything"""
    split: str = Field(default="test", pattern="^(validation|test)$")
    """which held-out instructions the methods are compared on"""
    temperature: Positive = 1.0
    """of the responses in the training pairs"""
    answer_temperature: NotNegative = 1.0
    """of the answers that are judged"""
    evaluator: Spec = "leaderboard"
    """what is made of the annotations of one experiment"""
    aggregator: Spec = "replicates"
    """what is made of the experiments of a sweep, or of several seeds"""
    reporter: Spec | None = "html"
    """what is written to look at"""
    resources: dict[str, Resources] = {}
    """for clusters: kind of stage, or name of a method -> what it occupies"""


_DEFAULTS = {
    name: field.default
    for name, field in Experiment.model_fields.items()
    if name in ("sft", "annotator", "reward_model", "evaluator", "aggregator", "reporter")
}
PLURAL = ("seeds", "sweep", "aggregator")
"""What says how many experiments a YAML is; a single one of them has none of it"""


@dataclass(frozen=True)
class Variant:
    """One experiment of a study."""

    experiment: Experiment
    labels: dict[str, Label]
    """swept key -> what stands for its value, and ``seed``"""

    @property
    def name(self) -> str:
        """The name of its folder."""
        parts = [f"{k.rpartition('.')[2]}={v}" for k, v in self.labels.items() if k != "seed"]
        text = ",".join([*parts, f"s{self.experiment.seed}"])
        return re.sub(r"[^\w.,=+-]+", "_", text)[:120]


@dataclass(frozen=True)
class Study:
    """What one YAML says: one variant, or those of its sweep times its seeds."""

    origin: str
    whole: Experiment
    """as it stands in the YAML, with changed settings"""
    variants: tuple[Variant, ...]
    plural: bool
    """a sweep or replicates, even if of one value"""


def load(name: str, settings: Sequence[str] = (), seed: int | None = None, only: Sequence[str] | None = None) -> Study:
    """An experiment by name or path, with ``a.b=c`` settings applied, and all variants of it.

    Args:
        name: a named config, or the path of a YAML file.
        settings: changes, ``sizes.pairs=100``.
        seed: of the one experiment, in the place of ``seed`` and ``seeds``.
        only: the methods to keep; all where None.
    """
    path = named_configs.find("experiments", name)
    data = config.override({"name": path.stem, **named_configs.load_mapping(path)}, settings)
    return from_mapping(data, str(path), seed, only)


def from_mapping(
    data: dict[str, Any], origin: str, seed: int | None = None, only: Sequence[str] | None = None
) -> Study:
    """A study from what stands in a YAML."""
    data = copy.deepcopy(data)
    if seed is not None:
        data["seed"] = seed
        data.pop("seeds", None)
    if only is not None:
        data["methods"] = _chosen(data.get("methods"), only, origin)
    whole = config.validate(Experiment, _filled(data, origin), origin)
    if not _is_file_name(whole.name):
        raise UserError(
            f"{origin}: the experiment's name {whole.name[:40]!r} cannot be that of a folder; take a plain word "
            f"without `/` and control characters, of at most {_LONGEST} bytes"
        )
    single = {k: v for k, v in data.items() if k not in PLURAL}
    found = [sweeps.Point({}, {})]
    if whole.sweep is not None:
        parsed = sweeps.parse(whole.sweep, origin)
        known = [*Experiment.model_fields, "grid", "list", "random"]
        for key in sweeps.keys(parsed):
            if key.split(".")[0] not in Experiment.model_fields or key.split(".")[0] in PLURAL:
                raise UserError(f"{origin}: sweep: unknown key `{key}`; {nearest(key.split('.')[0], known)}")
        found = sweeps.points(parsed, origin)
    seeds = [whole.seed] if whole.seeds is None else whole.seeds
    if not seeds or len(set(seeds)) < len(seeds):
        raise UserError(f"{origin}: `seeds` must be different numbers, at least one")
    variants = []
    for point in found:
        for number in seeds:
            changed = copy.deepcopy(single)
            for key, value in point.settings.items():
                config.put(changed, key, value, f"{origin}: sweep")
            changed["seed"] = changed["seed"] if "seed" in point.settings else number
            labels = {**point.labels, "seed": changed["seed"]}
            variants.append(Variant(_single(changed, origin), labels))
    if twice := files.alike([variant.name for variant in variants]):
        raise UserError(f"{origin}: two variants of the sweep are both called {twice[1]}; give the values names")
    for key, several in {"methods and models": [*whole.methods, *whole.models], "judges": list(whole.judges)}.items():
        if twice := files.alike(name.replace(" ", "_") for name in several):
            raise UserError(
                f"{origin}: {key}: `{twice[0]}` and `{twice[1]}` would be one file on macOS, which "
                "does not tell capitals from small letters; call one otherwise"
            )
    return Study(origin, whole, tuple(variants), whole.sweep is not None or whole.seeds is not None)


def _is_file_name(name: str) -> bool:
    """Whether a folder below ``runs`` can begin with it: not a path, and short enough for what is added."""
    whole = name == Path(name).name and name not in ("", ".", "..") and "\\" not in name
    return whole and name.isprintable() and len(name.encode()) <= _LONGEST


def _filled(data: dict[str, Any], origin: str) -> dict[str, Any]:
    """What an experiment says, with the defaults of its world's preset."""
    if data.get("compute") is not None:
        if data.get("methods"):
            raise UserError(f"{origin}: `compute` takes the place of `methods`: take one of them away")
        data = {"world": "matrix", **data, "methods": {}}
    preset = presets.of(data.get("world"), origin)
    for key in preset.experiment if preset else ():
        if preset and key not in Experiment.model_fields:
            hint = nearest(key, Experiment.model_fields)
            raise UserError(f"{preset.settings.origin}: unknown key `experiment.{key}`; {hint}")
    return presets.filled(data, preset)


def _single(data: dict[str, Any], origin: str) -> Experiment:
    """One experiment with its world's defaults, its methods written out as specs."""
    data = _filled(data, origin)
    for key in ("methods", "models"):
        named = data.get(key)
        if not isinstance(named, dict):
            continue
        for name, spec in named.items():
            if spec is None:  # `ppo:` alone means the named config ppo
                named[name] = {"use": name}
            elif isinstance(spec, dict) and "use" not in spec and "class" not in spec:
                named[name] = {"use": name, **spec}
    judges = data.get("judges")
    if isinstance(judges, dict):
        for role, spec in judges.items():
            if isinstance(spec, dict) and "kind" in spec and not {"use", "class"} & set(spec):
                judges[role] = {"use": "by_kind", **spec}
    for place, defaults in ((data, _DEFAULTS), (judges, {"judge": "evaluation"})):
        for key, default in defaults.items():  # `--set annotator.rate=0.1` changes the default annotator
            spec = place.get(key) if isinstance(place, dict) else None
            if isinstance(place, dict) and isinstance(spec, dict) and "use" not in spec and "class" not in spec:
                place[key] = {"use": default, **spec}
    experiment = config.validate(Experiment, data, origin)
    if "judge" not in experiment.judges:
        raise UserError(f"{origin}: `judges` must name a `judge`, the annotator that ranks the leaderboard")
    for kind, names, taken in (
        ("methods", experiment.methods, _NOT_METHODS),
        ("models", experiment.models, (_NOT_METHODS | set(experiment.methods)) - {"reward_model", "preference_model"}),
        ("judges", experiment.judges, _NOT_ROLES),
    ):
        for name in names:
            if name in taken or not _NAME.fullmatch(name):
                raise UserError(
                    f"{origin}: `{name}` cannot be a name under `{kind}`; take letters, digits, _ . - and none of "
                    + ", ".join(sorted(taken))
                )
    check_kinds(experiment.feedback, origin)
    return experiment


def _chosen(methods: Any, only: Sequence[str], origin: str) -> Any:
    if not isinstance(methods, dict):
        return methods
    for name in only:
        if name not in methods:
            raise OptionError(f"{origin}: `only` {name}: there is no such method; {nearest(name, methods)}")
    return {name: spec for name, spec in methods.items() if name in only}


def folder_name(study: Study, digest: int) -> Path:
    """The run folder where no other is given."""
    seed = "" if study.plural else f"-s{study.variants[0].experiment.seed}"
    return Path("runs") / f"{study.whole.name}{seed}-{digest:016x}"
