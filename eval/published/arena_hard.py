"""Arena-Hard-Auto 0.1: its published judgments and board, brought from their public homes and made again.

The judgments are a data set of the hub, a file a model, each question judged in both orders; the board is a file of the
benchmark's git repository. Both are taken at one commit, so that they stay what they are: judgments through the hub's
client, with its cache, the board as :mod:`eval.published.fetch` does it.

A score is a model's share of wins against the baseline, a clear verdict (A>>B) counted three times and a tie as half a
win. It is the win rate of the published Bradley-Terry fit: where every model has met the baseline alone, a rating
answers for the model's own battles and no others.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from eval.published import fetch
from farm.base import files
from farm.base.errors import UserError
from farm.statistics import uncertainty
from farm.tables import arena_hard, hub
from farm.tables.formats import read_table

SCORE = "score"
TOLERANCE = 0.01
"""percent points: the published scores have two digits"""
_CLEAR = 3
"""how often a clear verdict counts"""
ROW = ("board", "method", "column", "published", "ours", "low", "high", "deviation", "reason")
"""the columns of :mod:`eval.published.boards`"""


_BOARD = fetch.PublishedFile(
    "the board of July 2024",
    "leaderboard/arena_hard_leaderboard_20240731.csv",
    fetch.Published(
        "arena_hard",
        annotator="gpt-4-1106-preview",
        leaderboard="leaderboard/arena_hard_leaderboard_20240731.csv",
        length_control=False,
        repository="lmarena/arena-hard-auto",
        revision="196f6b826783b3da7310e361a805fa36f0be83f3",
    ),
    on_hub=False,
)


@dataclass(frozen=True)
class ArenaHard:
    """Where it lives: the judgments and, in the repository, the board."""

    judge: str = "gpt-4-1106-preview"
    data_set: str = "lmarena-ai/arena-hard-auto"
    revision: str = "15f3746e21432264ce9b453999bde4f3c946d2e6"
    """of the data set"""
    judgments: str = "data/arena-hard-v0.1/model_judgment"
    board: fetch.PublishedFile = _BOARD


BOARDS = {"arena_hard": ArenaHard()}


class _Game(msgspec.Struct, gc=False):
    score: str | None = None


class _Row(msgspec.Struct, gc=False):
    """A model's answer to a question; the judge's words, most of a file, are not read."""

    games: list[_Game | None]
    model: str
    uid: str | None = None
    question_id: str | None = None
    """what ``uid`` was called before"""
    judge: str = ""


def compared(name: str, offline: bool = False) -> pd.DataFrame:
    """The board by name, fetched where it is not in the cache, in the rows of :mod:`eval.published.boards`."""
    source = BOARDS[name]
    folder = f"{source.judgments}/{source.judge}"
    found = hub.data_files(source.data_set, [f"{folder}/*.jsonl"], source.revision, offline or fetch.offline_asked())
    board = fetch.fetch_file(name, offline=offline, wanted=source.board)
    return made(name, sorted((found / folder).glob("*.jsonl")), board)


def made(name: str, judgments: list[Path], board: Path) -> pd.DataFrame:
    """The same from files. Raises UserError naming the file that holds no judgments, or no board."""
    games = pd.concat([_games(path) for path in judgments], ignore_index=True) if judgments else pd.DataFrame()
    if games.empty:
        raise UserError(f"{name}: there are no judgments of it")
    parts = dict(iter(games.groupby(games["generator_2"].map(_plain))))
    questions = max(part["id"].nunique() for part in parts.values())
    published = read_table(board)
    if not {"model", SCORE} <= set(published.columns):
        raise UserError(f"{board}: has no columns `model` and `{SCORE}`")
    rows: list[dict[str, Any]] = []
    for method, said in zip(published["model"].astype(str), published[SCORE].astype(float), strict=True):
        row: dict[str, Any] = {"board": name, "method": method, "column": SCORE, "published": said, "reason": ""}
        part = parts.get(_plain(method))
        if part is None:
            baseline = _plain(method) in set(games["generator_1"].map(_plain))
            rows.append({**row, "reason": "it is the baseline" if baseline else "it has no published judgments"})
            continue
        rate = _score(part)
        row |= {"ours": rate.value, "low": rate.low, "high": rate.high, "deviation": rate.value - said}
        if abs(rate.value - said) > TOLERANCE:
            judged = part["id"].nunique()
            few = f"its file holds verdicts on {judged} of {questions} questions"
            row["reason"] = few if judged < questions else "not explained: the published judgments have another mean"
        rows.append(row)
    return pd.DataFrame(rows, columns=list(ROW))


def _score(games: pd.DataFrame) -> uncertainty.Estimate:
    """In percent; the two games on a question err together."""
    counted = games["strength"].eq(1).map({True: _CLEAR, False: 1}).to_numpy()
    wins, questions = (np.repeat(values.to_numpy(), counted) for values in (games["preference"] - 1, games["id"]))
    rate = uncertainty.mean(wins, questions, bounds=uncertainty.SHARE)
    percent = {field: 100 * getattr(rate, field) for field in ("value", "standard_error", "low", "high")}
    return uncertainty.Estimate(**percent, n=rate.n, clusters=rate.clusters)


def _games(path: Path) -> pd.DataFrame:
    """The games of a file that have a verdict."""
    try:
        rows = msgspec.json.Decoder(_Row).decode_lines(files.read_bytes(path))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: holds no judgments of Arena-Hard ({error})") from error
    listed = [
        {
            "uid": row.uid or row.question_id or "",
            "model": row.model,
            "judge": row.judge,
            "games": [None if game is None else {"score": game.score} for game in row.games],
        }
        for row in rows
    ]
    table = arena_hard.read(pd.DataFrame(listed), str(path)) if listed else pd.DataFrame({"status": []})
    return table[table["status"] == "ok"]


def _plain(model: str) -> str:
    """A model's name as the board has it: without its owner, in small letters."""
    return model.rsplit("/", 1)[-1].lower()
