"""The commands of the annotators wing. The work is imported inside each command, so that ``farm --help`` is quick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the commands of this wing to the ``farm`` command line."""
    app.command()(annotate)
    app.command()(calibrate)


def annotate(
    pairs: Annotated[
        Path,
        typer.Argument(
            help="Pairs (instruction, output_1, output_2) or outputs (instruction, output), AlpacaEval's form: "
            ".json, .jsonl, .csv or .parquet."
        ),
    ],
    annotators: Annotated[str, typer.Option(help="By name (see `farm list annotators`) or a YAML file.")],
    out: Annotated[Path, typer.Option(help="Where the annotations go; the suffix tells the format.")],
    store: Annotated[
        Path | None, typer.Option(help="Keep every verdict here: nothing is asked twice, and a run can go on.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The seed of everything random.")] = 0,
    both_orders: Annotated[
        bool, typer.Option("--both-orders", help="Ask in both orders, a tie where the answers contradict each other.")
    ] = False,
    given_order: Annotated[
        bool, typer.Option("--given-order", help="Show output_1 first; by default the order is drawn for each pair.")
    ] = False,
    replicates: Annotated[int, typer.Option(min=1, help="Verdicts on every pair.")] = 1,
    world: Annotated[str | None, typer.Option(help="The world that the texts are from; by default any text.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change a setting of the annotators.")
    ] = None,
    budget: Annotated[float | None, typer.Option(min=0, help="US dollars that are never exceeded.")] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Questions to language models in flight.")] = None,
    requests_per_minute: Annotated[float | None, typer.Option(min=1, help="To each model.")] = None,
    tokens_per_minute: Annotated[float | None, typer.Option(min=1, help="Of questions, to each model.")] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds for one answer of a language model.")] = 120.0,
    batches: Annotated[
        bool, typer.Option("--batches", help="Submit questions as the provider's batches; run again to collect.")
    ] = False,
    against: Annotated[Path | None, typer.Option(help="Outputs of the baseline: compare head to head.")] = None,
    design: Annotated[
        str | None, typer.Option(help="Pair outputs by random, all, best-worst, swiss or uncertainty.")
    ] = None,
    per_instruction: Annotated[int, typer.Option(min=1, help="Pairs of one instruction (random, uncertainty).")] = 1,
    score: Annotated[str, typer.Option(help="The column of scores for best-worst, swiss and uncertainty.")] = "score",
    kind: Annotated[
        str, typer.Option(help="Feedback: pairs, or of single outputs: ratings, reactions, rankings or critiques.")
    ] = "pairs",
    aggregate: Annotated[
        str | None, typer.Option(help="One verdict a pair from its votes: majority, dawid-skene, glad or weighted.")
    ] = None,
    active: Annotated[
        str | None, typer.Option(help="Choose what to label next, round by round: disagreement, thompson or random.")
    ] = None,
    labels: Annotated[int | None, typer.Option(min=1, help="With --active: verdicts in all.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="With --active: rounds of choosing.")] = 10,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how much there is to do.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Let simulated annotators say which of two outputs they prefer, for every pair of a file.

    Example: farm annotate pairs.json --annotators training --out preferences.parquet --set rate=0.1
    """
    import json

    from annotators.runs import annotation_run, annotation_summary
    from annotators.runs import feedback_run as feedback_run
    from farm.asking.limits import Limits
    from farm.base.errors import UserError

    limits = Limits(
        budget=budget,
        concurrency=concurrency,
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        timeout=timeout,
        batches=batches,
    )
    run: annotation_run.AnnotationRun | feedback_run.FeedbackRun
    if kind != "pairs":
        for_pairs: dict[str, object] = {
            "--both-orders": both_orders,
            "--given-order": given_order,
            "--against": against,
        }
        for_pairs |= {"--design": design, "--aggregate": aggregate}
        for_pairs["--active"] = active
        if said := [option for option, value in for_pairs.items() if value]:
            raise UserError(f"{said[0]} is for pairs, and --kind {kind} has none")
        run = feedback_run.prepare(
            pairs, kind, annotators, out,
            store=store, seed=seed, replicates=replicates, world=world, settings=settings or [], limits=limits,
        )  # fmt: skip
    else:
        run = annotation_run.prepare(
            pairs, annotators, out,
            store=store, seed=seed, order="both" if both_orders else "given" if given_order else "random",
            replicates=replicates, world=world, settings=settings or [], limits=limits, against=against,
            design=design, per_instruction=per_instruction, score=score, aggregate=aggregate,
            strategy=active, labels=labels, rounds=rounds,
        )  # fmt: skip
    if dry_run:
        plan = run.plan()
        print(json.dumps(plan, indent=1) if as_json else annotation_summary.sentences(plan))
        return
    summary = run.go()
    print(json.dumps(summary, indent=1) if as_json else annotation_summary.sentences(summary))
    annotation_summary.check(summary)


def calibrate(
    votes: Annotated[
        Path,
        typer.Argument(
            help="Votes of several people on the same pairs: AlpacaEval cross-annotations, annotated pairs 2.0, crowd "
            "tables (pair, worker, verdict), PandaLM; or an AlpacaEval evaluators leaderboard (.csv)."
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="The YAML of the crowd, for --annotators and `farm run`.")] = None,
    annotator: Annotated[
        str, typer.Option(help="Only annotators whose name contains this; of a leaderboard, the row (humans).")
    ] = "",
    pairs: Annotated[Path | None, typer.Option(help="The judged pairs, for a leaderboard.")] = None,
    groups: Annotated[
        int | None, typer.Option(min=1, max=4, help="Groups of people; by default chosen by BIC.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the calibration as JSON.")] = False,
) -> None:
    """Learn from people's votes how noisy they are, and write a simulated crowd that votes like them.

    Example: farm calibrate crowd.csv --out crowd.yaml, then farm annotate pairs.json --annotators crowd.yaml ...
    """
    from annotators.calibration.summary import sentences
    from annotators.face.api import calibrate as calibrated
    from farm.base import progress

    with progress.task("calibrating"):
        found = calibrated(votes, out, annotator=annotator, pairs=pairs, groups=groups)
    print(found.to_json() if as_json else sentences(found) + (f"\nwritten to {out}" if out else ""))
