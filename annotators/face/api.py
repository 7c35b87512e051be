"""Annotation from Python: ``farm.annotate`` and ``farm.calibrate``, as the commands do it."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from annotators.face.options import AnnotateOptions
from annotators.runs.annotation_run import Rows, prepare
from farm.base.errors import UserError
from farm.face.options import made
from farm.tables import formats
from farm.votes.table import from_table

if TYPE_CHECKING:
    from annotators.calibration.calibrate import Calibration


def annotate(rows: Rows, annotators: Any = "training", **options: Any) -> pd.DataFrame:
    """Feedback of any kind as a table, in the order of the rows: of pairs ``preference`` in [1, 2], ``status``, ...

    Args:
        rows: a table, rows or a file with ``instruction, output_1, output_2`` (generators are optional), or of outputs
            (``instruction, output``) that are put together as the kind and the ``design`` say.
        annotators: a name, a YAML file, a spec, a class with the settings as keywords, or one who gives feedback.
        options: the fields of :class:`~annotators.face.options.AnnotateOptions` (``kind``, ``seed``, ``replicates``,
            ``store``, ``budget``, ...); any other keyword is a setting of the annotators, ``rate=0.1``.

    Raises:
        UserError: for columns, kinds or combinations that there are not.
    """
    known = {field.name for field in fields(AnnotateOptions)}
    settings = {name: value for name, value in options.items() if name not in known}
    found = made(AnnotateOptions, {name: value for name, value in options.items() if name in known})
    return prepare(rows, annotators, options=found, settings=settings).table()


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
