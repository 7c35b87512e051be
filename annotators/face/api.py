"""Annotation from Python: ``farm.annotate`` and ``farm.calibrate``, as the commands do it."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from annotators.face.options import AnnotateOptions, CalibrateOptions
from annotators.runs.annotation_run import Rows, prepare
from farm.base.errors import OptionError
from farm.face.options import made, takes
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


def calibrated(options: CalibrateOptions) -> Calibration:
    """How noisy people's votes are, and a simulated crowd that votes like them, as `farm calibrate`."""
    from annotators.calibration import calibrate as calibration

    votes, out, pairs = options.votes, options.out, options.pairs
    if out is not None:
        calibration.check_out(out, tuple(Path(rows) for rows in (votes, pairs) if isinstance(rows, (str, Path))))
    if isinstance(votes, (str, Path)):
        found = calibration.calibrate(Path(votes), annotator=options.annotator, pairs=pairs, groups=options.groups)
    else:
        if pairs is not None:
            raise OptionError("`pairs` is for a row of an evaluators leaderboard")
        table = from_table(formats.rows(votes, "the votes"), "the votes")
        of_one = calibration.of_annotator(table, options.annotator, "the votes")
        found = calibration.of_votes(of_one, "the votes", groups=options.groups)
    if out is not None:
        calibration.write(found, out)
    return found


calibrate = takes(CalibrateOptions)(calibrated)
