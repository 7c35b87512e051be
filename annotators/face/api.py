"""Annotation from Python: ``farm.annotate`` and ``farm.calibrate``, as the commands do it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from annotators.runs.annotation_run import Rows, prepare
from annotators.runs.options import AnnotateOptions, Order
from farm.base.errors import UserError
from farm.tables import formats
from farm.votes.table import from_table

if TYPE_CHECKING:
    from annotators.calibration.calibrate import Calibration


def annotate(
    rows: Rows,
    annotators: Any = "training",
    *,
    kind: str | None = None,
    against: Rows | None = None,
    design: str | None = None,
    per_instruction: int = 1,
    score: str = "score",
    seed: int = 0,
    replicate: int = 0,
    replicates: int = 1,
    order: Order = "random",
    aggregate: str | None = None,
    active: str | None = None,
    labels: int | None = None,
    rounds: int = 10,
    world: str | None = None,
    store: str | Path | None = None,
    budget: float | None = None,
    concurrency: int | None = None,
    requests_per_minute: float | None = None,
    tokens_per_minute: float | None = None,
    timeout: float = 120.0,
    batches: bool = False,
    **settings: Any,
) -> pd.DataFrame:
    """Feedback of any kind as a table, in the order of the rows: of pairs ``preference`` in [1, 2], ``status``, ...

    Args:
        rows: a table, rows or a file with ``instruction, output_1, output_2`` (generators are optional), or of outputs
            (``instruction, output``) that are put together as the kind and the ``design`` say.
        annotators: a name, a YAML file, a spec, a class with the settings as keywords, or one who gives feedback.
        kind, ..., batches: see :class:`~annotators.runs.options.AnnotateOptions`.
        settings: changes to the annotators, ``rate=0.1``.

    Raises:
        UserError: for columns, kinds or combinations that there are not.
    """
    options = AnnotateOptions(
        kind=kind, against=against, design=design, per_instruction=per_instruction, score=score, seed=seed,
        replicate=replicate, replicates=replicates, order=order, aggregate=aggregate, active=active, labels=labels,
        rounds=rounds, world=world, store=store, budget=budget, concurrency=concurrency,
        requests_per_minute=requests_per_minute, tokens_per_minute=tokens_per_minute, timeout=timeout, batches=batches,
    )  # fmt: skip
    return prepare(rows, annotators, options=options, settings=settings).table()


def calibrate(
    votes: Rows,
    out: str | Path | None = None,
    *,
    annotator: str = "",
    pairs: str | Path | None = None,
    groups: int | None = None,
) -> Calibration:
    """How noisy people's votes are, and a simulated crowd that votes like them, as `farm calibrate`.

    Args:
        votes: a table, rows or a file of several people's votes on the same pairs, or an evaluators leaderboard.
        out: write the crowd here (.yaml), for ``annotate(pairs, out)`` and experiments.
        annotator, pairs, groups: as in :func:`annotators.calibration.calibrate.calibrate`.
    """
    from annotators.calibration import calibrate as calibration

    if groups is not None and not 1 <= groups <= 4:
        raise UserError(f"groups = {groups}: give a number from 1 to 4")
    if out is not None:
        given = (Path(rows) for rows in (votes, pairs) if isinstance(rows, (str, Path)))
        calibration.check_out(Path(out), tuple(given))
    if isinstance(votes, (str, Path)):
        found = calibration.calibrate(
            Path(votes), annotator=annotator, pairs=None if pairs is None else Path(pairs), groups=groups
        )
    else:
        if pairs is not None:
            raise UserError("farm.calibrate: `pairs` is for a row of an evaluators leaderboard")
        table = from_table(formats.rows(votes, "the votes"), "the votes")
        found = calibration.of_votes(
            calibration.of_annotator(table, annotator, "the votes"), "the votes", groups=groups
        )
    if out is not None:
        calibration.write(found, Path(out))
    return found
