"""Annotation from Python: ``farm.annotate``, as `farm annotate` does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from annotators.annotation_run import context_for
from annotators.both_orders import BothOrders
from annotators.cached import Cached
from annotators.wrapping import keeps_answers
from farm import config, formats
from farm.api import spec_of
from farm.protocols import Annotator
from farm.records import in_random_order
from farm.store import Store, home


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
