"""Arena-Hard's judgments: a row a question and model, with two games in which both orders are judged.

In the first game A is the baseline and B the model, in the second the other way round; ``score`` is A>>B, A>B, A=B, B>A
or B>>A (or B<<A and so on, which say the same), and null, of a game or of its score, is no verdict. A game is a pair of
its own; how clear its verdict is goes to ``strength``, 1 for a double sign and 1/2 for a single one (the published
boards count the clear ones three times).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from farm.base.errors import UserError, shown
from farm.tables.table_files import is_missing

BASELINE = "gpt-4-0314"
"""of version 0.1, whose rows do not name theirs"""
_WINNERS = {"A>B": 1.0, "B<A": 1.0, "A=B": 1.5, "B=A": 1.5, "B>A": 2.0, "A<B": 2.0}
_SCORES = {score: (winner, 0.5) for score, winner in _WINNERS.items()} | {
    score.replace(sign, sign * 2): (winner, 1.0) for score, winner in _WINNERS.items() for sign in "<>" if sign in score
}


def read(table: pd.DataFrame, origin: str) -> pd.DataFrame:
    """Two pairs a row, the baseline first, without texts: ``id, preference, strength, shown_first``.

    Raises:
        UserError: naming the row whose games are not two objects with a known score.
    """
    out: list[dict[str, Any]] = []
    name = next((c for c in ("question_id", "uid") if c in table.columns), None)
    if name is None:
        raise UserError(f"{origin}: arena_hard names its questions, and the field `question_id` is missing")
    for row, record in enumerate(table.to_dict("records"), start=1):
        named = record.get("baseline")
        games = record["games"]
        listed = list(games) if isinstance(games, (list, np.ndarray)) else []
        if len(listed) != 2 or not all(game is None or isinstance(game, dict) for game in listed):
            raise UserError(f"{origin}: row {row}: `games` is {shown(games)}, not a list of two objects with a `score`")
        for place, game in enumerate(listed):
            score = None if game is None else game.get("score")
            if not is_missing(score) and not (isinstance(score, str) and score in _SCORES):
                raise UserError(f"{origin}: row {row}: `score` is {shown(score)}, not A>>B, A>B, A=B, B>A or B>>A")
            preference, strength = _SCORES.get(str(score), (np.nan, np.nan))
            out.append(
                {
                    "id": str(record[name]),
                    "generator_1": BASELINE if is_missing(named) or not named else str(named),
                    "generator_2": str(record["model"]),
                    "annotator": str(record["judge"]),
                    "preference": preference if place == 0 else 3 - preference,
                    "strength": strength,
                    "shown_first": place + 1,
                    "status": "unparseable" if np.isnan(preference) else "ok",
                }
            )
    return pd.DataFrame(out)
