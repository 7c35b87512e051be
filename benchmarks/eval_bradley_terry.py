"""Bradley-Terry with intervals on 10^4 .. 10^6 comparisons of 100 models, beside evalica, choix and arena-rank.

    python3 -m venv /tmp/peers && /tmp/peers/bin/pip install evalica choix arena-rank
    python benchmarks/eval_bradley_terry.py --peer /tmp/peers/bin/python

Times are the best of several rounds; ours are split into the counting pass (which alone depends on the number of rows),
the fit and the sandwich. evalica gets lists; choix the win matrix that our pass makes; arena-rank is
timed warm, once. Without --peer the libraries of this Python are used where they are installed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd

from eval.ratings import bradley_terry as bt
from eval.ratings.battles import Battles
from eval.ratings.strengths import fit_half
from eval.ratings.win_matrix import count

MODELS = 100

PEER = """
import json, sys, time
import numpy as np
data = np.load(sys.argv[1])
first, second, score, wins = (data[k] for k in ("first", "second", "score", "wins"))
out, slow = {}, len(score) <= 100_000
def timed(name, work, rounds=3):
    work(); best = []
    for _ in range(rounds):
        cpu = time.process_time(); work(); best.append(time.process_time() - cpu)
    out[name] = min(best)
try:
    import evalica
    names = np.array([f"m{k:03d}" for k in range(wins.shape[0])])
    winners = np.array([evalica.Winner.Y, evalica.Winner.Draw, evalica.Winner.X], dtype=object)[(score * 2).astype(int)]
    xs, ys, winners = names[first].tolist(), names[second].tolist(), winners.tolist()
    timed("evalica.bradley_terry", lambda: evalica.bradley_terry(xs, ys, winners))
except Exception as error:
    out["evalica.bradley_terry"] = repr(error)[:100]
try:
    import choix
    timed("choix.ilsr_pairwise_dense (win matrix given)", lambda: choix.ilsr_pairwise_dense(wins))
except Exception as error:
    out["choix.ilsr_pairwise_dense (win matrix given)"] = repr(error)[:100]
try:
    if slow:
        import pandas as pd
        from arena_rank.utils.data_utils import PairDataset
        from arena_rank.models.bradley_terry import BradleyTerry
        frame = pd.DataFrame({"model_a": names[first], "model_b": names[second],
            "winner": np.array(["model_b", "tie", "model_a"])[(score * 2).astype(int)]})
        data = PairDataset.from_pandas(frame)
        def work():
            model = BradleyTerry(n_competitors=len(data.competitors))
            return model.compute_ratings_and_cis(data, significance_level=0.05)
        timed("arena-rank (ratings and intervals, warm)", work, 1)
except Exception as error:
    out["arena-rank (ratings and intervals, warm)"] = repr(error)[:100]
print(json.dumps(out))
"""


def simulated(n: int, seed: int = 0, nu: float = 0.4) -> Battles:
    generator = np.random.default_rng(seed)
    theta = generator.normal(size=MODELS)
    first = generator.integers(0, MODELS, n)
    second = (first + generator.integers(1, MODELS, n)) % MODELS
    up = np.exp((theta[first] - theta[second]) / 2)
    u = generator.random(n) * (up + 1 / up + nu)
    score = np.where(u < up, 1.0, np.where(u < up + nu, 0.5, 0.0))
    names = tuple(f"m{k:03d}" for k in range(MODELS))
    return Battles(names, first, second, score, pd.DataFrame(index=range(n)))


def two_bincounts(b: Battles) -> np.ndarray:
    """The least that any method must do with the rows: wins of each ordered pair, from both sides."""
    won = np.bincount(b.first * MODELS + b.second, weights=b.score, minlength=MODELS**2)
    lost = np.bincount(b.second * MODELS + b.first, weights=1 - b.score, minlength=MODELS**2)
    return (won + lost).reshape(MODELS, MODELS)


def best(work, rounds: int = 7) -> float:
    work()
    times = []
    for _ in range(rounds):
        cpu = time.process_time()
        work()
        times.append(time.process_time() - cpu)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", help="a Python that has evalica, choix and arena-rank")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    options = parser.parse_args()
    for n in options.sizes:
        battles = simulated(n)
        counts = count(battles.first, battles.second, battles.score, MODELS)
        wins = counts.win_matrix()
        ours = {
            "two weighted bincounts, the plain counting pass": best(lambda b=battles: two_bincounts(b)),
            "counting pass": best(lambda b=battles: count(b.first, b.second, b.score, MODELS)),
            "fit (Newton)": best(lambda w=wins: fit_half(w)),
            "everything with row sandwich": best(lambda b=battles: bt.bradley_terry(b)),
            "a bootstrap round": best(lambda b=battles: bt.bradley_terry(b, bootstrap=20), 2) / 20,
        }
        whole = ours["everything with row sandwich"]
        print(f"\n{n:,} comparisons, {MODELS} models; CPU ms, ratio to our whole job with intervals")
        for name, seconds in ours.items():
            print(f"  {name:48}{1e3 * seconds:10.2f}{seconds / whole:8.2f}x")
        if options.peer:
            path = f"/tmp/battles-{os.getpid()}.npz"
            np.savez(path, first=battles.first, second=battles.second, score=battles.score, wins=wins)
            try:
                said = subprocess.run(
                    [options.peer, "-c", PEER, path], capture_output=True, text=True, check=True
                ).stdout
            finally:
                os.remove(path)
            for name, seconds in json.loads(said.splitlines()[-1]).items():
                if isinstance(seconds, str):
                    print(f"  {name:48}{seconds}")
                else:
                    print(f"  {name:48}{1e3 * seconds:10.2f}{seconds / whole:8.2f}x")


if __name__ == "__main__":
    main()
