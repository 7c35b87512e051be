"""Annotation from Python: ``farm.annotate`` and ``farm.calibrate``, as the commands do it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pandas as pd

from annotators.noise.both_orders import BothOrders
from annotators.runs import feedback_run as feedback_run
from annotators.runs.annotation_run import AnnotationRun, Order, check, chooser_of, context_for
from annotators.runs.cached import Cached
from farm.api import spec_of
from farm.asking.givers import keeps_answers
from farm.asking.limits import Limits
from farm.base.errors import UserError, nearest
from farm.feedback import designs
from farm.feedback.kind import kind as kind_of
from farm.roles import config
from farm.roles.protocols import Annotator, Context
from farm.storage.store import Store, home
from farm.tables import formats
from farm.tables.records import unannotated
from farm.votes.table import from_table

if TYPE_CHECKING:
    from annotators.calibration.calibrate import Calibration

Rows: TypeAlias = pd.DataFrame | Sequence[Mapping[str, Any]] | str | Path


def annotate(
    pairs: Rows,
    annotators: Any = "training",
    *,
    kind: str = "pairs",
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
    **settings: Any,
) -> pd.DataFrame:
    """Annotations of pairs, one row a pair in their order: ``preference`` in [1, 2], ``status``, ``price``, ...

    Args:
        pairs: a table, rows or a file with ``instruction, output_1, output_2`` (generators are optional), or of outputs
            (``instruction, output``) that are paired by a ``design``, or with the outputs ``against``.
        annotators: a name, a YAML file, a spec, a class with the settings as keywords, or an annotator.
        kind: feedback on single outputs instead: "ratings", "reactions", "rankings" or "critiques".
        replicates: verdicts on every pair, from ``replicate`` on; ``aggregate`` makes them one.
        order: "random" draws which output is shown first, "both" asks twice, "given" shows output_1 first.
        active, labels, rounds: choose round by round what to ask about, as the command does.
        world: where the texts are from; any text if None.
        store: keep verdicts in this file and never ask twice.
        budget: US dollars that are never exceeded.
        settings: changes to the annotators, ``rate=0.1``.

    Raises:
        UserError: for columns, kinds or combinations that there are not.
    """
    kept = Store(store or home() / "store.sqlite")
    context = context_for(world, kept)
    given = _table(pairs)
    limits = Limits(budget=budget)
    if kind != "pairs":
        chosen_kind = kind_of(kind)
        if design or aggregate or active or against is not None:
            raise UserError(f"farm.annotate: `kind={kind}` has no pairs to design, aggregate or choose")
        giver = _built(annotators, settings, chosen_kind.giver, context)
        shown = feedback_run.shown(given, kind)
        return feedback_run.FeedbackRun(kind, shown, giver, Path(), seed, replicates, limits).feedback()
    check(aggregate, active, labels, replicates)
    chosen = _built(annotators, settings, Annotator, context)
    if order == "both":
        chosen = BothOrders(chosen)
    if store is not None and not keeps_answers(chosen):
        chosen = Cached(chosen, kept)
    table = _paired(
        given, against, design or ("all" if active and against is None else None), per_instruction, score, seed
    )
    run = AnnotationRun(
        unannotated(table), chosen, Path(), seed, order, replicates, limits, aggregate,
        chooser_of(active, labels, rounds, context), first_replicate=replicate,
    )  # fmt: skip
    return run.table()


def _built(annotators: Any, settings: Mapping[str, Any], role: Any, context: Context) -> Any:
    """The annotator that was named or described, or the one that was given."""
    if isinstance(annotators, (str, Path, dict, type)):
        return config.build(role, spec_of(annotators, settings), context, "farm.annotate")
    return annotators


def _table(rows: Rows) -> pd.DataFrame:
    """Pairs or outputs, with the columns that each must have."""
    if isinstance(rows, (str, Path)):
        read = formats.read_outputs if "output" in formats.read_table(rows).columns else formats.read_pairs
        return read(rows)
    table = formats.merge_input(formats.rows(rows, "the rows"))
    if "output" in table:
        formats.require(table, ["instruction", "output"], "the outputs")
        return table
    formats.require(table, ["instruction", "output_1", "output_2"], "the pairs")
    for column in ("generator_1", "generator_2"):
        if column not in table:
            table[column] = ""
    return table


def _paired(
    given: pd.DataFrame, against: Rows | None, design: str | None, per_instruction: int, score: str, seed: int
) -> pd.DataFrame:
    """The pairs to ask about, by the rules of the command."""
    if design is not None and design not in designs.DESIGNS:
        raise UserError(f"there is no design `{design}`; {nearest(design, designs.DESIGNS)}")
    if against is not None:
        if design is not None:
            raise UserError("two tables are compared head to head: leave out either the design or the second")
        return designs.head_to_head(given, _table(against))
    if "output" not in given:
        return given
    wanted = next(d for d in designs.DESIGNS if d == (design or "random"))
    return designs.chosen(given, wanted, per_instruction=per_instruction, seed=seed, score=score)


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
