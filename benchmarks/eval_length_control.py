"""Length-controlled boards side by side with alpaca-eval's own function, fits alone and with reading the JSON.

    python3 -m venv /tmp/peers && /tmp/peers/bin/pip install "setuptools<80" alpaca-eval==0.6.6 pyarrow
    python benchmarks/eval_length_control.py --data ../shared/data/alpaca_eval --peer /tmp/peers/bin/python

The data folder needs annotations_alpaca_eval_2_weighted_gpt4_turbo.parquet, instruction_difficulty.csv,
df_gamed_surrogate.csv and results/. Its models are recycled to a board of 223 fits, as many as the published one has.
Without --peer only our side is timed. CPU seconds are the fair number on a machine that others use; wall time is shown.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pandas as pd

from eval.published import sources
from eval.published.board import board
from eval.published.quick_json import Reader
from eval.rates.difficulty import Difficulty
from eval.rates.length_column import LengthControl
from eval.rates.length_control import Regulariser, length_controlled

FITS = 223

PEER = """
import json, logging, sys, time, warnings
import pandas as pd
warnings.filterwarnings("ignore"); logging.disable(50)
import alpaca_eval.metrics.glm_winrate as glm
from alpaca_eval import utils
data, fits = sys.argv[1], int(sys.argv[2])
glm.hf_hub_download = lambda **k: data + "/df_gamed_surrogate.csv"
fit = lambda d: glm.get_length_controlled_winrate(d, save_weights_dir=None, is_warn_extreme_changes=False)
table = pd.read_parquet(data + "/annotations_alpaca_eval_2_weighted_gpt4_turbo.parquet")
frames = []
for model, d in table.groupby("model_dir", observed=True):
    if model != "gpt4_1106_preview":
        texts = {f"output_{k}": ["x" * n for n in d[f"output_{k}_len"]] for k in (1, 2)}
        names = {"generator_1": "b", "generator_2": str(model), "annotator": "a"}
        frames.append(pd.DataFrame({"preference": d.preference.to_numpy()} | texts | names))
fit(frames[0])
out = {}
wall, cpu = time.perf_counter(), time.process_time()
values = [fit(frames[k % len(frames)])["length_controlled_winrate"] for k in range(fits)]
out["fit"] = [(time.perf_counter() - wall) / fits, (time.process_time() - cpu) / fits]
files = sys.argv[3:]
utils.load_or_convert_to_dataframe(files[0])
wall, cpu = time.perf_counter(), time.process_time()
for k in range(fits):
    utils.load_or_convert_to_dataframe(files[k % len(files)])
out["read"] = [(time.perf_counter() - wall) / fits, (time.process_time() - cpu) / fits]
print(json.dumps(out))
"""


def timed(work) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--peer", help="a Python with alpaca-eval 0.6.6")
    parser.add_argument("--peer-fits", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    base = options.data
    files = sorted((base / "results").glob("*/weighted_alpaca_eval_gpt4_turbo/annotations.json"))
    difficulty = Difficulty.from_frame(pd.read_csv(base / "instruction_difficulty.csv"), "difficulty")
    regulariser = Regulariser.from_frame(pd.read_csv(base / "df_gamed_surrogate.csv"))
    rows = sources.read([base / "annotations_alpaca_eval_2_weighted_gpt4_turbo.parquet"])
    problems = []
    for method, d in rows.table.groupby("method", observed=True):
        if method != "gpt4_1106_preview":
            gamma = difficulty.of(d["key"].to_numpy(), d["instruction_id"].to_numpy())
            score = d["preference"].to_numpy() - 1
            problems.append((score, d["length_1"].to_numpy(), d["length_2"].to_numpy(), gamma))

    def fits() -> None:
        for k in range(FITS):
            length_controlled(*problems[k % len(problems)], regulariser)

    def read() -> None:
        reader = Reader()
        for k in range(FITS):
            reader.read(files[k % len(files)])

    def published() -> None:
        for problem in problems[:10]:
            length_controlled(*problem, regulariser, recipe="published")

    fits()
    read()
    fit_times = [timed(fits) for _ in range(options.rounds)]
    read_times = [timed(read) for _ in range(options.rounds)]
    recipe_times = [timed(published) for _ in range(options.rounds)]
    best = [min(t[i] for t in fit_times) / FITS for i in (0, 1)]
    reading = [min(t[i] for t in read_times) / FITS for i in (0, 1)]
    recipe = [min(t[i] for t in recipe_times) / 10 for i in (0, 1)]
    print(f"{'':34}{'wall ms':>10}{'CPU ms':>10}")
    print(f"{'ours, one fit (Newton, interval)':34}{1e3 * best[0]:10.3f}{1e3 * best[1]:10.3f}")
    print(f"{'ours, one fit (published recipe)':34}{1e3 * recipe[0]:10.2f}{1e3 * recipe[1]:10.2f}")
    print(f"{'ours, reading one 4 MB file':34}{1e3 * reading[0]:10.2f}{1e3 * reading[1]:10.2f}")
    with tempfile.TemporaryDirectory() as folder:
        for k in range(FITS):
            place = Path(folder) / f"model{k:03d}" / "judge"
            place.mkdir(parents=True)
            (place / "annotations.json").symlink_to(files[k % len(files)].resolve())
        work = whole_board(Path(folder), difficulty, regulariser)
        work()
        whole_times = [timed(work) for _ in range(options.rounds)]
    whole = [min(t[i] for t in whole_times) for i in (0, 1)]
    print(f"{'ours, board of 223 files, seconds':34}{whole[0]:10.2f}{whole[1]:10.2f}")
    if options.peer:
        command = [options.peer, "-c", PEER, str(base), str(options.peer_fits), *map(str, files)]
        said = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ).stdout
        peer = json.loads(said.splitlines()[-1])
        print(f"{'alpaca-eval, one fit':34}{1e3 * peer['fit'][0]:10.1f}{1e3 * peer['fit'][1]:10.1f}")
        print(f"{'alpaca-eval, reading one file':34}{1e3 * peer['read'][0]:10.1f}{1e3 * peer['read'][1]:10.1f}")
        for i, name in enumerate(("wall", "CPU")):
            ratio = peer["fit"][i] / best[i]
            both = (peer["fit"][i] + peer["read"][i]) * FITS / whole[i]
            print(f"ratio ({name}): fits {ratio:.0f}x, whole board with reading the JSON {both:.1f}x")


def whole_board(folder: Path, difficulty: Difficulty, regulariser: Regulariser):
    """Everything that the command does with a results directory."""

    def work() -> None:
        control = LengthControl(difficulty, regulariser)
        board(sources.read([folder]), metrics=["win_rate", "length_controlled"], length_control=control)

    return work


if __name__ == "__main__":
    main()
