"""Annotation from Python: ``annotate``, ``calibrate``, ``drift`` and ``principles``, as the commands do it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from annotators.face.options import AnnotateOptions, CalibrateOptions, DriftOptions, PrinciplesOptions
from annotators.runs.annotation_run import Rows, prepare
from farm.base.errors import OptionError
from farm.face.options import made, takes
from farm.tables import formats
from farm.votes.table import from_table

if TYPE_CHECKING:
    from annotators.calibration.calibrate import Calibration
    from annotators.principles.mining import Principles
    from annotators.runs.drift import Drift


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
    found, settings = _parted(AnnotateOptions, options)
    return prepare(rows, annotators, options=made(AnnotateOptions, found), settings=settings).table()


def drift(verdicts: Rows, annotators: Any, **options: Any) -> Drift:
    """Ask a judge again about pairs that it judged before, and say whether it has changed, as `farm drift`.

    Args:
        verdicts: the anchors, what :func:`annotate` gave or `farm annotate` wrote, best of two replicates.
        annotators: the judge, as in :func:`annotate`.
        options: the fields of :class:`~annotators.face.options.DriftOptions`; others are settings of the judge.

    Raises:
        UserError: for a table that holds no verdicts, or those of several runs.
    """
    from annotators.runs.drift import drifted

    found, settings = _parted(DriftOptions, options)
    return drifted(made(DriftOptions, {"verdicts": verdicts, **found}), annotators, settings)


def _parted(cls: type[Any], given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of a class, and what else is given: settings of annotators."""
    known = {field.name for field in fields(cls)}
    of_class = {name: value for name, value in given.items() if name in known}
    return of_class, {name: value for name, value in given.items() if name not in known}


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


def principled(options: PrinciplesOptions) -> Principles:
    """The principles that votes seem to follow, and how far these reconstruct votes held out, as `farm principles`."""
    from annotators.calibration.calibrate import of_annotator
    from annotators.principles import mining
    from annotators.runs.givers import context_for
    from farm.base import files
    from farm.roles import config
    from farm.roles.protocols import Annotator
    from farm.storage.store import Store, home
    from farm.votes.principles import Mining
    from farm.votes.table import read_votes, with_texts

    o, given = options, options.votes
    of_file = isinstance(given, (str, Path))
    origin = str(given) if of_file else "the votes"
    inputs = [Path(rows) for rows in (given, o.pairs) if isinstance(rows, (str, Path))]
    if o.out is not None:
        mining.check_out(o.out, inputs)
    context = context_for(None, Store(home() / "store.sqlite"))
    assert context.features is not None
    judge = None if o.judge is None else config.build(Annotator, config.spec_of(o.judge, {}), context, "the judge")
    if o.pairs is not None:
        table = with_texts(given, o.pairs)
    else:
        table = read_votes(given) if of_file else from_table(formats.rows(given, origin), origin)
    found = mining.find(
        of_annotator(table, o.annotator, origin),
        origin,
        context.features,
        judge,
        Mining(n=o.n, per_pair=o.per_pair, clusters=o.clusters, least=o.least, rule=o.rule),
        held_out=o.held_out,
        seed=o.seed,
        limits=o.limits,
    )
    if o.out is not None:
        files.write_text(o.out, found.yaml())
    return found


principles = takes(PrinciplesOptions)(principled)
