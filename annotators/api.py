"""Annotation from Python: ``farm.annotate`` and ``farm.calibrate``, as the commands do it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from annotators.annotation_run import context_for
from annotators.both_orders import BothOrders
from annotators.cached import Cached
from annotators.wrapping import keeps_answers
from farm import config, formats
from farm.api import spec_of
from farm.errors import UserError
from farm.protocols import Annotator
from farm.records import in_random_order
from farm.store import Store, home
from farm.votes.table import from_table

if TYPE_CHECKING:
    from annotators.calibration.calibrate import Calibration


def annotate(
    pairs: pd.DataFrame | Sequence[Mapping[str, Any]] | str | Path,
    annotators: Any = "training",
    *,
    seed: int = 0,
    replicate: int = 0,
    order: str = "random",
    world: str | None = None,
    store: str | Path | None = None,
    **settings: Any,
) -> pd.DataFrame:
    """Annotations of pairs, one row a pair in their order: ``preference`` in [1, 2], ``status``, ``price``, ...

    Args:
        pairs: a table, rows or a file with ``instruction, output_1, output_2`` (generators are optional).
        annotators: a name, a YAML file, a spec, a class with the settings as keywords, or an annotator.
        order: "random" draws which output is shown first, "both" asks twice, "given" shows output_1 first.
        world: where the texts are from; any text if None.
        store: keep verdicts in this file and never ask twice.
        settings: changes to the annotators, ``rate=0.1``.
    """
    if isinstance(pairs, (str, Path)):
        table = formats.read_pairs(pairs)
    else:
        table = formats.merge_input(pairs.copy() if isinstance(pairs, pd.DataFrame) else pd.DataFrame(list(pairs)))
        formats.require(table, ["instruction", "output_1", "output_2"], "the pairs")
        for column in ("generator_1", "generator_2"):
            if column not in table:
                table[column] = ""
    kept = Store(store or home() / "store.sqlite")
    chosen = annotators
    if isinstance(annotators, (str, Path, dict, type)):
        spec = spec_of(annotators, settings)
        chosen = config.build(Annotator, spec, context_for(world, kept), "farm.annotate")
    if order == "both":
        chosen = BothOrders(chosen)
    if store is not None and not keeps_answers(chosen):
        chosen = Cached(chosen, kept)
    if order == "random":
        return in_random_order(lambda rows: chosen.annotate(rows, seed=seed, replicate=replicate), table, seed)
    return chosen.annotate(table, seed=seed, replicate=replicate)


def calibrate(
    votes: pd.DataFrame | Sequence[Mapping[str, Any]] | str | Path,
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
        raise UserError(f"groups = {groups}: 1 to 4 of them can be told apart")
    if out is not None:
        calibration.check_name(Path(out))
    if isinstance(votes, (str, Path)):
        found = calibration.calibrate(
            Path(votes), annotator=annotator, pairs=None if pairs is None else Path(pairs), groups=groups
        )
    else:
        if pairs is not None:
            raise UserError("farm.calibrate: `pairs` is for a row of an evaluators leaderboard")
        table = from_table(votes if isinstance(votes, pd.DataFrame) else pd.DataFrame(list(votes)), "the votes")
        found = calibration.of_votes(
            calibration.of_annotator(table, annotator, "the votes"), "the votes", groups=groups
        )
    if out is not None:
        calibration.write(found, Path(out))
    return found
