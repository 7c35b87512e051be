"""What ``farm evaluate`` does: judge outputs if that is what it is given, then evaluate the annotations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from eval import judging
from eval.evaluation import Evaluation, evaluate_table, read_files
from farm.errors import UserError
from farm.formats import read_annotations, write_annotations


def run(
    files: Sequence[Path],
    *,
    judge: str | None,
    baseline: Path | None,
    annotations: Path | None,
    human: Path | None,
    flip_rate: float,
    flip_rate_error: float,
    by: str,
    settings: Sequence[str],
    seed: int,
    confidence: float,
) -> Evaluation:
    """The evaluation of annotation files, or of output files after a judge has compared them with the baseline."""
    humans = read_annotations(human) if human is not None else None
    if judge is None and baseline is None:
        outputs = [p for p in files if judging.holds_outputs(p)]
        if outputs:
            raise UserError(f"{outputs[0]}: holds outputs, not annotations; say --judge NAME and --baseline FILE")
        if annotations is not None or settings:
            raise UserError("--annotations and --set belong to a judge; annotations are evaluated as they are")
        rows = read_files(files)
    else:
        if judge is None or baseline is None:
            raise UserError("model outputs need both --judge NAME and --baseline FILE")
        table = judging.pairs(files, baseline)
        if not len(table):
            raise UserError(f"{files[0]}: is the baseline itself; there is nothing to compare")
        rows = judging.judge(table, judge, settings=settings, seed=seed)
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
