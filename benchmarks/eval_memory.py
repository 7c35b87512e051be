"""Peak memory and time of analysing 10^6 annotation rows: a board, an evaluation, ratings. Must stay under 2 GiB.

python benchmarks/eval_memory.py [--rows 1000000]
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd

from eval.face.api import evaluate
from eval.published import sources
from eval.published.board import board
from eval.ratings import bradley_terry as bt
from eval.ratings.battles import read_battles


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args()
    methods = 200
    n = options.rows // methods
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        annotations, battles = Path(folder) / "annotations.parquet", Path(folder) / "battles.parquet"
        names = np.array([f"m{k:03d}" for k in range(methods)])
        pd.DataFrame(
            {
                "generator_1": "base",
                "generator_2": np.repeat(names, n),
                "instruction_id": np.tile(np.arange(n), methods),
                "preference": 1 + generator.random(n * methods).round(3),
                "output_1_len": generator.integers(100, 3000, n * methods),
                "output_2_len": generator.integers(100, 3000, n * methods),
                "dataset": np.tile(np.array(["a", "b", "c", "d"])[np.arange(n) % 4], methods),
            }
        ).to_parquet(annotations)
        first = generator.integers(0, methods, options.rows)
        second = (first + 1 + generator.integers(0, methods - 1, options.rows)) % methods
        winner = np.array(["model_a", "model_b", "tie"])[generator.integers(0, 3, options.rows)]
        pd.DataFrame({"model_a": names[first], "model_b": names[second], "winner": winner}).to_parquet(battles)
        print(f"before: {peak():.2f} GiB")
        for name, work in (
            ("board", lambda: board(sources.read([annotations]), metrics=["win_rate", "length_controlled"])),
            ("ratings", lambda: bt.bradley_terry(read_battles([battles]))),
            ("evaluation", lambda: evaluate(annotations)),
        ):
            started = time.perf_counter()
            work()
            print(f"{name}: {options.rows:,} rows in {time.perf_counter() - started:.1f} s, peak {peak():.2f} GiB")


if __name__ == "__main__":
    main()
