"""What ``farm bias`` does: outputs are edited, and a judge compares them with a baseline before and after."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pandas as pd

from eval.face.evaluate_command import named
from eval.face.options import BiasOptions
from eval.judges import interventions, judging
from farm.asking.ask import Order
from farm.base.errors import OptionError


def measured(options: BiasOptions) -> interventions.Bias:
    """The effect of each edit on the judge's verdicts."""
    o = options
    if o.judge is None:
        raise OptionError("whose bias? name a `judge`")
    names = interventions.check(o.edits, o.baseline is not None)
    own = judging.outputs(*named(o.outputs, "the outputs", "own"))
    base = own if o.baseline is None else judging.outputs(*named(o.baseline, "the baseline's outputs", "base"))
    if base is own:  # compared with itself, each output is half a win before it is edited
        base = own._replace(table=own.table.assign(generator="before"))
    pairs = judging.pairs([own], base)
    if not len(pairs):
        raise OptionError(f"{own.origin}: is the baseline itself; leave out `baseline`, or give another")

    left = o.limits

    def verdicts(name: str, settings: tuple[str, ...], table: pd.DataFrame, as_they_stand: bool) -> pd.DataFrame:
        nonlocal left
        order: Order = "given" if as_they_stand else "random"
        found = judging.judge(table, name, settings=settings, seed=o.seed, store=o.store, limits=left, order=order).rows
        if left.budget is not None and "price" in found:  # one budget for all that the command asks
            left = replace(left, budget=max(left.budget - float(found["price"].sum()), 0.0))
        return found

    reference = None if o.unbiased is None else (o.unbiased, partial(verdicts, o.unbiased, ()))
    judge = o.judge, partial(verdicts, o.judge, o.judge_settings)
    return interventions.biases(pairs, names, judge, reference, confidence=o.confidence)
