"""Write the demo's table into README.md from a finished run, and the numbers behind it into docs/demo.json.

    .venv/bin/python benchmarks/readme_table.py runs/pocket-s1-...

tests/docs/test_demo.py compares the two, and the slow test of the demo compares a fresh run with the numbers.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
from pathlib import Path

import pandas as pd

from farm.experiments.run_folder import compact, read_comparison
from farm.experiments.running import Run
from farm.face import tables

ROOT = Path(__file__).parents[1]
README, RECORD = ROOT / "README.md", ROOT / "docs" / "demo.json"
BLOCK = re.compile(r"(?<=^```text\n)pocket, seed 1\n.*?(?=^```$)", re.MULTILINE | re.DOTALL)
KEPT = ["rank", "rank_low", "rank_high", "method", "kl"]
SHOWN = ["win_rate", "win_rate_humans", "win_rate_gold", "gold"]


def table(board: pd.DataFrame) -> str:
    """The leaderboard as `farm run` prints it where there is no terminal."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        tables.print_table(compact(board), "pocket, seed 1")
    return "".join(line.rstrip() + "\n" for line in out.getvalue().splitlines())


def record(run: Path) -> dict[str, object]:
    """What is kept of a run: the numbers that the table shows, and where they are from."""
    if read_comparison(run).seed != 1:
        raise SystemExit(f"{run}: the README shows seed 1")
    board = Run(run).leaderboard
    columns = [c for c in board.columns if c in KEPT or c.removesuffix("_low").removesuffix("_high") in SHOWN]
    made = json.loads((run / "environment.json").read_text())
    return {
        **{key: made[key] for key in ("date", "feedback-farm", "platform", "cores")},
        "leaderboard": json.loads(board[columns].to_json(orient="records", double_precision=15)),
    }


def main(run: Path) -> None:
    kept = record(run)
    text = README.read_text()
    new, count = BLOCK.subn(lambda _: table(pd.DataFrame(kept["leaderboard"])), text)
    if count != 1:
        raise SystemExit(f"{README}: the block ```text that begins with `pocket, seed 1` is not there")
    RECORD.write_text(json.dumps(kept, indent=1) + "\n")
    README.write_text(new)
    print(f"{README} and {RECORD} are those of {run}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
