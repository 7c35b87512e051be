"""Drift: a judge is asked again about pairs that it judged before, its anchors, and compared with itself.

The model behind a name can become another one. Of an anchor with answers a_1 ... a_r then and b now,

    d = mean_i agreement(b, a_i) - mean_{i<j} agreement(a_i, a_j)          s = score(b) - mean_i score(a_i)

where agreement is 1 - |a - b| of verdicts in [1, 2], and score says whether output_2 is preferred. If the judge is the
same, also one that draws its verdicts, all answers of an anchor are alike in distribution, and both have expectation
zero. Where the interval of one of them leaves out zero the judge has changed; each has 97.5 %, so that a judge that is
the same is called changed once in twenty times at most. d needs two answers from then (``--replicates 2``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from annotators.face.options import AnnotateOptions, DriftOptions
from annotators.llm.session import session
from annotators.runs.givers import built, context_for
from farm.asking import ask as asking
from farm.asking.givers import keeps_answers
from farm.base import progress
from farm.base.arrays import Floats
from farm.base.errors import OptionError, UserError, shown
from farm.feedback.pairs import KIND
from farm.statistics import uncertainty
from farm.statistics.result import Result
from farm.statistics.uncertainty import Estimate
from farm.storage.store import Store, home
from farm.tables import formats
from farm.tables.records import PairIds, swapped, unannotated

CONFIDENCE = 0.975
POWER = 0.8
"""with which a change of the size that is told would have been seen"""


@dataclass(frozen=True)
class Drift(Result):
    """A judge beside itself at an earlier time."""

    anchors: int
    left_out: int
    """anchors without a verdict, then or now"""
    now: Estimate
    """agreement of the new answers with the earlier ones"""
    then: Estimate | None
    """agreement of the earlier answers with each other; None where each anchor had one"""
    change: Estimate | None
    """d: agreement now less agreement then"""
    shift: Estimate
    """s: by how much output_2 is preferred more often"""
    models: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    """what the server called itself then, and now"""

    @property
    def changed(self) -> bool:
        """Whether an interval leaves out that nothing has changed."""
        return any(e is not None and (e.high < 0 or e.low > 0) for e in (self.change, self.shift))

    def sentences(self) -> str:
        """For a terminal: what was compared, and what follows."""
        lines = [
            f"{self.anchors:,} anchors, {self.left_out:,} more without a verdict then or now",
            f"agrees with its earlier answers  {_shown(self.now)}",
        ]
        if self.then is not None and self.change is not None:
            lines.append(f"these agreed with each other     {_shown(self.then)}")
            lines.append(f"change of its agreement          {_shown(self.change, sign=True)}")
        else:
            lines.append("how often it agreed with itself then is not known: annotate anchors with --replicates 2")
        lines.append(f"prefers output_2 more often by   {_shown(self.shift, sign=True)}")
        before, after = (", ".join(names) for names in self.models)
        if before and after and before != after:
            lines.append(f"the server called itself {before} then, and {after} now")
        least = max(_seen(e) for e in (self.change, self.shift) if e is not None)
        unseen = f"no change is seen; one of {least:.2f} would have been seen four times in five"
        if least > 1:
            unseen = "so few anchors show no change reliably, however large it is; annotate more of them"
        if np.isnan(least):
            unseen = "anchors of one instruction alone cannot show a change; annotate anchors of several"
        seen = "the judge has changed" if self.changed else unseen
        return "\n".join([*lines, seen])


def _seen(estimate: Estimate) -> float:
    """The size of a change whose interval leaves out zero with probability POWER; missing without an interval."""
    degrees = max(estimate.clusters - 1, 1)
    beyond = uncertainty.critical(2 * POWER - 1, degrees) / uncertainty.critical(CONFIDENCE, degrees)
    return (estimate.high - estimate.low) / 2 * (1 + beyond)


def compare(then: Floats, now: Floats, clusters: pd.Series) -> Drift:
    """Answers in [1, 2] of the same anchors: ``then`` [n, r] and ``now`` [n], NaN without a verdict."""
    kept = ~(np.isnan(then).any(axis=1) | np.isnan(now))
    if not kept.any():
        raise UserError("not one anchor has a verdict both then and now, so there is nothing to compare")
    old, new, by = then[kept], now[kept], clusters[kept].astype(str)
    agreement = 1 - np.abs(old - new[:, None]).mean(axis=1)
    earlier = None
    if old.shape[1] > 1:
        pairs = [1 - np.abs(old[:, i] - old[:, j]) for i, j in combinations(range(old.shape[1]), 2)]
        earlier = np.mean(pairs, axis=0)
    return Drift(
        anchors=int(kept.sum()),
        left_out=int((~kept).sum()),
        now=uncertainty.mean(agreement, by, bounds=uncertainty.SHARE),
        then=None if earlier is None else uncertainty.mean(earlier, by, bounds=uncertainty.SHARE),
        change=None if earlier is None else _difference(agreement - earlier, by),
        shift=_difference(new - old.mean(axis=1), by),
    )


def _difference(values: Floats, by: pd.Series) -> Estimate:
    return uncertainty.mean(values, by, confidence=CONFIDENCE, bounds=uncertainty.DIFFERENCE)


def drifted(options: DriftOptions, annotators: Any, settings: Sequence[str] | Mapping[str, Any] = ()) -> Drift:
    """Ask a judge again about the pairs of a file of its verdicts, and compare (see the module's text).

    Every anchor is shown in the order in which it was shown then, and its number of the answer is the next one, so that
    nothing comes from the store but what an interrupted call left there.

    Raises:
        UserError: for a file that holds no verdicts, or those of several seeds; for a replicate that it has.
    """
    o = options
    file = Path(o.verdicts) if isinstance(o.verdicts, (str, Path)) else None
    origin = str(file or "the verdicts")
    earlier = (
        formats.read_annotations(file) if file else formats.as_annotations(formats.rows(o.verdicts, origin), origin)
    )
    formats.require(earlier, ["instruction", "output_1", "output_2"], origin)
    if o.out is not None:
        formats.check_table(o.out, inputs=[file] if file else [])
    earlier = earlier.assign(**{c: 0 for c in ("seed", "replicate") if c not in earlier})
    for column in earlier.columns.intersection(["seed", "replicate", "shown_first"]):
        earlier[column] = _whole(earlier[column], column, origin)
    if earlier["seed"].nunique() != 1:
        raise UserError(f"{origin}: anchors of one `farm annotate` have one `seed`, these {earlier['seed'].nunique()}")
    anchors, then = _anchors(earlier)
    shown_second = (anchors.get("shown_first", pd.Series(1, anchors.index)) == 2).to_numpy()
    store = Store(o.store if o.store is not None else home() / "store.sqlite")
    how = AnnotateOptions(kind="pairs", order="both" if "consistent" in earlier else "given")
    _, judge = built(annotators, settings, how, context_for(o.world, store))
    keep = store if o.store is not None and not keeps_answers(judge) else None
    number = int(earlier["replicate"].max()) + 1 if o.replicate is None else o.replicate
    if number in earlier["replicate"].to_numpy():
        raise OptionError(
            f"{origin}: `replicate` {number} is there already, and the judge would be compared with itself; leave it "
            "out, or name one that is new"
        )
    rows = swapped(unannotated(anchors, KIND.columns), shown_second)
    with session(replace(o.limits, timeout=o.timeout)), progress.task("asking again", total=len(rows)):
        seed = int(earlier["seed"].iloc[0])
        answers = asking.ask(KIND, judge, rows, seed=seed, replicate=number, order="given", store=keep)
    new = swapped(answers, shown_second)
    if "shown_first" in anchors:
        new["shown_first"] = anchors["shown_first"].to_numpy()
    if new.get("cached", pd.Series([False])).all():
        progress.note(f"all answers were in the store, given earlier; --replicate {number + 1} asks anew")
    if o.out is not None:
        formats.write_annotations(pd.concat([earlier, new.drop(columns="cached", errors="ignore")]), o.out)
    found = compare(then, new["preference"].to_numpy(dtype=np.float64), anchors["instruction"])
    return replace(found, models=(_models(earlier), _models(new)))


def _whole(values: pd.Series, name: str, origin: str) -> pd.Series:
    """int64. Raises UserError naming the row of what is no whole number."""
    for row, value in enumerate(values, start=1):
        number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
        if not number or not abs(value) < 2**63 or value != int(value):
            raise UserError(f"{origin}: row {row}: `{name}` is {shown(value)}, not a whole number")
    return values.astype(np.int64)


def _anchors(earlier: pd.DataFrame) -> tuple[pd.DataFrame, Floats]:
    """The rows of the first replicate, and the answers of all replicates to each, [n, r]."""
    ids = PairIds(earlier)
    key = pd.DataFrame({"pair": ids.pair, "swapped": ids.swapped, "replicate": earlier["replicate"].to_numpy()})
    if key.duplicated().any():
        raise UserError("the verdicts name a pair twice with one `replicate`: anchors are different pairs")
    table = earlier.assign(_pair=ids.pair, _swapped=ids.swapped)
    wide = table.pivot(index=["_pair", "_swapped"], columns="replicate", values="preference")
    first = table[table["replicate"] == earlier["replicate"].min()].reset_index(drop=True)
    at = pd.MultiIndex.from_frame(first[["_pair", "_swapped"]])
    return first.drop(columns=["_pair", "_swapped"]), wide.reindex(at).to_numpy(dtype=np.float64)


def _models(table: pd.DataFrame) -> tuple[str, ...]:
    return tuple(sorted(set(table["model"].dropna().astype(str)))) if "model" in table else ()


def _shown(estimate: Estimate, sign: bool = False) -> str:
    form = "+.3f" if sign else ".3f"
    return f"{estimate.value:{form}} [{estimate.low:{form}}, {estimate.high:{form}}]"
