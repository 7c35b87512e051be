"""How each stage of an experiment is made: SFT, pairs, annotation, fitted models, method, answers, judgement.

Written against the protocols; which class plays a role is said in the experiment's YAML. A stage reads the folders of
the stages before it and writes one of its own, so that it can be made in any process that sees the folders.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from farm import config, progress, records, rng, trackers
from farm.alarms import Alarms
from farm.artifacts import Place, alone
from farm.errors import Fruitless, UserError
from farm.experiment import BASELINE, Experiment
from farm.protocols import Annotator, Context, Learning, Method, Policy, PreferenceModel, Samples, Scorer, World
from farm.store import Store, address, home

Facts = dict[str, Any]


class Stages:
    """Makes the stages of one experiment. Folders of earlier stages come as arguments."""

    def __init__(self, experiment: Experiment, origin: str, store: Store) -> None:
        self.experiment, self.origin, self.store = experiment, origin, store
        self.seed = experiment.seed
        self._annotators: dict[str, Annotator] = {}

    @cached_property
    def world(self) -> World:
        return config.build(World, self.experiment.world, Context(store=self.store), self.origin)

    @cached_property
    def context(self) -> Context:
        return Context(world=self.world, features=self.world.features, store=self.store)

    @cached_property
    def texts(self) -> str:
        """A digest of what the world reads from files, whose names alone would not tell that they have changed: texts,
        and the model's weights where the world tells their ``revision``."""
        splits = [self.world.instructions(split)["instruction"].tolist() for split in ("train", self.experiment.split)]
        demonstrations = self.world.demonstrations(self.experiment.sizes.demonstrations)
        outputs = [] if demonstrations is None else demonstrations["output"].tolist()
        return address(splits, outputs, getattr(self.world, "revision", None)).hex()

    def method(self, name: str) -> Method:
        return config.build(Method, self.experiment.methods[name] or name, self.context, self.origin)

    def annotator(self, role: str) -> Annotator:
        """The annotator of a role: "annotator" gives the training feedback, the others judge."""
        if role not in self._annotators:
            e = self.experiment
            spec = e.annotator if role == "annotator" else e.judges[role]
            self._annotators[role] = config.build(Annotator, spec, self.context, self.origin)
        return self._annotators[role]

    def policy(self, folder: Path | None) -> Policy:
        """The policy that a stage made; the world's own where no stage made it."""
        return self._base if folder is None else self._load(folder, Policy)

    def _load(self, folder: Path | None, role: type[Any]) -> Any:
        """What a stage made, sampled by the world's engine; None where no stage made it."""
        from farm.policies import load

        if folder is None:
            return None
        loaded = load(folder / "model", getattr(self.world, "engine", None))
        if not isinstance(loaded, role):
            raise UserError(f"{folder.name} holds a {type(loaded).__name__}, but a {role.__name__} is needed")
        return loaded

    @cached_property
    def _base(self) -> Policy:
        # Some worlds train it when it is first wanted; of several processes that want it one does.
        with alone(home() / "worlds.lock"):
            return self.world.base_policy()

    @cached_property
    def _kept(self) -> dict[Path, Policy]:
        return {}

    def _sft(self, folder: Path | None) -> Policy:
        """The SFT policy, which most stages start from, loaded once."""
        if folder is None:
            return self._base
        if folder not in self._kept:
            self._kept[folder] = self.policy(folder)
        return self._kept[folder]

    @property
    def _gold(self) -> Callable[[Samples], NDArray[np.float64]] | None:
        """The gold utility of responses, where the world's truth is known."""
        return self._gold_of if self.world.truth_known else None

    def _gold_of(self, samples: Samples) -> NDArray[np.float64]:
        return utility(self.world, samples.prompts, samples.outputs)

    # --- the stages, in order -------------------------------------------------------------------------------------

    def sft(self, place: Place) -> Facts | None:
        """The SFT policy, from demonstrations."""
        spec = self.experiment.sft
        demonstrations = self.world.demonstrations(self.experiment.sizes.demonstrations)
        if demonstrations is None or spec is None:
            raise UserError(f"{self.origin}: this world has no demonstrations; set `sft: null`")
        method = config.build(Method, spec, self.context, self.origin)
        learning = Learning(
            seed=self.seed, policy=self._base, prompts=demonstrations, demonstrations=demonstrations, gold=self._gold
        )
        return self._learn("sft", method, learning, place)

    def pairs(self, place: Place, sft: Path | None) -> Facts | None:
        """Pairs of SFT responses to training instructions."""
        sizes = self.experiment.sizes
        train = self.world.instructions("train")
        rows = np.arange(sizes.pairs) % len(train)
        prompts = train["instruction"].to_numpy()[np.repeat(rows, 2)].tolist()
        samples = self._sample(
            self._sft(sft), prompts, "pairs", self.experiment.temperature, "sampling pairs", place.told
        )
        table = _pair_table(samples.select(range(0, len(samples), 2)), samples.select(range(1, len(samples), 2)))
        table.to_parquet(place.folder / "pairs.parquet", index=False)
        return None

    def annotation(self, place: Place, pairs: Path) -> Facts | None:
        """The pairs with the training annotator's verdicts."""
        with progress.task("annotating"):
            table = self._ask("annotator", pd.read_parquet(pairs / "pairs.parquet"))
        _check_answered(table, "the annotator")
        table.to_parquet(place.folder / "preferences.parquet", index=False)
        return _spent(table)

    def fitted(self, place: Place, role: str, sft: Path | None, preferences: Path) -> Facts | None:
        """The reward or preference model fitted to the training feedback; made once, shared by who needs it."""
        spec = getattr(self.experiment, role)
        method = config.build(Method, spec, self.context, self.origin)
        return self._learn(role, method, self._learning(method, sft, preferences, {}), place)

    def train(
        self, place: Place, name: str, sft: Path | None, preferences: Path | None, models: dict[str, Path]
    ) -> Facts | None:
        """One of the methods that are compared, from the feedback and the fitted ``models`` that it needs."""
        method = self.method(name)
        return self._learn(name, method, self._learning(method, sft, preferences, models), place)

    def answers(
        self, place: Place, name: str, policy: Path | None, sft: Path | None, reward_model: Path | None
    ) -> Facts | None:
        """A policy's answers to the held-out instructions, with gold utility, proxy reward and KL to the SFT policy.

        All methods answer with the same random draws, so that their differences are not drowned in sampling noise; the
        baseline has draws of its own, and SFT among the methods is thus an honest second sample.
        """
        e = self.experiment
        held_out = self.world.instructions(e.split, e.sizes.evaluation)["instruction"]
        prompts = np.repeat(held_out.to_numpy(), e.sizes.samples).tolist()
        writer = self._sft(sft) if name == "sft" else self.policy(policy)
        samples = self._sample(writer, prompts, "answers", e.answer_temperature, f"answers of {name}", place.told)
        table = samples.frame(name).drop(columns=["prompt_tokens", "response_tokens", "log_probabilities"])
        table.insert(0, "method", name)
        table["sample"] = np.arange(len(table)) % e.sizes.samples
        table["tokens"] = samples.lengths()
        table["gold"] = self._gold_of(samples) if self.world.truth_known else np.nan
        table["proxy"] = _scores(self._load(reward_model, Scorer), samples) if reward_model else np.nan
        unchanged = name == "sft" and sft is None
        table["kl"] = 0.0 if unchanged else _kl(writer, self._sft(sft), samples, e.answer_temperature)
        if name == "sft":
            shown = "answers of the baseline"
            table["baseline"] = self._sample(writer, prompts, "baseline", e.answer_temperature, shown).outputs
        table.to_parquet(place.folder / "outputs.parquet", index=False)
        return None

    def judgement(self, place: Place, role: str, name: str, answers: Path, baseline: Path) -> Facts | None:
        """Verdicts of one judge on a method's answers against the baseline's."""
        table = pd.read_parquet(answers / "outputs.parquet")
        pairs = pd.DataFrame(
            {
                "method": name,
                "sample": table["sample"],
                "instruction": table["instruction"],
                "output_1": pd.read_parquet(baseline / "outputs.parquet")["baseline"],
                "output_2": table["output"],
                "generator_1": BASELINE,
                "generator_2": name,
            }
        )
        with progress.task(f"{role} judges {name}"):
            judged = self._ask(role, pairs)
        _check_answered(judged, f"{role} of {name}", self.experiment.least_verdicts)
        judged.to_parquet(place.folder / "annotations.parquet", index=False)
        return _spent(judged)

    def training_feedback(self, preferences: Path) -> pd.DataFrame:
        """The annotated training pairs for the run folder, with the gold utility of both sides where it is known."""
        table = pd.read_parquet(preferences / "preferences.parquet")
        if self.world.truth_known:
            for side in ("1", "2"):
                texts = table["instruction"].tolist(), table[f"output_{side}"].tolist()
                table[f"gold_{side}"] = utility(self.world, *texts)
        return table

    # --- parts ----------------------------------------------------------------------------------------------------

    def _learning(
        self, method: Method, sft: Path | None, preferences: Path | None, models: dict[str, Path]
    ) -> Learning:
        """What this method is given: only what it asks for."""
        needs, sizes = method.needs, self.experiment.sizes
        train = self.world.instructions("train")
        # Unlabelled prompts come from behind the labelled ones, as far as there are others.
        prompts = train.iloc[(np.arange(sizes.prompts) + sizes.pairs) % len(train)].reset_index(drop=True)
        annotated = None
        if "preferences" in needs and preferences is not None:
            annotated = pd.read_parquet(preferences / "preferences.parquet")
            annotated = annotated[annotated["status"] == "ok"].reset_index(drop=True)
        return Learning(
            seed=self.seed,
            policy=self.policy(sft),
            prompts=prompts,
            preferences=annotated,
            demonstrations=self.world.demonstrations(sizes.demonstrations) if "demonstrations" in needs else None,
            annotator=self.annotator("annotator") if "annotator" in needs else None,
            reward_model=self._load(models.get("reward_model"), Scorer),
            preference_model=self._load(models.get("preference_model"), PreferenceModel),
            gold=self._gold,
        )

    def _learn(self, name: str, method: Method, learning: Learning, place: Place) -> Facts | None:
        """Train, with a live display, and save what was learned and its metrics."""
        lines: list[str] = []
        latest: dict[str, float] = {}  # what is logged in some steps only is shown until it is logged again
        told, alarms = _Telling(place.told), Alarms(name)
        with progress.task(f"training {name}") as work, trackers.tracker(name) as track:

            def log(metrics: dict[str, float]) -> None:
                lines.append(json.dumps({"method": name, **metrics}))
                track(metrics)
                alarms(metrics)
                latest.update(metrics)
                shown = progress.numbers(latest)
                # A line of numbers behind the last step, such as the accuracy on held-out pairs, is no step.
                step = int(not work.total or metrics.get("step", 0) < work.total)
                work.advance(step, note=shown)
                told.advance(step, shown)

            def expect(total: int) -> None:
                work.expect(total)
                told.total = total

            learned = method.train(replace(learning, log=log, steps=expect, checkpoints=place.checkpoints))
        (place.folder / "metrics.jsonl").write_text("".join(line + "\n" for line in lines))
        learned.save(place.folder / "model")
        return {"steps": len(lines)}

    def _sample(
        self,
        policy: Policy,
        prompts: list[str],
        purpose: str,
        temperature: float,
        shown: str,
        told: Path | None = None,
    ) -> Samples:
        telling = _Telling(told, len(prompts))
        with progress.task(shown, total=len(prompts)) as work:

            def advance(count: int) -> None:
                work.advance(count)
                telling.advance(count)

            return policy.sample(prompts, seed=self.seed, purpose=purpose, temperature=temperature, progress=advance)

    def _ask(self, role: str, pairs: pd.DataFrame) -> pd.DataFrame:
        # A seed of its own for each role: the same annotator as teacher and as judge draws independently.
        seed = rng.torch_seed(self.seed, role) % 2**31
        annotator = self.annotator(role)
        return records.in_random_order(lambda shown: annotator.annotate(shown, seed=seed), pairs, seed)


class _Telling:
    """Writes how far a stage has got into a file, at most once a second, for `farm status`."""

    def __init__(self, file: Path | None, total: int = 0) -> None:
        self.file, self.total, self.done = file, total, 0
        self._last = time.monotonic()

    def advance(self, count: int, note: str = "") -> None:
        self.done += count
        if self.file is None or time.monotonic() - self._last < 1:
            return
        self._last = time.monotonic()
        beside = self.file.with_suffix(".new")
        try:
            told = {"done": self.done, "total": self.total, "time": time.time(), "note": note}
            beside.write_text(json.dumps(told))
            os.replace(beside, self.file)
        except OSError:  # what is only shown must not stop what is made
            return


def _check_answered(table: pd.DataFrame, who: str, least: float = 0.0) -> None:
    """Refuse verdicts on less than a share of the pairs whose outputs differ, or on none at all."""
    differing, missing = records.unanswered(table)
    given = differing - sum(missing.values())
    if differing and (given == 0 or given < least * differing):
        why = ", ".join(f"{count:,} {status}" for status, count in missing.items())
        asked = f"; `least_verdicts` asks for {least:.0%}" if least else ""
        raise Fruitless(f"{who}: {given:,} verdicts on {differing:,} pairs of different outputs ({why}){asked}")


def _spent(table: pd.DataFrame) -> Facts:
    return {"verdicts": len(table), "price": float(table["price"].sum())}


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


def _scores(scorer: Scorer, samples: Samples, batch: int = 256) -> NDArray[np.float64]:
    import torch

    with torch.no_grad():
        parts = [
            scorer.scores(samples.select(range(i, min(i + batch, len(samples))))) for i in range(0, len(samples), batch)
        ]
    return torch.cat(parts).double().cpu().numpy()


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
            out.append((ours - theirs).sum(1).double().cpu().numpy())
    return np.concatenate(out)
