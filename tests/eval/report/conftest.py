"""A run folder as an experiment would leave it, from made-up but coherent numbers: written by the real writer."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from eval.evaluators.leaderboard import Leaderboard
from farm.experiments import run_folder
from farm.roles.protocols import Comparison
from farm.storage.artifacts import Made
from farm.tables.records import annotation_table, in_random_order

# method -> gold utility gained over SFT (standard deviations), proxy gained, KL, steps
METHODS = {
    "sft": (0.0, 0.0, 0.0, 125),
    "dpo": (0.55, 0.8, 4.1, 125),
    "ppo": (0.95, 1.9, 11.0, 40),
    "best_of_n": (0.85, 1.45, 1.84, 0),
    "expert_iteration": (0.62, 1.0, 3.2, 2),
    "feedme": (0.3, 0.4, 1.1, 60),
}
TASKS = ("Give me some tips on", "Explain", "Tell me a story about", "Draw up a schedule for", "Write a letter about")
TOPICS = ("gardening", "chess", "the sea", "bread", "old maps", "cycling", "bees", "winter", "radios", "tea")
WORDS = [
    "soil",
    "water",
    "patience",
    "the",
    "a",
    "of",
    "root",
    "early",
    "morning",
    "light",
    "careful",
    "hand",
    "slow",
    "bright",
    "kettle",
    "harbour",
    "wind",
    "stone",
]


def _texts(generator: np.random.Generator, lengths: np.ndarray) -> list[str]:
    texts = []
    for length in lengths:
        words = generator.choice(WORDS, max(int(length), 4)).tolist()
        if generator.random() < 0.3:
            at = len(words) // 2
            words[at:] = ["\n - " + w for w in words[at:][:4]]
        texts.append(" ".join(words).capitalize() + ".")
    return texts


def build(
    folder: Path,
    *,
    seed: int = 1,
    instructions: int = 120,
    samples: int = 3,
    roles: Sequence[str] = ("judge", "humans", "gold"),
    methods: dict[str, tuple[float, float, float, int]] | None = None,
    metrics: bool = True,
    gold_known: bool = True,
    rename: dict[str, str] | None = None,
    texts: Callable[[str], str] = lambda text: text,
) -> Path:
    """A run folder without a report. ``rename`` changes method names, ``texts`` every text of a model or user."""
    methods = methods or METHODS
    rename = rename or {}
    generator = np.random.default_rng(seed)
    asked = [texts(f"{TASKS[i % 5]} {TOPICS[(i // 5) % 10]}, number {i}.") for i in range(instructions)]
    prompts = np.repeat(asked, samples)
    n = len(prompts)
    ease = np.repeat(generator.normal(0, 0.5, instructions), samples)
    base_gold = ease + generator.normal(0, 1, n)
    base_texts = [texts(t) for t in _texts(generator, 30 + 4 * base_gold)]
    outputs, judged = [], {role: [] for role in roles}
    for method, (lift, proxy, kl, _) in methods.items():
        gold = ease + lift + generator.normal(0, 1, n)
        length = 30 + 6 * gold + 3 * proxy + generator.normal(0, 5, n)
        answers = [texts(t) for t in _texts(generator, length)]
        name = rename.get(method, method)
        table = pd.DataFrame({"method": name, "instruction": prompts, "output": answers, "generator": name})
        table["finish_reason"] = np.where(generator.random(n) < 0.02, "length", "stop")
        table["sample"] = np.tile(np.arange(samples), instructions)
        table["tokens"] = np.maximum(length, 4).astype(int)
        table["gold"] = gold if gold_known else np.nan
        table["proxy"] = 0.6 * (gold - lift) + proxy + generator.normal(0, 0.7, n)
        table["kl"] = 1.84 if method == "best_of_n" else kl + (generator.normal(0, 1.5, n) if kl else 0.0)
        if method == "sft":
            table["baseline"] = base_texts
        outputs.append(table)
        pairs = pd.DataFrame({"method": name, "sample": table["sample"], "instruction": prompts})
        pairs = pairs.assign(output_1=base_texts, output_2=answers, generator_1="baseline", generator_2=name)
        longer = np.sign(np.char.str_len(np.array(answers)) - np.char.str_len(np.array(base_texts)))
        for role in roles:
            noise = {"judge": 0.9, "humans": 1.2, "gold": 0.0}.get(role, 1.0)
            difference = gold - base_gold + noise * generator.logistic(0, 1, n) + 0.25 * (role == "judge") * longer
            judged[role].append(_verdicts(pairs, difference, role, generator, seed))
    training = pd.concat([judged[roles[0]][0]] * 2, ignore_index=True).assign(annotator="persona 1")
    training["annotator"] = [f"persona {i % 13}" for i in range(len(training))]
    annotations = {role: pd.concat(parts, ignore_index=True) for role, parts in judged.items()}
    comparison = Comparison(pd.concat(outputs, ignore_index=True), annotations, "sft", seed)
    tables = Leaderboard(rounds=300).evaluate(comparison)
    stages = list(_stages(folder.parent / "stages", methods, rename, roles, metrics, generator))
    description: dict[str, Any] = {
        "name": "pocket",
        "about": "five methods learn from thirteen simulated annotators in a world whose truth is known",
        "seed": seed,
        "world": {"class": "farm.worlds.pocket.Pocket", "instructions": 2000},
        "annotator": {
            "class": "annotators.noise.flip.Flip",
            "probability": 0.25,
            "annotator": {"class": "annotators.people.pool.PersonaPool"},
        },
        "methods": {rename.get(m, m): {"class": f"reference_methods.{m}.Method"} for m in methods if m != "sft"},
        "judges": {role: {"class": "annotators.people.pool.PersonaPool", "seed": 7} for role in roles},
        "evaluator": {"class": "eval.evaluators.leaderboard.Leaderboard", "confidence": 0.95},
        "reporter": {"class": "eval.report.html.Html", "examples": 20},
    }
    run_folder.write(folder, run_folder.Finished(description, stages, {"pairs": training}, comparison, tables), None)
    return folder


def _verdicts(
    pairs: pd.DataFrame, difference: np.ndarray, role: str, generator: np.random.Generator, seed: int
) -> pd.DataFrame:
    def annotate(shown: pd.DataFrame) -> pd.DataFrame:
        n = len(shown)
        turned = shown["output_1"].to_numpy() != pairs["output_1"].to_numpy()
        push = np.where(turned, -difference, difference) - 0.1 * (role != "gold")
        preference = np.where(push > 0, 2.0, 1.0)
        status = np.full(n, "ok", dtype=object)
        if role == "humans":
            preference[np.abs(push) < 0.15] = 1.5
        if role == "judge":
            lost = generator.random(n) < 0.006
            preference[lost], status[lost] = np.nan, "unparseable"
        price = 0.0004 if role == "judge" else 0.0
        names = np.array([f"{role} {i % 4}" for i in range(n)], dtype=object)
        chances = np.full(n, np.nan)
        return annotation_table(shown, names, preference, chances, seed=seed, status=status, price=price)

    return in_random_order(annotate, pairs, seed)


def _stages(
    root: Path,
    methods: dict[str, tuple[float, float, float, int]],
    rename: dict[str, str],
    roles: Sequence[str],
    metrics: bool,
    generator: np.random.Generator,
) -> list[Made]:
    def stage(name: str, seconds: float, lines: Sequence[dict[str, Any]] = ()) -> Made:
        folder = root / name.replace(" ", "-").replace("/", "-").replace("<", "-")
        folder.mkdir(parents=True)
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return Made(name, folder, name, seconds, name == "sft")

    stages = [stage("pairs", 11.1), stage("annotation", 0.8), stage("reward model", 26.5)]
    for method, (lift, proxy, kl, steps) in methods.items():
        name = rename.get(method, method)
        lines = []
        for step in range(1, steps + 1) if metrics else ():
            share = step / steps
            way = 1 - np.exp(-3 * share)
            line: dict[str, Any] = {"method": name, "step": step, "loss": float(np.exp(-share))}
            if method in ("ppo", "expert_iteration"):
                line["reward"] = proxy * way + generator.normal(0, 0.12)
                line["gold"] = lift * 1.25 * way - 0.35 * max(share - 0.6, 0) + generator.normal(0, 0.12)
            if method in ("ppo", "dpo"):
                line["kl"] = kl * share + generator.normal(0, 0.1)
            lines.append(line)
        stages.append(stage(name, 8 + steps * 0.9, lines))
        stages.append(stage(f"{name} answers", 5.5))
        stages += [stage(f"{role} judges {name}", 0.4) for role in roles]
    return stages


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """``make_run(...)`` builds a run folder below the test's own folder."""
    return lambda name="run", **settings: build(tmp_path / name / "pocket-s1", **settings)
