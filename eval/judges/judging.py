"""Model outputs judged against a baseline: pairs by instruction, a judge by name, annotations out.

Outputs are matched by the text of the instruction, never by position; every instruction of a method must be in the
baseline. The order in which the two outputs are shown is drawn for each pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from farm.asking.ask import Order, parts
from farm.asking.limits import Limits
from farm.asking.purse import limited
from farm.base import progress
from farm.base.errors import UserError
from farm.feedback.pairs import KIND as PAIRS
from farm.roles import config, named_configs
from farm.roles.protocols import Annotator, Context, Features
from farm.storage.store import Store, home
from farm.tables.formats import as_outputs

CHUNK = 2000


class Outputs(NamedTuple):
    """The outputs of one method, and where they are from."""

    origin: str
    table: pd.DataFrame


def pairs(methods: Sequence[Outputs], baseline: Outputs) -> pd.DataFrame:
    """Pairs of each method's outputs (second) with the baseline's (first).

    Raises:
        UserError: for an instruction that the baseline has not answered.
    """
    base = baseline.table
    reference = base.set_index("instruction")
    parts = []
    for origin, own in methods:
        lacking = np.flatnonzero(~own["instruction"].isin(reference.index).to_numpy())
        if lacking.size:
            raise UserError(
                f"{origin}: row {int(lacking[0]) + 1}: the baseline {baseline.origin} has not answered this "
                f"instruction ({lacking.size} of {len(own)} are not there)"
            )
        matched = reference.loc[own["instruction"]]
        pair = pd.DataFrame(
            {
                "instruction": own["instruction"],
                "output_1": matched["output"].to_numpy(),
                "generator_1": matched["generator"].to_numpy(),
                "output_2": own["output"],
                "generator_2": own["generator"],
            }
        )
        dataset = own["dataset"] if "dataset" in own else matched["dataset"].to_numpy() if "dataset" in base else None
        parts.append(pair if dataset is None else pair.assign(dataset=dataset))
    table = pd.concat(parts, ignore_index=True)
    return table[table["generator_2"] != table["generator_1"].iloc[0]].reset_index(drop=True)


def outputs(origin: str, name: str, table: pd.DataFrame) -> Outputs:
    """The outputs of one method, called ``name`` where they do not say.

    Raises:
        UserError: for no output, a missing field, an instruction that occurs twice, or several generators.
    """
    table = as_outputs(table, origin, name)
    if not len(table):
        raise UserError(f"{origin}: holds no output")
    repeated = np.flatnonzero(table["instruction"].duplicated().to_numpy())
    if repeated.size:
        raise UserError(f"{origin}: row {int(repeated[0]) + 1}: this instruction was answered in an earlier row")
    generators = table["generator"].unique()
    if len(generators) > 1:
        raise UserError(f"{origin}: holds outputs of {len(generators)} generators; give one file a method")
    return Outputs(origin, table)


class Judged(NamedTuple):
    """Annotations, how many of them the store already had, and what the others cost."""

    rows: pd.DataFrame
    reused: int
    paid: float


def judge(
    table: pd.DataFrame,
    name: str,
    *,
    settings: Sequence[str] = (),
    seed: int = 0,
    store: Path | None = None,
    fresh: bool = False,
    limits: Limits | None = None,
    order: Order = "random",
) -> Judged:
    """The annotations of a judge (a named config or a YAML file) on these pairs.

    Every verdict is kept in ``store`` (default: that of FARM_HOME) as soon as its chunk is judged, and looked up there
    first: a second run asks for nothing, and one that broke off goes on. ``fresh`` asks for all and keeps none. With
    the ``order`` "given" outputs are shown as they stand.

    Raises:
        OverBudget: where the budget of ``limits`` ends before the last verdict; the answers so far are kept.
    """
    from farm.worlds.text_features import TextFeatures

    path = named_configs.find("annotators", name)
    spec = config.override(named_configs.load_mapping(path), settings)
    features: Features = TextFeatures()
    kept = Store(store or home() / "store.sqlite")
    context = Context(features=features, store=kept)
    annotator = config.build(Annotator, spec, context, str(path))
    judged: list[pd.DataFrame] = []
    paid = 0.0
    whole = replace(limits or Limits(), whole=True)
    with limited(whole), progress.task(f"judging ({name})", len(table)) as work:
        for part in parts(PAIRS, annotator, table, seed=seed, order=order, chunk=CHUNK, store=None if fresh else kept):
            judged.append(part)
            paid += _paid(part)
            # Questions to a language model have shown their progress already.
            work.advance(max(sum(map(len, judged)) - work.done, 0), max(paid - work.cost, 0.0))
    rows = pd.concat(judged, ignore_index=True)
    reused = int(rows["cached"].sum()) if "cached" in rows else 0
    return Judged(rows.drop(columns="cached", errors="ignore"), reused, paid)


def _paid(rows: pd.DataFrame) -> float:
    """What these verdicts cost now: those from the store were paid before."""
    if "price" not in rows:
        return 0.0
    now = ~rows["cached"].to_numpy(bool) if "cached" in rows else np.ones(len(rows), bool)
    return float(rows["price"].to_numpy(np.float64)[now].sum())
