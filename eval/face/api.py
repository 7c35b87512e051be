"""Evaluation from Python, as the commands do it: evaluate, leaderboard, validate, bias, power, report
and compare.

The arguments are those of the commands (:mod:`eval.face.options`), with tables and rows where a command takes files.
What a command asks in percent points is percent points here.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from eval.evaluators.evaluation import Evaluation
from eval.face.options import (
    BiasOptions,
    BoardsOptions,
    CompareOptions,
    EvaluateOptions,
    LeaderboardOptions,
    PowerOptions,
    ReportOptions,
    ValidateOptions,
)
from farm.face.options import takes
from farm.statistics.result import Result

if TYPE_CHECKING:
    from eval.judges.interventions import Bias
    from eval.rates.power import Power
    from eval.report.compare import RunComparison


@takes(EvaluateOptions)
def evaluate(options: EvaluateOptions) -> Evaluation | dict[str, pd.DataFrame]:
    """Win rates with intervals of annotations, or of model outputs that a judge compares with a baseline's.

    A run folder gives the tables of its evaluator, by name.
    """
    from eval.face.evaluate_command import evaluated
    from eval.face.run_evaluation import evaluate_run, refuse_others, run_folder

    folder = run_folder(options.rows)
    if folder is None:
        return evaluated(options)
    refuse_others(options, folder)
    return evaluate_run(folder)


@takes(LeaderboardOptions)
def leaderboard(options: LeaderboardOptions) -> pd.DataFrame:
    """The published columns with intervals, from results directories, annotation files or battles.

    How far each row is from a published leaderboard is in ``attrs["published"]``.
    """
    from eval.face import leaderboard_command

    _, table, comparison = leaderboard_command.made(options)
    if comparison is not None:
        table.attrs["published"] = comparison.to_dict()  # plain data: attrs travel with copies and files
    return table


@takes(BoardsOptions)
def boards(options: BoardsOptions) -> pd.DataFrame:
    """Published boards made again: board, method, column, published, ours, low, high, deviation, reason.

    Without a name, which boards and files there are: name, what, fetched.
    """
    from eval.face.boards_command import found

    return found(options)[1]


@takes(ValidateOptions)
def validate(options: ValidateOptions) -> Result:
    """Judge the judge: agreement beside the human ceiling, biases, what its labels are worth.

    Gives :class:`eval.judges.validation.Validation`, :class:`eval.rates.habits.JudgeAlone` without humans, or
    :class:`eval.judges.judge_runs.JudgeRuns` where the verdicts carry a ``human_label``.
    """
    from eval.face.validate_command import validated

    return validated(options)


@takes(BiasOptions)
def bias(options: BiasOptions) -> Bias:
    """A judge's bias as a causal effect: what becomes of its verdicts where outputs are edited."""
    from eval.face.bias_command import measured

    return measured(options)


@takes(PowerOptions)
def power(options: PowerOptions) -> Power:
    """How many annotations find a difference (percent points), or what difference a given number can show.

    Example:
        >>> power(5, flip_rate=0.25).annotations
        3132
    """
    from eval.face.power_command import planned

    return planned(options)


@takes(CompareOptions)
def compare(options: CompareOptions) -> RunComparison:
    """Two runs side by side: settings that differ, differences of win rates, changes of rank."""
    from eval.face.report_commands import compared

    return compared(options)


@takes(ReportOptions)
def report(options: ReportOptions) -> Path:
    """Write the report of a run folder again, from its files alone."""
    from eval.face.report_commands import reported

    return reported(options)
