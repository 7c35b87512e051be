"""What ``farm leaderboard`` does: find out what the sources are, make the board, compare, print."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from eval.face.options import LeaderboardOptions
from eval.published import fetch, sources
from eval.published.board import METRICS, board
from eval.published.comparison import PublishedComparison, compare, read_published
from eval.rates.difficulty import Difficulty
from eval.rates.length_column import LengthControl
from eval.rates.length_control import Regulariser
from eval.rates.saved_weights import read_weights
from eval.ratings import battles as battle_files
from eval.ratings import bradley_terry
from eval.ratings.elo import elo
from farm.base.errors import OptionError, UserError
from farm.base.files import exists
from farm.face.options import with_flags
from farm.statistics.result import Result, plain
from farm.tables.formats import read_table

RATINGS = ("bradley_terry", "elo")
OF_RATINGS = ("style", "ties", "cluster", "prior", "anchor")
"""options that nothing but the fit of Bradley-Terry ratings looks at"""


Found = tuple[Result, pd.DataFrame, PublishedComparison | None]
"""a board, its table with the column ``method``, and how it compares with the published one"""


def made(options: LeaderboardOptions) -> Found:
    """The board of the sources; everything is read and computed before anything is written."""
    names = _names(options.sources)
    if options.pool and options.annotator is not None:
        raise OptionError("`pool` takes all annotators for one and `annotator` picks one; give one of them")
    if options.regularizer is not None and options.difficulty is None:
        raise OptionError("`regularizer` needs `difficulty`: its rows are part of the same fit")
    paths: list[Path] = []
    for name in names:
        if name in fetch.PUBLISHED and not exists(Path(name)):
            found = fetch.fetch(fetch.PUBLISHED[name], offline=options.offline)
            paths.append(found.directory)
            options = replace(options, annotator=options.annotator or found.annotator)
            if options.annotator == found.annotator:
                options = replace(
                    options,
                    published=options.published or found.leaderboard,
                    difficulty=options.difficulty or found.difficulty,
                    regularizer=options.regularizer or found.regulariser,
                )
        elif not exists(Path(name)):
            known = sorted(fetch.PUBLISHED)
            raise UserError(f"{name}: no such file or directory, nor a set to fetch ({', '.join(known)})")
        else:
            paths.append(Path(name))
    asked: Sequence[str] = options.metrics
    fights = [p.is_file() and battle_files.is_battles(p) for p in paths]
    if any(fights) and not all(fights):
        raise UserError(f"{paths[fights.index(False)]}: annotations and battles cannot stand in one board")
    shown: Result
    if "bradley_terry" not in (asked or ["bradley_terry"] * all(fights)):
        defaults = {field.name: field.default for field in fields(options)}
        said = [name for name in OF_RATINGS if getattr(options, name) and getattr(options, name) != defaults[name]]
        if said:
            raise OptionError(
                f"`{said[0]}` is part of Bradley-Terry ratings; ask for them with `metrics` bradley_terry"
            )
    if all(fights) or any(m in RATINGS for m in asked):
        if any(m in METRICS for m in asked):
            raise OptionError(
                f"`metrics` {','.join(asked)}: ratings and win rates are separate boards; ask for one of them"
            )
        if not all(fights):
            _only_files(paths)
        shown = _ratings(paths, asked or ["bradley_terry"], options)
        table = shown.table().rename(columns={"model": "method"})
    else:
        controlled = ["length_controlled"] if options.difficulty or options.weights else []
        shown = board(
            sources.read(
                paths, annotator=options.annotator, baseline=options.baseline, pool=options.pool, item=options.item
            ),
            metrics=asked or ["win_rate", *controlled],
            length_control=_length_control(options),
            confidence=options.confidence,
            rounds=options.rounds,
            seed=options.seed,
        )
        table = shown.table()
    return shown, table, None if options.published is None else _compared(table, options.published, options)


def _compared(table: pd.DataFrame, published: Path, options: LeaderboardOptions) -> PublishedComparison:
    unlike = {
        "`difficulty` FILE": options.difficulty is None,
        "`regularizer` FILE": options.regularizer is None,
        "`lc_recipe` published": options.lc_recipe != "published",
        "`lc_alignment` position": options.lc_alignment != "position",
        "`lc_over` judged": options.lc_over != "judged",
    }
    return compare(
        table,
        read_published(_read_published_file(published), str(published)),
        origin=str(published),
        recipe=" ".join(option for option, lacking in unlike.items() if lacking),
    )


def _names(given: Any) -> list[str]:
    names = [given] if isinstance(given, (str, Path)) else given
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, (str, Path)) for name in names):
        raise UserError("a leaderboard's sources are files, folders or names of sets; farm.evaluate takes rows")
    return [str(name) for name in names]


def _only_files(paths: Sequence[Path]) -> None:
    for path in paths:
        if path.is_dir():
            raise UserError(f"{path}: ratings are fitted from files; name the annotation or battles files")


def _read_published_file(path: Path) -> pd.DataFrame:
    table = read_table(path)
    if not len(table):
        raise UserError(f"{path}: holds no row")
    first = str(table.columns[0])
    return table.rename(columns={first: "method"}) if first.startswith("Unnamed") or not first else table


def _length_control(options: LeaderboardOptions) -> LengthControl:
    difficulty, regularizer, weights = options.difficulty, options.regularizer, options.weights
    return LengthControl(
        Difficulty.from_frame(read_table(difficulty), str(difficulty)) if difficulty else None,
        Regulariser.from_frame(read_table(regularizer), str(regularizer)) if regularizer else None,
        read_weights(read_table(weights), str(weights)) if weights else None,
        options.lc_recipe,
        options.lc_alignment,
        options.lc_over,
    )


def _ratings(paths: Sequence[Path], asked: Sequence[str], options: LeaderboardOptions) -> Result:
    battles = battle_files.read_battles(list(paths))
    if "bradley_terry" not in asked:
        return EloBoard.of(battles)
    fitted = bradley_terry.bradley_terry(
        battles,
        ties=options.ties,
        clusters=options.cluster,
        prior=options.prior,
        anchor=options.anchor,
        bootstrap=options.rounds if np.isin(battles.score, (0, 0.5, 1)).all() else 0,
        seed=options.seed,
        confidence=options.confidence,
        style=options.style,
    )
    return RatedBoard(fitted, elo(battles) if "elo" in asked else None)


@dataclass(frozen=True)
class RatedBoard(Result):
    """Bradley-Terry ratings, with Elo beside them where asked for."""

    ratings: bradley_terry.BradleyTerry
    elo: pd.Series | None

    def table(self) -> pd.DataFrame:
        table = self.ratings.table()
        return table if self.elo is None else table.assign(elo=self.elo.reindex(table["model"]).to_numpy())

    def settings(self) -> dict[str, object]:
        return self.ratings.settings()

    def __str__(self) -> str:
        return str(self.ratings) if self.elo is None else super().__str__()


@dataclass(frozen=True)
class EloBoard(Result):
    """Elo after one pass in the order of the file."""

    ratings: pd.Series
    battles: int
    k: float = 4.0

    @classmethod
    def of(cls, battles: battle_files.Battles) -> EloBoard:
        return cls(elo(battles), len(battles))

    def table(self) -> pd.DataFrame:
        ranks = np.arange(1, len(self.ratings) + 1)
        return pd.DataFrame({"rank": ranks, "model": self.ratings.index, "elo": self.ratings.to_numpy()})

    def settings(self) -> dict[str, object]:
        return {"battles": self.battles, "K": self.k, "caution": "depends on the order of the battles"}


OFFICIAL = (
    "win_rate standard_error n_wins n_wins_base n_draws n_total discrete_win_rate avg_length length_controlled_winrate "
    "lc_standard_error"
).split()
"""AlpacaEval's columns, in the order of its files"""


def written(table: pd.DataFrame, out: Path) -> pd.DataFrame:
    """The table as AlpacaEval lays out its leaderboards, ours behind: the models first, in CSV without a name."""
    first = ["method", *(c for c in OFFICIAL if c in table.columns)]
    laid_out = table[[*first, *(c for c in table.columns if c not in first)]]
    return laid_out.rename(columns={"method": ""}) if ".csv" in out.suffixes else laid_out


def show(found: Found, as_json: bool) -> None:
    """Print a board, and how it compares with the published one."""
    import typer

    shown, _, comparison = found
    if comparison is not None:
        comparison = replace(comparison, recipe=with_flags(comparison.recipe, LeaderboardOptions))
    if as_json:
        whole = ("rows", "ratings", "elo")  # in the table, or thousands of numbers behind it
        data = {k: v for k, v in shown.to_dict().items() if k not in whole}
        data |= {"leaderboard": plain(shown.table()), "settings": shown.settings()}
        if isinstance(shown, RatedBoard) and shown.ratings.style is not None:
            data["style"] = plain(shown.ratings.style)
        if comparison is not None:
            data["published"] = comparison.to_dict()
        typer.echo(json.dumps(data, indent=2, ensure_ascii=False, default=str))
        return
    typer.echo(str(shown))
    if comparison is not None:
        typer.echo("\n" + str(comparison))
