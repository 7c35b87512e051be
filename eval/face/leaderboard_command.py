"""What ``farm leaderboard`` does: find out what the sources are, make the board, compare, print, write."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import pandas as pd

from eval.published import fetch, sources
from eval.published.board import METRICS, board
from eval.published.comparison import PublishedComparison, compare, read_published
from eval.published.show import check_out
from eval.rates.difficulty import Difficulty
from eval.rates.length_column import LengthControl
from eval.rates.length_control import Alignment, Recipe, Regulariser, read_weights
from eval.ratings import battles as battle_files
from eval.ratings import bradley_terry
from eval.ratings.elo import elo
from farm.base.errors import UserError, nearest
from farm.base.files import exists
from farm.statistics.result import Result, plain
from farm.tables.formats import read_table, write_table

RATINGS = ("bradley_terry", "elo")


def run(names: Sequence[str], *, out: Path | None, as_json: bool, **options: Any) -> None:
    """Make and show the board of ``names``; everything is read and computed before anything is written."""
    check_out(
        out, *map(Path, names), *(options[name] for name in ("published", "difficulty", "regularizer", "weights"))
    )
    shown, table, comparison = made(names, **options)
    if out is not None:
        write_table(table, out)
    _print(shown, comparison, as_json)


def made(
    names: Sequence[str],
    *,
    annotator: str | None,
    baseline: str | None,
    published: Path | None,
    metrics: str | None,
    difficulty: Path | None,
    regularizer: Path | None,
    weights: Path | None,
    recipe: str,
    alignment: str,
    over: str,
    ties: str,
    clusters: Sequence[str],
    prior: float,
    anchor: str,
    rounds: int,
    seed: int,
    confidence: float,
    offline: bool,
) -> tuple[Result, pd.DataFrame, PublishedComparison | None]:
    """The board of ``names``, its table with the column ``method``, and how it compares with the published one."""
    _choice("--lc-recipe", recipe, get_args(Recipe))
    _choice("--lc-alignment", alignment, get_args(Alignment))
    _choice("--lc-over", over, ("judged", "all"))
    _choice("--ties", ties, get_args(bradley_terry.Ties))
    if regularizer is not None and difficulty is None:
        raise UserError("--regularizer needs --difficulty: its rows are part of the same fit")
    paths: list[Path] = []
    asked = [m.strip() for m in metrics.split(",") if m.strip()] if metrics else []
    for metric in asked:
        _choice("--metrics", metric, (*METRICS, *RATINGS))
    for name in names:
        if name in fetch.PUBLISHED and not exists(Path(name)):
            found = fetch.fetch(fetch.PUBLISHED[name], offline=offline)
            paths.append(found.directory)
            annotator = annotator or found.annotator
            if annotator == found.annotator:
                published = published or found.leaderboard
                difficulty, regularizer = difficulty or found.difficulty, regularizer or found.regulariser
        elif not exists(Path(name)):
            known = sorted(fetch.PUBLISHED)
            raise UserError(f"{name}: no such file or directory, nor a set to fetch ({', '.join(known)})")
        else:
            paths.append(Path(name))
    fights = [p.is_file() and battle_files.is_battles(p) for p in paths]
    if any(fights) and not all(fights):
        raise UserError(f"{paths[fights.index(False)]}: annotations and battles cannot stand in one board")
    shown: Result
    if all(fights) or any(m in RATINGS for m in asked):
        if any(m in METRICS for m in asked):
            raise UserError(f"--metrics {metrics}: ratings and win rates are separate boards; ask for one of them")
        if not all(fights):
            _only_files(paths)
        shown = _ratings(paths, asked or ["bradley_terry"], ties, clusters, prior, anchor, rounds, seed, confidence)
        table = shown.table().rename(columns={"model": "method"})
    else:
        if not asked:
            asked = ["win_rate"] + (["length_controlled"] if difficulty or weights else [])
        control = _length_control(difficulty, regularizer, weights, recipe, alignment, over)
        rows = sources.read(paths, annotator=annotator, baseline=baseline)
        shown = board(rows, metrics=asked, length_control=control, confidence=confidence, rounds=rounds, seed=seed)
        table = shown.table()
    comparison: PublishedComparison | None = None
    if published is not None:
        unlike = {
            "--difficulty FILE": difficulty is None,
            "--regularizer FILE": regularizer is None,
            "--lc-recipe published": recipe != "published",
            "--lc-alignment position": alignment != "position",
            "--lc-over judged": over != "judged",
        }
        comparison = compare(
            table,
            read_published(_read_published_file(published), str(published)),
            origin=str(published),
            recipe=" ".join(option for option, lacking in unlike.items() if lacking),
        )
    return shown, table, comparison


def _choice(option: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise UserError(f"{option} {value}: unknown; {nearest(value, known)}")


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


def _length_control(
    difficulty: Path | None, regularizer: Path | None, weights: Path | None, recipe: str, alignment: str, over: str
) -> LengthControl:
    return LengthControl(
        Difficulty.from_frame(read_table(difficulty), str(difficulty)) if difficulty else None,
        Regulariser.from_frame(read_table(regularizer), str(regularizer)) if regularizer else None,
        read_weights(read_table(weights), str(weights)) if weights else None,
        cast(Recipe, recipe),
        cast(Alignment, alignment),
        cast(Literal["judged", "all"], over),
    )


def _ratings(
    paths: Sequence[Path],
    asked: Sequence[str],
    ties: str,
    clusters: Sequence[str],
    prior: float,
    anchor: str,
    rounds: int,
    seed: int,
    confidence: float,
) -> Result:
    battles = battle_files.read_battles(list(paths))
    if "bradley_terry" not in asked:
        return EloBoard.of(battles)
    fitted = bradley_terry.bradley_terry(
        battles,
        ties=cast(Literal["half", "drop", "davidson"], ties),
        clusters=clusters,
        prior=prior,
        anchor=anchor,
        bootstrap=rounds if np.isin(battles.score, (0, 0.5, 1)).all() else 0,
        seed=seed,
        confidence=confidence,
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


def _print(shown: Result, comparison: PublishedComparison | None, as_json: bool) -> None:
    import typer

    if as_json:
        data = shown.to_dict() | {"leaderboard": plain(shown.table()), "settings": shown.settings()}
        data.pop("rows", None)
        if comparison is not None:
            data["published"] = comparison.to_dict()
        typer.echo(json.dumps(data, indent=2, ensure_ascii=False, default=str))
        return
    typer.echo(str(shown))
    if comparison is not None:
        typer.echo("\n" + str(comparison))
