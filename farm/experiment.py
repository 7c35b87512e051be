"""The loop: instructions, responses, feedback, learning, answers, judgement, leaderboard, report.

Written against the protocols; which class plays which role is said in the experiment's YAML. The loop is a chain of
stages, each under a content address of all that determined it (farm.artifacts): a stage that is done is not done again,
and a run that was killed goes on from its last finished stage.
What is left behind is a run folder (farm.run_folder).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from farm import config, progress, records, rng, run_folder
from farm.artifacts import Artifacts, Stage
from farm.config import Spec
from farm.errors import UserError
from farm.protocols import (
    Annotator,
    Comparison,
    Context,
    Evaluator,
    Learning,
    Method,
    Policy,
    Reporter,
    Samples,
    Scorer,
    World,
)
from farm.store import Store, address, canonical, home

BASELINE = "baseline"
"""The generator of the outputs that every method is judged against: a sample of the SFT policy with draws of its own"""


class Sizes(BaseModel):
    model_config = ConfigDict(extra="forbid")

    demonstrations: int = Field(default=2000, ge=0)
    """instructions with a demonstration, for SFT"""
    pairs: int = Field(default=2000, ge=1)
    """annotated pairs of SFT responses"""
    prompts: int = Field(default=1000, ge=1)
    """unlabelled instructions that methods may sample for"""
    evaluation: int = Field(default=200, ge=1)
    """held-out instructions"""
    samples: int = Field(default=4, ge=1)
    """answers to each held-out instruction, of every method"""


class Experiment(BaseModel):
    """What an experiment's YAML may say."""

    model_config = ConfigDict(extra="forbid")

    name: str
    about: str = ""
    seed: int = 1
    world: Spec
    sft: Spec | None = "sft"
    """the method that turns the base policy into the SFT policy; null where the world has no demonstrations"""
    annotator: Spec = "training"
    """who gives the training feedback"""
    reward_model: Spec | None = "reward_model"
    methods: dict[str, Spec]
    """name in the table -> method"""
    judges: dict[str, Spec] = {"judge": "evaluation"}
    """role -> annotator; `judge` ranks the leaderboard, others (humans, gold) are compared with it"""
    sizes: Sizes = Field(default_factory=Sizes)
    split: str = Field(default="test", pattern="^(validation|test)$")
    """which held-out instructions the methods are compared on"""
    temperature: float = Field(default=1.0, gt=0)
    """of the responses in the training pairs"""
    answer_temperature: float = Field(default=1.0, ge=0)
    """of the answers that are judged"""
    evaluator: Spec = "leaderboard"
    reporter: Spec | None = "html"


def load(name: str, settings: list[str], seed: int | None = None) -> tuple[Experiment, str]:
    """An experiment by name or path, with ``a.b=c`` settings applied, and where it was said."""
    path = config.find("experiments", name)
    data = config.override({"name": path.stem, **config.load_mapping(path)}, settings)
    if seed is not None:
        data["seed"] = seed
    for method, spec in (data.get("methods") or {}).items() if isinstance(data.get("methods"), dict) else ():
        if spec is None:  # `ppo:` alone means the named config ppo
            data["methods"][method] = {"use": method}
        elif isinstance(spec, dict) and "use" not in spec and "class" not in spec:
            data["methods"][method] = {"use": method, **spec}
    return config.validate(Experiment, data, str(path)), str(path)


_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
_NOT_METHODS = {"sft", BASELINE, "pairs", "annotation", "reward_model"}
_NOT_ROLES = {"annotator"}


class Run:
    """One experiment under way. ``go()`` does everything; the pieces are methods in the order they happen."""

    def __init__(self, experiment: Experiment, origin: str, out: Path | None = None) -> None:
        self.experiment, self.origin = experiment, origin
        self.seed = experiment.seed
        self.store = Store(home() / "store.sqlite")
        self.artifacts = Artifacts(home() / "artifacts")
        self.description = self._describe()
        digest = rng.text_id(canonical(self.description))
        self.folder = out or Path("runs") / f"{experiment.name}-s{self.seed}-{digest:016x}"
        self.stages: list[Stage] = []

    def _describe(self) -> dict[str, Any]:
        e, origin = self.experiment, self.origin
        if "judge" not in e.judges:
            raise UserError(f"{origin}: `judges` must name a `judge`, the annotator that ranks the leaderboard")
        for kind, names, taken in (("methods", e.methods, _NOT_METHODS), ("judges", e.judges, _NOT_ROLES)):
            for name in names:
                if name in taken or not _NAME.fullmatch(name):
                    raise UserError(
                        f"{origin}: `{name}` cannot be a name under `{kind}`; take letters, digits, _ . - and none of "
                        + ", ".join(sorted(taken))
                    )
        plain = e.model_dump(mode="json")
        plain["world"] = config.described(World, e.world, origin)
        plain["sft"] = e.sft and config.described(Method, e.sft, origin)
        plain["reward_model"] = e.reward_model and config.described(Method, e.reward_model, origin)
        plain["annotator"] = config.described(Annotator, e.annotator, origin)
        plain["judges"] = {role: config.described(Annotator, spec, origin) for role, spec in e.judges.items()}
        plain["methods"] = {name: config.described(Method, spec, origin) for name, spec in e.methods.items()}
        plain["evaluator"] = config.described(Evaluator, e.evaluator, origin)
        plain["reporter"] = e.reporter and config.described(Reporter, e.reporter, origin)
        return plain

    # --- the pieces, in order -------------------------------------------------------------------------------------

    def go(self) -> Path:
        """Run the experiment, or go on with it. Returns the run folder."""
        e = self.experiment
        run_folder.check(self.folder)
        methods = {name: config.build(Method, spec, self.context, self.origin) for name, spec in e.methods.items()}
        evaluator = config.build(Evaluator, e.evaluator, self.context, self.origin)
        reporter = config.build(Reporter, e.reporter, self.context, self.origin) if e.reporter is not None else None
        for spec in (e.annotator, *e.judges.values()):  # a mistake in the last judge must not cost the whole training
            config.build(Annotator, spec, self.context, self.origin)
        for spec in (s for s in (e.sft, e.reward_model) if s is not None):
            config.build(Method, spec, self.context, self.origin)
        answers = {"sft": self._answers("sft", self.sft_stage, self.sft_description, lambda: self.sft)}
        for name, method in methods.items():
            stage, description = self._train(name, method)
            answers[name] = self._answers(name, stage, description, partial(_load, stage, Policy))
        outputs = pd.concat([pd.read_parquet(stage.folder / "outputs.parquet") for stage in answers.values()])
        annotations = {role: self._judge(role, answers) for role in e.judges}
        comparison = Comparison(outputs.reset_index(drop=True), annotations, BASELINE, self.seed)
        with progress.task("evaluating"):
            tables = evaluator.evaluate(comparison)
        feedback = self._training_feedback()
        run_folder.write(self.folder, self.description, self.stages, feedback, comparison, tables, reporter)
        return self.folder

    def _training_feedback(self) -> pd.DataFrame | None:
        """The annotated training pairs for the run folder, with the gold utility of both sides where it is known."""
        if not any(stage.name == "annotation" for stage in self.stages):
            return None
        table = pd.read_parquet(self.preferences.folder / "preferences.parquet")
        if self.world.truth_known:
            for side in ("1", "2"):
                texts = table["instruction"].tolist(), table[f"output_{side}"].tolist()
                table[f"gold_{side}"] = utility(self.world, *texts)
        return table

    @cached_property
    def world(self) -> World:
        return config.build(World, self.experiment.world, Context(store=self.store), self.origin)

    @cached_property
    def context(self) -> Context:
        return Context(world=self.world, features=self.world.features, store=self.store)

    @cached_property
    def base(self) -> Policy:
        return self.world.base_policy()

    @cached_property
    def sft_description(self) -> dict[str, Any]:
        tuned = self.experiment.sft and {
            "method": self.description["sft"],
            "n": self.experiment.sizes.demonstrations,
            "seed": self.seed,
        }
        return {"world": self.description["world"], "sft": tuned, "texts": self._texts()}

    def _texts(self) -> str:
        """A digest of what the world reads from files, whose names alone would not tell that they have changed: texts,
        and the model's weights where the world tells their ``revision``."""
        splits = [self.world.instructions(split)["instruction"].tolist() for split in ("train", self.experiment.split)]
        demonstrations = self.world.demonstrations(self.experiment.sizes.demonstrations)
        outputs = [] if demonstrations is None else demonstrations["output"].tolist()
        return address(splits, outputs, getattr(self.world, "revision", None)).hex()

    @cached_property
    def sft_stage(self) -> Stage | None:
        """The stage that made the SFT policy; None where the base policy is used as it is."""
        spec = self.experiment.sft
        if spec is None:
            return None

        def make(folder: Path) -> None:
            demonstrations = self.world.demonstrations(self.experiment.sizes.demonstrations)
            if demonstrations is None:
                raise UserError(f"{self.origin}: this world has no demonstrations; set `sft: null`")
            method = config.build(Method, spec, self.context, self.origin)
            learning = Learning(
                seed=self.seed, policy=self.base, prompts=demonstrations, demonstrations=demonstrations, gold=self.gold
            )
            self._learn("sft", method, learning, folder)

        return self._stage("sft", self.sft_description, make)

    @cached_property
    def sft(self) -> Policy:
        return self.base if self.sft_stage is None else _load(self.sft_stage, Policy)

    @property
    def gold(self) -> Callable[[Samples], NDArray[np.float64]] | None:
        """The gold utility of responses, where the world's truth is known."""
        return self._gold if self.world.truth_known else None

    def _gold(self, samples: Samples) -> NDArray[np.float64]:
        return utility(self.world, samples.prompts, samples.outputs)

    @cached_property
    def preferences(self) -> Stage:
        """Pairs of SFT responses to training instructions, with the training annotator's verdicts."""
        sizes = self.experiment.sizes
        pairs_description = {
            **self.sft_description,
            "pairs": sizes.pairs,
            "temperature": self.experiment.temperature,
            "seed": self.seed,
        }

        def sample(folder: Path) -> None:
            train = self.world.instructions("train")
            rows = np.arange(sizes.pairs) % len(train)
            prompts = train["instruction"].to_numpy()[np.repeat(rows, 2)].tolist()
            samples = self._sample(self.sft, prompts, "pairs", self.experiment.temperature, "sampling pairs")
            table = _pair_table(samples.select(range(0, len(samples), 2)), samples.select(range(1, len(samples), 2)))
            table.to_parquet(folder / "pairs.parquet", index=False)

        pairs = self._stage("pairs", pairs_description, sample)

        def annotate(folder: Path) -> None:
            annotator = config.build(Annotator, self.experiment.annotator, self.context, self.origin)
            with progress.task("annotating"):
                table = self._ask(annotator, pd.read_parquet(pairs.folder / "pairs.parquet"), "annotator")
            table.to_parquet(folder / "preferences.parquet", index=False)

        return self._stage("annotation", {"pairs": pairs.key, "annotator": self.description["annotator"]}, annotate)

    @cached_property
    def reward_model(self) -> Stage:
        """A reward model fitted to the training feedback; made once, shared by the methods that need it."""
        spec = self.experiment.reward_model
        if spec is None:
            raise UserError(f"{self.origin}: a method needs `reward_model`, which is null")

        def make(folder: Path) -> None:
            method = config.build(Method, spec, self.context, self.origin)
            self._learn("reward_model", method, self._learning(method), folder)

        description = {"preferences": self.preferences.key, "reward_model": self.description["reward_model"]}
        return self._stage("reward model", {**description, "seed": self.seed}, make)

    def _train(self, name: str, method: Method) -> tuple[Stage, dict[str, Any]]:
        needs = method.needs
        description = {
            **self.sft_description,
            "method": self.description["methods"][name],
            "preferences": self.preferences.key if "preferences" in needs else None,
            "reward_model": self.reward_model.key if "reward_model" in needs else None,
            "annotator": self.description["annotator"] if "annotator" in needs else None,
            "prompts": self.experiment.sizes.prompts,
            "pairs": self.experiment.sizes.pairs,
            "seed": self.seed,
        }

        def make(folder: Path) -> None:
            self._learn(name, method, self._learning(method), folder)

        return self._stage(name, description, make), description

    def _learning(self, method: Method) -> Learning:
        """What this method is given: only what it asks for."""
        needs, sizes = method.needs, self.experiment.sizes
        train = self.world.instructions("train")
        # Unlabelled prompts come from behind the labelled ones, as far as there are others.
        prompts = train.iloc[(np.arange(sizes.prompts) + sizes.pairs) % len(train)].reset_index(drop=True)
        preferences = None
        if "preferences" in needs:
            preferences = pd.read_parquet(self.preferences.folder / "preferences.parquet")
            preferences = preferences[preferences["status"] == "ok"].reset_index(drop=True)
        return Learning(
            seed=self.seed,
            policy=self.sft,
            prompts=prompts,
            preferences=preferences,
            demonstrations=self.world.demonstrations(sizes.demonstrations) if "demonstrations" in needs else None,
            annotator=config.build(Annotator, self.experiment.annotator, self.context, self.origin)
            if "annotator" in needs
            else None,
            reward_model=_load(self.reward_model, Scorer) if "reward_model" in needs else None,
            gold=self.gold,
        )

    def _learn(self, name: str, method: Method, learning: Learning, folder: Path) -> None:
        """Train, with a live display, and save what was learned and its metrics."""
        from dataclasses import replace

        lines: list[str] = []
        with progress.task(f"training {name}") as work:

            def log(metrics: dict[str, float]) -> None:
                lines.append(json.dumps({"method": name, **metrics}))
                shown = [f"{k} {metrics[k]:.3g}" for k in ("loss", "reward", "gold", "kl") if k in metrics]
                work.advance(1, note=" ".join(shown))

            learned = method.train(replace(learning, log=log, steps=work.expect))
        (folder / "metrics.jsonl").write_text("".join(line + "\n" for line in lines))
        learned.save(folder / "model")

    def _sample(self, policy: Policy, prompts: list[str], purpose: str, temperature: float, shown: str) -> Samples:
        with progress.task(shown, total=len(prompts)) as work:
            return policy.sample(
                prompts, seed=self.seed, purpose=purpose, temperature=temperature, progress=work.advance
            )

    def _answers(
        self, name: str, stage: Stage | None, description: dict[str, Any], policy: Callable[[], Policy]
    ) -> Stage:
        """A policy's answers to the held-out instructions, with gold utility, proxy reward and KL to the SFT policy.

        All methods answer with the same random draws, so that their differences are not drowned in sampling noise; the
        baseline has draws of its own, and SFT among the methods is thus an honest second sample.
        """
        e = self.experiment
        reward_model = self.reward_model if e.reward_model is not None else None
        asked = {"n": e.sizes.evaluation, "samples": e.sizes.samples, "split": e.split, "t": e.answer_temperature}

        def make(folder: Path) -> None:
            held_out = self.world.instructions(e.split, e.sizes.evaluation)["instruction"]
            prompts = np.repeat(held_out.to_numpy(), e.sizes.samples).tolist()
            writer = policy()
            samples = self._sample(writer, prompts, "answers", e.answer_temperature, f"answers of {name}")
            table = samples.frame(name).drop(columns=["prompt_tokens", "response_tokens", "log_probabilities"])
            table.insert(0, "method", name)
            table["sample"] = np.arange(len(table)) % e.sizes.samples
            table["tokens"] = samples.lengths()
            table["gold"] = self._gold(samples) if self.world.truth_known else np.nan
            table["proxy"] = _scores(_load(reward_model, Scorer), samples) if reward_model else np.nan
            table["kl"] = 0.0 if stage is None else _kl(writer, self.sft, samples, e.answer_temperature)
            if name == "sft":
                again = self._sample(writer, prompts, "baseline", e.answer_temperature, "answers of the baseline")
                table["baseline"] = again.outputs
            table.to_parquet(folder / "outputs.parquet", index=False)

        made_by = {"policy": stage.key if stage else description, "asked": asked, "seed": self.seed}
        return self._stage(f"{name} answers", {**made_by, "proxy": reward_model.key if reward_model else None}, make)

    def _judge(self, role: str, answers: dict[str, Stage]) -> pd.DataFrame:
        """Verdicts of one judge on every method's answers against the baseline's."""
        annotator: Annotator | None = None
        tables = []
        for name, stage in answers.items():

            def make(folder: Path, name: str = name, stage: Stage = stage) -> None:
                nonlocal annotator
                annotator = annotator or config.build(
                    Annotator, self.experiment.judges[role], self.context, self.origin
                )
                table = pd.read_parquet(stage.folder / "outputs.parquet")
                baseline = pd.read_parquet(answers["sft"].folder / "outputs.parquet")["baseline"]
                pairs = pd.DataFrame(
                    {
                        "method": name,
                        "sample": table["sample"],
                        "instruction": table["instruction"],
                        "output_1": baseline,
                        "output_2": table["output"],
                        "generator_1": BASELINE,
                        "generator_2": name,
                    }
                )
                self._ask(annotator, pairs, role).to_parquet(folder / "annotations.parquet", index=False)

            description = {
                "answers": stage.key,
                "baseline": answers["sft"].key,
                "judge": self.description["judges"][role],
            }
            with progress.task(f"{role} judges {name}"):
                judged = self._stage(f"{role} judges {name}", {**description, "seed": self.seed}, make)
            tables.append(pd.read_parquet(judged.folder / "annotations.parquet"))
        return pd.concat(tables).reset_index(drop=True)

    def _ask(self, annotator: Annotator, pairs: pd.DataFrame, role: str) -> pd.DataFrame:
        # A seed of its own for each role: the same annotator as teacher and as judge draws independently.
        seed = rng.torch_seed(self.seed, role) % 2**31
        return records.in_random_order(lambda shown: annotator.annotate(shown, seed=seed), pairs, seed)

    def _stage(self, name: str, description: dict[str, Any], make: Callable[[Path], None]) -> Stage:
        stage = self.artifacts.stage(name, description, make)
        self.stages.append(stage)
        return stage


def utility(world: World, instructions: list[str], outputs: list[str]) -> NDArray[np.float64]:
    """The gold utility of texts in a world: its utility terms times their gold weights, shape [n]."""
    weights = world.features.gold_weights
    terms = world.features(instructions, outputs)[list(weights)].to_numpy(np.float64)
    return terms @ np.array(list(weights.values()))


def _pair_table(first: Samples, second: Samples) -> pd.DataFrame:
    """One row a pair, with the token columns of both sides."""
    sides = []
    for number, samples in enumerate((first, second), start=1):
        frame = samples.frame("sft")
        shared = ["instruction", "prompt_tokens"]
        sides.append(frame.rename(columns={c: f"{c}_{number}" for c in frame.columns if c not in shared}))
    return pd.concat([sides[0], sides[1].drop(columns=["instruction", "prompt_tokens"])], axis=1)


def _load(stage: Stage, role: type[Any]) -> Any:
    from farm.policies import load

    loaded = load(stage.folder / "model")
    if not isinstance(loaded, role):
        raise UserError(f"stage `{stage.name}` made a {type(loaded).__name__}, but a {role.__name__} is needed")
    return loaded


def _scores(scorer: Scorer, samples: Samples, batch: int = 256) -> NDArray[np.float64]:
    import torch

    with torch.no_grad():
        parts = [
            scorer.scores(samples.select(range(i, min(i + batch, len(samples))))) for i in range(0, len(samples), batch)
        ]
    return torch.cat(parts).double().numpy()


def _kl(
    policy: Policy, reference: Policy, samples: Samples, temperature: float, batch: int = 256
) -> NDArray[np.float64]:
    """log policy(y|x) - log reference(y|x) of the policy's own answers, [n]; its mean estimates KL(policy, reference).

    Both at the temperature of the answers, or it would estimate nothing; greedy answers have none (NaN). A policy that
    selects among samples (best-of-n) has no such density, but knows a bound: ``kl_bound``.
    """
    import torch

    bound = getattr(policy, "kl_bound", None)
    if bound is not None or temperature == 0:
        return np.full(len(samples), np.nan if bound is None else float(bound))
    out = []
    with torch.no_grad():
        for start in range(0, len(samples), batch):
            part = samples.select(range(start, min(start + batch, len(samples))))
            ours, _ = policy.log_probabilities(part, temperature)
            theirs, _ = reference.log_probabilities(part, temperature)
            out.append((ours - theirs).sum(1).double().numpy())
    return np.concatenate(out)
