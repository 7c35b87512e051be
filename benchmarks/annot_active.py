"""How many labels active choice saves in the pocket world, against pairs drawn at random.

A linear reward is fitted to the labels of the simulated training people and tested on held-out pairs against the gold
utility. Prints the accuracy by number of labels, averaged over seeds with standard errors, and how many random labels
reach what the active ones reached at half of the budget.

    python benchmarks/annot_active.py [--seeds 10] [--annotator evaluation]
"""

from __future__ import annotations

import argparse
import itertools

import numpy as np
import pandas as pd

from annotators.runs.active import STRATEGIES, differences, fit, rounds_of
from farm.roles import config
from farm.roles.protocols import Annotator, Context, World
from farm.worlds.pocket import grammar
from farm.worlds.pocket.observations import parse_requests
from farm.worlds.pocket.world import DEMONSTRATIONS

PROMPTS, OUTPUTS, LABELS, ROUNDS = 120, 6, 600, 12


def pairs_of(world: World, split: str, prompts: int, seed: int) -> pd.DataFrame:
    """All pairs of a few texts on each prompt, by the demonstrators of the world."""
    asked = world.instructions(split, prompts)["instruction"].tolist()
    texts = [
        grammar.write(parse_requests(asked), DEMONSTRATIONS, seed, f"active {k}").strings() for k in range(OUTPUTS)
    ]
    rows = [
        (instruction, texts[a][i], texts[b][i])
        for i, instruction in enumerate(asked)
        for a, b in itertools.combinations(range(OUTPUTS), 2)
    ]
    table = pd.DataFrame(rows, columns=["instruction", "output_1", "output_2"])
    return table[table["output_1"] != table["output_2"]].reset_index(drop=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--annotator", default="evaluation")
    arguments = parser.parse_args()
    world = config.build(World, "pocket", Context())
    annotator = config.build(Annotator, arguments.annotator, Context(world=world, features=world.features))
    points = np.linspace(LABELS / ROUNDS, LABELS, ROUNDS)
    curves: dict[str, list[list[float]]] = {s: [] for s in STRATEGIES}
    for seed in range(arguments.seeds):
        pairs, held_out = pairs_of(world, "train", PROMPTS, seed), pairs_of(world, "test", 60, seed)
        design, test = differences(pairs, world.features), differences(held_out, world.features)
        gold = config.build(Annotator, "gold", Context(world=world, features=world.features))
        truth = 2.0 - gold.annotate(held_out, seed=0)["preference"].to_numpy()
        place = {
            key: i for i, key in enumerate(zip(pairs["instruction"], pairs["output_1"], pairs["output_2"], strict=True))
        }
        for strategy in STRATEGIES:
            rows: list[int] = []
            said: list[float] = []
            curve = []
            ask = lambda p, seed=seed: annotator.annotate(p, seed=seed)  # noqa: E731
            for table in rounds_of(pairs, ask, world.features, strategy, labels=LABELS, rounds=ROUNDS, seed=seed):
                keys = zip(table["instruction"], table["output_1"], table["output_2"], strict=True)
                rows += [place[k] for k in keys]
                said += (2.0 - table["preference"]).tolist()
                w = fit(design[rows], np.array(said), np.ones(len(rows)))
                curve.append(float(np.mean((test @ w > 0) == (truth > 0.5))))
            curves[strategy].append(curve)
    mean = {s: np.mean(c, axis=0) for s, c in curves.items()}
    error = {s: np.std(c, axis=0, ddof=1) / np.sqrt(len(c)) for s, c in curves.items()}
    print("labels  " + "  ".join(f"{s:>16}" for s in STRATEGIES))
    for i, n in enumerate(points):
        print(f"{n:6.0f}  " + "  ".join(f"{mean[s][i]:8.4f} ± {error[s][i]:.4f}" for s in STRATEGIES))
    half = ROUNDS // 2 - 1
    for s in STRATEGIES[:2]:
        reached = mean[s][half]
        needed = float(np.interp(reached, np.maximum.accumulate(mean["random"]), points))
        beyond = " or more" if reached > mean["random"].max() else ""
        saved = 1 - points[half] / needed
        print(f"{s}: {points[half]:.0f} labels reach {reached:.4f}, at random {needed:.0f}{beyond}: {saved:.0%} saved")


if __name__ == "__main__":
    main()
