"""The commands of the annotators wing. The work is imported inside each command, so that ``farm --help`` is quick."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from annotators.face.options import AnnotateOptions, CalibrateOptions, DriftOptions, PrinciplesOptions
from farm.base.errors import OptionError
from farm.face.options import command


def register(app: typer.Typer) -> None:
    """Add the commands of this wing to the ``farm`` command line."""
    app.command()(annotate)
    app.command()(calibrate)
    app.command()(drift)
    app.command()(principles)


@command(AnnotateOptions)
def annotate(
    rows: Annotated[
        Path,
        typer.Argument(
            help="Pairs (instruction, output_1, output_2) or outputs (instruction, output), AlpacaEval's form: "
            ".json, .jsonl, .csv or .parquet."
        ),
    ],
    annotators: Annotated[str, typer.Option(help="By name (see `farm list annotators`) or a YAML file.")],
    out: Annotated[Path, typer.Option(help="Where the answers go; the suffix tells the format.")],
    options: AnnotateOptions,
    both_orders: Annotated[
        bool, typer.Option("--both-orders", help="Ask in both orders, a tie where the answers contradict each other.")
    ] = False,
    given_order: Annotated[
        bool, typer.Option("--given-order", help="Show output_1 first; by default the order is drawn for each row.")
    ] = False,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change a setting of the annotators.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how much there is to do.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Let simulated annotators give feedback on outputs: which of two they prefer, or any other kind.

    Example: farm annotate pairs.json --annotators training --out preferences.parquet --set rate=0.1
    """
    import json

    from annotators.runs import annotation_summary
    from annotators.runs.annotation_run import prepare

    if both_orders and given_order:
        raise OptionError("--both-orders and --given-order contradict each other; leave one out")
    options = replace(options, order="both" if both_orders else "given" if given_order else "random")
    run = prepare(rows, annotators, out, options, settings=settings or [])
    if dry_run:
        plan = run.plan()
        print(json.dumps(plan, indent=1) if as_json else annotation_summary.sentences(plan))
        return
    summary = run.go()
    print(json.dumps(summary, indent=1) if as_json else annotation_summary.sentences(summary))
    annotation_summary.check(summary)


@command(CalibrateOptions)
def calibrate(
    options: CalibrateOptions,
    as_json: Annotated[bool, typer.Option("--json", help="Print the calibration as JSON.")] = False,
) -> None:
    """Learn from people's votes how noisy they are, and write a simulated crowd that votes like them.

    Example: farm calibrate crowd.csv --out crowd.yaml, then farm annotate pairs.json --annotators crowd.yaml ...
    """
    from annotators.calibration.summary import sentences
    from annotators.face.api import calibrated
    from farm.base import progress

    with progress.task("calibrating"):
        found = calibrated(options)
    print(found.to_json() if as_json else sentences(found) + (f"\nwritten to {options.out}" if options.out else ""))


@command(DriftOptions)
def drift(
    annotators: Annotated[str, typer.Option(help="The judge, by name or a YAML file.")],
    options: DriftOptions,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change a setting of the judge.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
) -> None:
    """Ask a judge again about pairs that it judged before, and say whether it has changed.

    Example: farm drift anchors.json --annotators judge.yaml --out anchors_june.json
    """
    import json

    from annotators.runs.drift import drifted

    found = drifted(options, annotators, settings or [])
    print(json.dumps({**found.to_dict(), "changed": found.changed}, indent=1) if as_json else found.sentences())


@command(PrinciplesOptions)
def principles(
    options: PrinciplesOptions,
    as_json: Annotated[bool, typer.Option("--json", help="Print the principles as JSON.")] = False,
) -> None:
    """Find the few principles that votes seem to follow, and see how well they tell votes that were held out.

    Example: farm principles votes.json --out constitution.yaml, then farm annotate ... --annotators constitution.yaml
    """
    from annotators.face.api import principled
    from annotators.principles.summary import sentences
    from farm.base import progress

    with progress.task("finding principles"):
        found = principled(options)
    print(found.to_json() if as_json else sentences(found) + (f"\nwritten to {options.out}" if options.out else ""))
