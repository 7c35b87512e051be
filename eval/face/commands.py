"""The commands of the evaluation wing. The work is imported inside each command, so that ``farm --help`` is quick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eval.face.report_commands import register as register_report

_JSON = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
_OUT = Annotated[Path | None, typer.Option(help="Also write the table here (.csv, .json, .jsonl or .parquet).")]
_CONFIDENCE = Annotated[float, typer.Option(min=0.5, max=0.9999, help="Confidence level of every interval.")]
_SEED = Annotated[int, typer.Option(help="The seed of every bootstrap.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this wing to the ``farm`` command line."""
    app.command()(evaluate)
    app.command()(leaderboard)
    app.command()(validate)
    app.command()(power)
    register_report(app)


def evaluate(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILES...", help="Annotation files, model outputs (with --judge and --baseline), or a run folder."
        ),
    ],
    judge: Annotated[str | None, typer.Option(help="Who judges the outputs: a named annotator or a YAML file.")] = None,
    baseline: Annotated[Path | None, typer.Option(help="Outputs of the baseline, for model outputs.")] = None,
    annotations: Annotated[Path | None, typer.Option(help="Keep the judge's annotations here.")] = None,
    store: Annotated[
        Path | None, typer.Option(help="Where verdicts are kept, so that none is paid twice; default: FARM_HOME.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Ask for every verdict anew, and store none.")] = False,
    human: Annotated[
        Path | None,
        typer.Option(help="Human annotations of some of the pairs: PPI++, and biases as judge minus human."),
    ] = None,
    flip_rate: Annotated[float, typer.Option(help="Correct for this share of flipped labels.")] = 0.0,
    flip_rate_error: Annotated[float, typer.Option(help="Standard error of the flip rate.")] = 0.0,
    by: Annotated[str, typer.Option(help="Column to tabulate separately where the files have it.")] = "dataset",
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change a setting of the judge.")
    ] = None,
    budget: Annotated[
        float | None, typer.Option(min=0, help="US dollars for all questions to the judge, never exceeded.")
    ] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Questions to the judge in flight.")] = None,
    requests_per_minute: Annotated[float | None, typer.Option(min=1, help="To the judge.")] = None,
    tokens_per_minute: Annotated[float | None, typer.Option(min=1, help="Of questions, to the judge.")] = None,
    seed: _SEED = 0,
    confidence: _CONFIDENCE = 0.95,
    out: _OUT = None,
    as_json: _JSON = False,
) -> None:
    """Win rates with intervals: overall, by dataset, corrected for length and noise. Annotations need no model.

    Example: farm evaluate results/claude-2/alpaca_eval_gpt4/annotations.json --json
    """
    from eval.face import evaluate_command
    from eval.published import show
    from farm.asking.limits import Limits
    from farm.base.files import exists

    show.check_out(out, *files)
    if len(files) == 1 and exists(files[0] / "config.yaml"):
        from eval.face.run_evaluation import print_run

        print_run(files[0], as_json)
        return
    report = evaluate_command.run(
        files,
        judge=judge,
        baseline=baseline,
        annotations=annotations,
        store=store,
        fresh=fresh,
        human=human,
        flip_rate=flip_rate,
        flip_rate_error=flip_rate_error,
        by=by,
        settings=settings or [],
        seed=seed,
        confidence=confidence,
        limits=Limits(budget, concurrency, requests_per_minute, tokens_per_minute),
    )
    show.result(report, out, as_json)


def leaderboard(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Results directory (<model>/<annotator>/annotations.json), annotation files, battles files "
            "(model_a, model_b, winner), or alpaca_eval_1 / alpaca_eval_2 to fetch.",
        ),
    ],
    annotator: Annotated[str | None, typer.Option(help="Keep the verdicts of this annotator.")] = None,
    baseline: Annotated[str | None, typer.Option(help="Keep the comparisons with this baseline.")] = None,
    published: Annotated[Path | None, typer.Option(help="A published leaderboard to compare with, row by row.")] = None,
    metrics: Annotated[
        str | None, typer.Option(help="win_rate, length_controlled, bradley_terry, elo; several with commas.")
    ] = None,
    difficulty: Annotated[
        Path | None, typer.Option(help="Difficulties of the instructions, for length control.")
    ] = None,
    regularizer: Annotated[Path | None, typer.Option(help="Rows of the gamed baseline, for length control.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Saved coefficients to predict from instead of a fit.")] = None,
    lc_recipe: Annotated[str, typer.Option(help="newton (default) or published (L1 path, grouped folds).")] = "newton",
    lc_alignment: Annotated[
        str, typer.Option(help="instruction (default) or position (as the original).")
    ] = "instruction",
    lc_over: Annotated[
        str, typer.Option(help="Average over the judged instructions (default) or all with a difficulty: judged, all.")
    ] = "judged",
    ties: Annotated[str, typer.Option(help="Bradley-Terry: half, drop or davidson.")] = "half",
    cluster: Annotated[
        list[str] | None, typer.Option(help="Battles: column whose rows err together; at most two.")
    ] = None,
    prior: Annotated[float, typer.Option(min=0, help="Bradley-Terry: virtual games of each model.")] = 0.0,
    anchor: Annotated[str, typer.Option(help="Bradley-Terry: the model that keeps the rating 1000.")] = "",
    rounds: Annotated[int, typer.Option(min=1, help="Bootstrap rounds.")] = 2000,
    seed: _SEED = 0,
    confidence: _CONFIDENCE = 0.95,
    offline: Annotated[bool, typer.Option("--offline", help="Fetch nothing.")] = False,
    out: _OUT = None,
    as_json: _JSON = False,
) -> None:
    """A leaderboard from annotations or battles: published columns exactly, then intervals and ranks.

    Example: farm leaderboard results/ --annotator weighted_alpaca_eval_gpt4_turbo --published leaderboard.csv
    """
    from eval.face import leaderboard_command

    leaderboard_command.run(
        sources,
        annotator=annotator,
        baseline=baseline,
        published=published,
        metrics=metrics,
        difficulty=difficulty,
        regularizer=regularizer,
        weights=weights,
        recipe=lc_recipe,
        alignment=lc_alignment,
        over=lc_over,
        ties=ties,
        clusters=cluster or [],
        prior=prior,
        anchor=anchor,
        rounds=rounds,
        seed=seed,
        confidence=confidence,
        offline=offline,
        out=out,
        as_json=as_json,
    )


def validate(
    judge: Annotated[
        Path, typer.Argument(metavar="JUDGE_ANNOTATIONS", help="Verdicts of the judge, one or more a pair.")
    ],
    human: Annotated[
        Path | None, typer.Option(help="Votes of humans on the same pairs (cross-annotations), in any known layout.")
    ] = None,
    annotator: Annotated[str | None, typer.Option(help="Keep the verdicts of this annotator.")] = None,
    pool: Annotated[bool, typer.Option("--pool", help="Take all annotators of the judge's file for one.")] = False,
    pairs: Annotated[
        Path | None, typer.Option(help="Texts of the pairs by `pair_id`, where the verdicts have only the ids.")
    ] = None,
    export: Annotated[
        Path | None, typer.Option(help="Also write all votes here as annotated pairs 2.0 (.json; needs the texts).")
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(help="Judge runs with a `human_label` beside each verdict: columns that tell runs apart."),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Bootstrap rounds.")] = 1000,
    seed: _SEED = 0,
    confidence: _CONFIDENCE = 0.95,
    out: _OUT = None,
    as_json: _JSON = False,
) -> None:
    """Judge the judge: its agreement beside the human ceiling, its biases, and what its labels are worth.

    Example: farm validate gpt4-comparisons.csv --human crowd-comparisons.csv
    """
    from eval.face import validate_command
    from eval.published import show

    show.check_out(out, judge, human, pairs)
    found = validate_command.run(
        judge, human, by, rounds, seed, confidence, annotator=annotator, pool=pool, pairs=pairs, export=export
    )
    show.result(found, out, as_json)


def power(
    difference: Annotated[
        float | None,
        typer.Option(help="Difference of win rates to find, in percent points (against 50, or of two methods)."),
    ] = None,
    annotations: Annotated[
        int | None, typer.Option(help="Number of annotations: print the smallest difference that it shows.")
    ] = None,
    flip_rate: Annotated[float, typer.Option(help="Share of labels that are flipped.")] = 0.0,
    design_effect: Annotated[float, typer.Option(help="Factor by which clustering multiplies the variance.")] = 1.0,
    per_cluster: Annotated[
        float | None, typer.Option(help="Rows a cluster (with --icc, instead of --design-effect).")
    ] = None,
    icc: Annotated[float, typer.Option(help="Correlation of the rows of a cluster.")] = 0.0,
    paired: Annotated[bool, typer.Option("--paired", help="Compare two methods on the same instructions.")] = False,
    variance: Annotated[
        float | None, typer.Option(help="Variance of one score (paired: of one difference), where known.")
    ] = None,
    power: Annotated[float, typer.Option(help="Chance of finding the difference.")] = 0.8,
    significance: Annotated[float, typer.Option(help="Significance level of the two-sided test.")] = 0.05,
    as_json: _JSON = False,
) -> None:
    """How many annotations find a difference, or what difference a given number can show.

    Example: farm power --difference 5 --flip-rate 0.25
    """
    from eval.face import api
    from eval.published import show

    plan = api.power(
        difference,
        annotations=annotations,
        flip_rate=flip_rate,
        design_effect=design_effect,
        per_cluster=per_cluster,
        icc=icc,
        paired=paired,
        variance=variance,
        power=power,
        significance=significance,
    )
    show.result(plan, None, as_json)
