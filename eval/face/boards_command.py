"""What ``farm boards`` does: list the published boards, or make those that are named again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from eval.face.options import BoardsOptions
from eval.published import arena_hard, boards, fetch
from farm.base.errors import UserError, nearest
from farm.statistics.result import Result
from farm.storage.store import home
from farm.tables.formats import read_table


@dataclass(frozen=True)
class Known(Result):
    """What there is to fetch by name."""

    known: pd.DataFrame

    def table(self) -> pd.DataFrame:
        return self.known

    def settings(self) -> dict[str, Any]:
        return {"next": "farm boards NAME fetches and makes again; farm validate takes the files of votes by name, too"}


@dataclass(frozen=True)
class Judges(Result):
    """The published leaderboard of judges, as it stands there."""

    judges: pd.DataFrame

    def table(self) -> pd.DataFrame:
        return self.judges

    def settings(self) -> dict[str, Any]:
        return {"as published": fetch.FILES["alpaca_eval_judges"].path}


def found(options: BoardsOptions) -> tuple[Result, pd.DataFrame]:
    """What is shown, and its rows as a table.

    Raises:
        UserError: for a name that is none, or what could not be fetched.
    """
    if not options.names:
        known = _known()
        return Known(known), known
    if options.names == ("alpaca_eval_judges",):
        table = read_table(fetch.fetch_file("alpaca_eval_judges", offline=options.offline))
        table = table.rename(columns={table.columns[0]: "judge"})
        return Judges(table), table
    names = boards.known() if options.names == ("all",) else options.names
    for name in names:
        if name not in boards.known():
            if name in ("alpaca_eval_judges", "all"):
                raise UserError(f"farm boards: `{name}` goes by itself; ask for the others without it")
            hint = nearest(name, [*boards.known(), "alpaca_eval_judges", "all"])
            raise UserError(f"there is no published board `{name}`; {hint}")
    made = boards.boards(names, options.offline)
    return made, made.rows


def _known() -> pd.DataFrame:
    rows = [(name, f"board by {source.annotator}") for name, source in fetch.PUBLISHED.items()]
    rows += [(name, f"board by {source.judge}") for name, source in arena_hard.BOARDS.items()]
    rows += [(name, file.about) for name, file in fetch.FILES.items()]
    fetched = [(home() / "sources" / name).is_dir() for name, _ in rows]
    return pd.DataFrame(rows, columns=["name", "what"]).assign(fetched=fetched)
