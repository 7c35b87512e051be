"""How fast the simulated annotators label pairs whose features are known, and how much memory they take.

    python -m benchmarks.annot_speed [--pairs 1000000] [--only NAME]

Each case runs in a process of its own, so that the peak memory is its own. "growth" is the peak of the resident memory
above what the pairs and the features took before the first label.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import psutil

from annotators.noise.both_orders import BothOrders
from annotators.noise.flip import Flip
from annotators.people.pool import PersonaPool, Pool
from farm.roles.protocols import Annotator

TERMS = tuple(f"term_{k}" for k in range(18))


@dataclass(frozen=True)
class KnownFeatures:
    """The text "17" has the features of row 17."""

    table: pd.DataFrame

    def __call__(self, instructions: Sequence[str], outputs: Sequence[str]) -> pd.DataFrame:  # noqa: ARG002
        return self.table.take(np.array(outputs, dtype=np.int64))

    @property
    def gold_weights(self) -> dict[str, float]:
        return {name: 1.0 - 0.1 * k for k, name in enumerate(TERMS)}


def data(n: int) -> tuple[pd.DataFrame, KnownFeatures]:
    """n pairs of 2n distinct texts on n/2 instructions, with eighteen utility terms."""
    generator = np.random.Generator(np.random.Philox(1))
    columns: dict[str, np.ndarray] = {name: generator.normal(size=2 * n) for name in TERMS}
    columns["length"] = generator.integers(5, 400, 2 * n).astype(np.float64)
    columns["lists"] = generator.integers(0, 2, 2 * n).astype(np.float64)
    columns["agreement"] = generator.normal(size=2 * n)
    texts = np.arange(2 * n).astype(str).astype(object)
    pairs = pd.DataFrame(
        {
            "instruction": np.char.add("write about ", (np.arange(n) // 2).astype(str)).astype(object),
            "output_1": texts[:n],
            "output_2": texts[n:],
            "generator_1": "mine",
            "generator_2": "yours",
        }
    )
    return pairs, KnownFeatures(pd.DataFrame(columns))


def cases(features: KnownFeatures) -> dict[str, Annotator]:
    biases = {
        "position_bias": 0.1,
        "position_bias_spread": 0.2,
        "length_bias": 0.2,
        "list_bias": 0.3,
        "list_bias_spread": 0.2,
        "cycle": 0.5,
        "self_enhancement": 0.4,
        "own_generator": "mine",
        "sycophancy": 0.3,
        "lapse": 0.02,
        "tie_width": 0.1,
    }
    plain = PersonaPool(features)
    return {
        "pool of 13": plain,
        "pool of 13, all biases": PersonaPool(features, **biases),
        "pool of 13, 25 % flip": Flip(plain),
        "13 annotators, general path": Pool([Flip(person, 0.0) for person in plain.people]),
        "both orders of the pool": BothOrders(plain),
        "pool of 1000": PersonaPool(features, size=1000),
    }


class Peak:
    """The highest resident memory seen in a block, in MiB, above that at its beginning."""

    def __enter__(self) -> Peak:
        self._process, self._done = psutil.Process(), threading.Event()
        self.before = self.highest = self._process.memory_info().rss
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.01):
            self.highest = max(self.highest, self._process.memory_info().rss)

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()


def measure(name: str, n: int) -> None:
    pairs, features = data(n)
    annotator = cases(features)[name]
    started, worked = time.perf_counter(), time.process_time()
    with Peak() as peak:
        table = annotator.annotate(pairs, seed=1)
    seconds, worked = time.perf_counter() - started, time.process_time() - worked
    ties = (table["preference"] == 1.5).mean()
    grown = peak.highest - peak.before
    print(
        f"{name:<30}{n:>10,} pairs{seconds:>8.2f} s{worked:>8.2f} s CPU{n / seconds:>12,.0f} pairs/s"
        f"{peak.highest / 2**20:>8,.0f} MiB peak{grown / 2**20:>7,.0f} MiB growth   ties {ties:.3f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    _, features = data(1)
    context = multiprocessing.get_context("spawn")
    for name in cases(features):
        if options.only in name:
            process = context.Process(target=measure, args=(name, options.pairs))
            process.start()
            process.join()
            if process.exitcode:
                sys.exit(process.exitcode)


if __name__ == "__main__":
    main()
