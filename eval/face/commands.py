"""The commands of the evaluation wing. The work is imported inside each command, so that ``farm --help`` is quick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eval.face.options import (
    BiasOptions,
    BoardsOptions,
    EvaluateOptions,
    LeaderboardOptions,
    PowerOptions,
    ValidateOptions,
)
from eval.face.report_commands import register as register_report
from farm.face.options import command

_JSON = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
_OUT = Annotated[Path | None, typer.Option(help="Also write the table here (.csv, .json, .jsonl or .parquet).")]


def register(app: typer.Typer) -> None:
    """Add the commands of this wing to the ``farm`` command line."""
    app.command()(evaluate)
    app.command()(leaderboard)
    app.command()(boards)
    app.command()(validate)
    app.command()(bias)
    app.command()(power)
    register_report(app)


@command(EvaluateOptions)
def evaluate(options: EvaluateOptions, out: _OUT = None, as_json: _JSON = False) -> None:
    """Win rates with intervals: overall, by dataset, corrected for length and noise. Annotations need no model.

    Example: farm evaluate results/claude-2/alpaca_eval_gpt4/annotations.json --json
    """
    from eval.face.evaluate_command import evaluated, files
    from eval.face.run_evaluation import print_run, refuse_others, run_folder
    from eval.judges.judging import Judged
    from eval.published import show
    from farm.base.errors import UserError

    show.check_out(out, *(files(options.rows) or ()))
    folder = run_folder(options.rows)
    if folder is not None:
        refuse_others(options, folder)
        if out is not None:
            raise UserError(f"--out: {folder} has the tables of its evaluation already; print them with --json")
        print_run(folder, as_json)
        return

    def judged(found: Judged) -> None:
        asked, paid = len(found.rows) - found.reused, f"${found.paid:.2f}"
        typer.echo(f"{options.judge}: {asked} verdicts asked, {found.reused} from the store, {paid}", err=True)

    show.result(evaluated(options, judged), out, as_json)


@command(LeaderboardOptions)
def leaderboard(options: LeaderboardOptions, out: _OUT = None, as_json: _JSON = False) -> None:
    """A leaderboard from annotations or battles: published columns exactly, then intervals and ranks.

    Example: farm leaderboard results/ --annotator weighted_alpaca_eval_gpt4_turbo --published leaderboard.csv
    """
    from eval.face import leaderboard_command
    from eval.published import show
    from farm.tables.formats import write_table

    read = (options.published, options.difficulty, options.regularizer, options.weights)
    show.check_out(out, *map(Path, options.sources), *read)
    found = leaderboard_command.made(options)
    if out is not None:
        write_table(leaderboard_command.written(found[1], out), out)
    leaderboard_command.show(found, as_json)


@command(BoardsOptions)
def boards(options: BoardsOptions, out: _OUT = None, as_json: _JSON = False) -> None:
    """Published boards made again: our number, how far it is off, and why. Data is fetched for the boards you name.

    Example: farm boards alpaca_eval_1 --out rows.csv
    """
    from eval.face.boards_command import found
    from eval.published import show

    show.check_out(out)
    shown, rows = found(options)
    show.result(shown, out, as_json, table=rows)


@command(ValidateOptions)
def validate(options: ValidateOptions, out: _OUT = None, as_json: _JSON = False) -> None:
    """Judge the judge: its agreement beside the human ceiling, its biases, and what its labels are worth.

    Example: farm validate gpt4-comparisons.csv --human crowd-comparisons.csv
    """
    from eval.face.validate_command import validated
    from eval.published import show

    show.check_out(out, options.judge, options.human, options.pairs)
    show.result(validated(options), out, as_json)


@command(BiasOptions)
def bias(options: BiasOptions, out: _OUT = None, as_json: _JSON = False) -> None:
    """Read a judge's bias as a causal effect: edit outputs, and see what becomes of its verdicts.

    Example: farm bias outputs.json --judge openai_greedy --edits padding,praise --budget 2
    """
    from eval.face.bias_command import measured
    from eval.published import show

    show.check_out(out, options.outputs, options.baseline)
    show.result(measured(options), out, as_json)


@command(PowerOptions)
def power(options: PowerOptions, as_json: _JSON = False) -> None:
    """How many annotations find a difference, or what difference a given number can show.

    Example: farm power --difference 5 --flip-rate 0.25
    """
    from eval.face.power_command import planned
    from eval.published import show

    show.result(planned(options), None, as_json)
