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
        Path | None, typer.Option(help="Keep every answer here: nothing is asked twice, and a run can go on.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The seed of everything random.")] = 0,
    both_orders: Annotated[
        bool, typer.Option("--both-orders", help="Ask in both orders, a tie where the answers contradict each other.")
    ] = False,
    given_order: Annotated[
        bool, typer.Option("--given-order", help="Show output_1 first; by default the order is drawn for each pair.")
    ] = False,
    replicates: Annotated[int, typer.Option(min=1, help="Answers to every row.")] = 1,
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
        str | None, typer.Option(help="Pair outputs: random, all, best-worst, swiss, ranked, uncertainty or adjacent.")
    ] = None,
    per_instruction: Annotated[
        int, typer.Option(min=1, help="Pairs (random, uncertainty) or triplets of one instruction.")
    ] = 1,
    score: Annotated[
        str, typer.Option(help="The column of scores for best-worst, swiss, ranked and uncertainty.")
    ] = "score",
    kind: Annotated[
        str | None,
        typer.Option(
            help="Feedback: pairs, rankings, ratings, reactions, critiques, corrections, checks or triplets; "
            "by default what the annotators give, pairs where they give several."
        ),
    ] = None,
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
    """Let simulated annotators give feedback on outputs: which of two they prefer, or any other kind.

    Example: farm annotate pairs.json --annotators training --out preferences.parquet --set rate=0.1
    """
    import json

    from annotators.runs import annotation_summary
    from annotators.runs.annotation_run import prepare
    from annotators.runs.options import AnnotateOptions

    run = prepare(
        pairs,
        annotators,
        out,
        AnnotateOptions(
            kind=kind, against=against, design=design, per_instruction=per_instruction, score=score, seed=seed,
            replicates=replicates, order="both" if both_orders else "given" if given_order else "random",
            aggregate=aggregate, active=active, labels=labels, rounds=rounds, world=world, store=store, budget=budget,
            concurrency=concurrency, requests_per_minute=requests_per_minute, tokens_per_minute=tokens_per_minute,
            timeout=timeout, batches=batches,
        ),
        settings=settings or [],
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
