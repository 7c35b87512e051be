"""What ``farm evaluate`` does: judge outputs if that is what it is given, then evaluate the annotations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from eval.evaluators.evaluation import Evaluation, evaluate_table, read_files
from eval.judges import judging
from farm.asking.limits import Limits
from farm.base.errors import UserError
from farm.tables.formats import check_table, read_annotations, write_annotations

NONE = Limits()
"""no limits"""


def run(
    files: Sequence[Path],
    *,
    judge: str | None,
    baseline: Path | None,
    annotations: Path | None,
    store: Path | None,
    fresh: bool,
    human: Path | None,
    flip_rate: float,
    flip_rate_error: float,
    by: str,
    settings: Sequence[str],
    seed: int,
    confidence: float,
    limits: Limits = NONE,
) -> Evaluation:
    """The evaluation of annotation files, or of output files after a judge has compared them with the baseline."""
    if annotations is not None:
        check_table(annotations, inputs=(*files, baseline, human))
    humans = read_annotations(human) if human is not None else None
    if judge is None and baseline is None:
        outputs = [p for p in files if judging.holds_outputs(p)]
        if outputs:
            raise UserError(f"{outputs[0]}: holds outputs, not annotations; say --judge NAME and --baseline FILE")
        if annotations is not None or settings or store is not None or fresh or limits != Limits():
            raise UserError(
                "--annotations, --store, --fresh, --set and limits belong to a judge; annotations are taken as they are"
            )
        rows = read_files(files)
    else:
        if judge is None or baseline is None:
            raise UserError("model outputs need both --judge NAME and --baseline FILE")
        table = judging.pairs(files, baseline)
        if not len(table):
            raise UserError(f"{files[0]}: is the baseline itself; there is nothing to compare")
        if store is not None and fresh:
            raise UserError("--store keeps verdicts and --fresh keeps none; give one of them")
        judged = judging.judge(table, judge, settings=settings, seed=seed, store=store, fresh=fresh, limits=limits)
        rows = judged.rows
        asked = len(rows) - judged.reused
        typer.echo(f"{judge}: {asked} verdicts asked, {judged.reused} from the store, ${judged.paid:.2f}", err=True)
        if annotations is not None:
            write_annotations(rows, annotations)
    return evaluate_table(
        rows,
        by=by,
        confidence=confidence,
        flip_rate=flip_rate,
        flip_rate_standard_error=flip_rate_error,
        humans=humans,
        seed=seed,
    )
