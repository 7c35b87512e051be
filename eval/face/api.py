"""Evaluation from Python, as the commands do it: evaluate, leaderboard, validate, power, report and compare.

What a command asks in percent points is percent points here.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pandas as pd

from eval.evaluators.evaluation import Evaluation, evaluate_table, read_files, together
from eval.judges import judging
from farm.asking.limits import Limits
from farm.base import files
from farm.base.errors import UserError
from farm.statistics.result import Result
from farm.tables import formats

if TYPE_CHECKING:
    from eval.rates.power import Power
    from eval.report.compare import RunComparison

Table: TypeAlias = pd.DataFrame | Sequence[Mapping[str, Any]] | str | Path


def evaluate(
    rows: Table,
    *,
    judge: str | None = None,
    baseline: Table | None = None,
    human: Table | None = None,
    judge_settings: Sequence[str] = (),
    store: str | Path | None = None,
    fresh: bool = False,
    budget: float | None = None,
    concurrency: int | None = None,
    seed: int = 0,
    **settings: Any,
) -> Evaluation | dict[str, pd.DataFrame]:
    """Win rates with intervals of annotations, or of model outputs that a judge compares with a baseline's.

    Args:
        rows: annotations, or with ``judge`` and ``baseline`` outputs (``instruction, output, generator``): a table,
            rows or a file. A run folder gives the tables of its evaluator, by name.
        human: people's annotations of some of the pairs: PPI++, and biases as judge minus human.
        judge_settings, store, fresh: changes to the judge (``["temperature=0"]``), and where its verdicts are kept, as
            the command's ``--set``, ``--store`` and ``--fresh``.
        budget, concurrency: US dollars for all questions to the judge, and how many are in flight.
        settings: as in :func:`eval.evaluators.evaluation.evaluate_table`: ``confidence``, ``by``, ``flip_rate``, ...
    """
    limits = Limits(budget, concurrency)
    if isinstance(rows, (str, Path)) and Path(rows).is_dir():
        from eval.face.run_evaluation import evaluate_run

        return evaluate_run(Path(rows))
    if human is not None:
        settings["humans"] = formats.as_annotations(
            _read(human, "the human annotations"), _named(human, "the human annotations")
        )
    if judge is None and baseline is None:
        if judge_settings or store is not None or fresh or limits != Limits():
            raise UserError(
                "`judge_settings`, `store`, `fresh` and limits belong to a judge; annotations are taken as they are"
            )
        if isinstance(rows, (str, Path)):
            return evaluate_table(read_files([Path(rows)]), seed=seed, **settings)
        given = formats.as_annotations(_read(rows, "the annotations"), "the annotations")
        return evaluate_table(together([("the annotations", given)]), seed=seed, **settings)
    if judge is None or baseline is None:
        raise UserError("model outputs need both `judge` and `baseline`")
    with tempfile.TemporaryDirectory() as place:
        named = ((rows, "own", "the outputs"), (baseline, "base", "the baseline's outputs"))
        own, base = (_written(table, Path(place) / f"{name}.json", origin) for table, name, origin in named)
        pairs = judging.pairs([own], base)
    judged = judging.judge(
        pairs, judge, settings=judge_settings, seed=seed, store=_path(store), fresh=fresh, limits=limits
    )
    return evaluate_table(judged.rows, seed=seed, **settings)


def leaderboard(
    sources: str | Path | Sequence[str | Path],
    *,
    annotator: str | None = None,
    baseline: str | None = None,
    metrics: Sequence[str] = (),
    published: str | Path | None = None,
    difficulty: str | Path | None = None,
    regularizer: str | Path | None = None,
    weights: str | Path | None = None,
    lc_recipe: str = "newton",
    lc_alignment: str = "instruction",
    lc_over: str = "judged",
    ties: str = "half",
    cluster: Sequence[str] = (),
    prior: float = 0.0,
    anchor: str = "",
    rounds: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
    offline: bool = False,
) -> pd.DataFrame:
    """The published columns with intervals, from results directories, annotation files or battles.

    Args:
        sources: as the command's, ``alpaca_eval_2`` to fetch included.
        metrics: ``win_rate``, ``length_controlled``, ``bradley_terry``, ``elo``; by default what the sources allow.
        published: a published leaderboard; how far each row is from it is in ``attrs["published"]``.
    """
    from eval.face import leaderboard_command

    named = [sources] if isinstance(sources, (str, Path)) else sources
    if not isinstance(named, Sequence) or not all(isinstance(name, (str, Path)) for name in named):
        raise UserError("farm.leaderboard: sources are files, folders or names of sets; farm.evaluate takes rows")
    _shown, table, comparison = leaderboard_command.made(
        [str(name) for name in named],
        annotator=annotator,
        baseline=baseline,
        published=_path(published),
        metrics=",".join(metrics),
        difficulty=_path(difficulty),
        regularizer=_path(regularizer),
        weights=_path(weights),
        recipe=lc_recipe,
        alignment=lc_alignment,
        over=lc_over,
        ties=ties,
        clusters=list(cluster),
        prior=prior,
        anchor=anchor,
        rounds=rounds,
        seed=seed,
        confidence=confidence,
        offline=offline,
    )
    if comparison is not None:
        table.attrs["published"] = comparison.to_dict()  # plain data: attrs travel with copies and files
    return table


def validate(
    judge: Table,
    human: Table | None = None,
    *,
    annotator: str | None = None,
    pool: bool = False,
    pairs: str | Path | None = None,
    export: str | Path | None = None,
    by: str | None = None,
    rounds: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Result:
    """Judge the judge: agreement beside the human ceiling, biases, what its labels are worth.

    Args:
        judge: verdicts of the judge, one or more a pair: a table, rows or a file in any known layout.
        human: votes of humans on the same pairs; without them, what the judge alone tells.
        annotator, pool, pairs, export, by: as the command's options.

    Returns:
        :class:`eval.judges.validate.Validation`, :class:`eval.rates.habits.JudgeAlone` without humans, or
        :class:`eval.judges.judge_runs.JudgeRuns` where the verdicts carry a ``human_label``.
    """
    from eval.face import validate_command
    from farm.votes.table import from_table, read_votes

    if pairs is not None:
        if not isinstance(judge, (str, Path)):
            raise UserError("farm.validate: `pairs` joins texts to the verdicts of a file")
        votes = validate_command.with_texts(Path(judge), Path(pairs))
    elif isinstance(judge, (str, Path)):
        votes = read_votes(judge)
    else:
        votes = from_table(_read(judge, "the judge"), "the judge", annotator="judge")
    humans = None
    if human is not None:
        if isinstance(human, (str, Path)):
            humans = read_votes(human)
        else:
            humans = from_table(_read(human, "the humans"), "the humans", annotator="human")
    return validate_command.of_votes(
        votes,
        humans,
        by,
        rounds,
        seed,
        confidence,
        annotator=annotator,
        pool=pool,
        export=_path(export),
        origin=str(judge) if isinstance(judge, (str, Path)) else "the judge",
    )


def power(
    difference: float | None = None,
    *,
    annotations: int | None = None,
    flip_rate: float = 0.0,
    design_effect: float = 1.0,
    per_cluster: float | None = None,
    icc: float = 0.0,
    paired: bool = False,
    variance: float | None = None,
    power: float = 0.8,
    significance: float = 0.05,
) -> Power:
    """How many annotations find a difference (percent points), or what difference a given number can show.

    Example:
        >>> power(5, flip_rate=0.25).annotations
        3132
    """
    from eval.rates import power as planning

    if (difference is None) == (annotations is None):
        raise UserError("give either --difference (percent points) or --annotations")
    if per_cluster is None and icc:
        raise UserError("--icc needs --per-cluster: how many rows a cluster has")
    if per_cluster is not None and design_effect != 1:
        raise UserError("--design-effect and --per-cluster say the same thing; give one of them")
    design = design_effect if per_cluster is None else planning.design_effect(per_cluster, icc)
    settings = {"power": power, "significance": significance, "flip_rate": flip_rate, "design_effect": design}
    if difference is not None:
        return planning.needed(difference / 100, paired=paired, variance=variance, **settings)
    return planning.detectable(annotations or 0, paired=paired, variance=variance, **settings)


def compare(first: str | Path, second: str | Path, *, out: str | Path | None = None) -> RunComparison:
    """Two runs side by side: settings that differ, differences of win rates, changes of rank.

    Args:
        out: also write the page here (.html).
    """
    from eval.report import compare as comparing

    page = _path(out)
    if page is not None:
        if page.suffix != ".html":
            raise UserError(f"--out {page}: the page is a file that ends in .html")
        files.check_out(page)
    found, one, two = comparing.compare(Path(first), Path(second))
    if page is not None:
        comparing.write(found, one, two, page)
    return found


def report(run: str | Path, examples: int = 20) -> Path:
    """Write the report of a run folder again, from its files alone."""
    from eval.report.html import Html

    return Html(examples).write(Path(run))


def _path(name: str | Path | None) -> Path | None:
    return None if name is None else Path(name)


def _read(rows: Table, origin: str) -> pd.DataFrame:
    return formats.read_table(Path(rows)) if isinstance(rows, (str, Path)) else formats.rows(rows, origin)


def _named(rows: Table, origin: str) -> str:
    return str(rows) if isinstance(rows, (str, Path)) else origin


def _written(rows: Table, path: Path, origin: str) -> Path:
    if isinstance(rows, (str, Path)):
        return Path(rows)
    table = _read(rows, origin)
    formats.require(table, ["instruction", "output"], origin)
    formats.write_table(table, path)
    return path
