"""What an annotator's verdicts will cost before it was ever asked, for `farm run --dry-run`.

Programs are free. Language models are asked in a dry session, which counts questions and tokens and looks prices up as
`farm annotate --dry-run` does. Of somebody else's annotator nothing is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pandas as pd

from annotators.llm.session import session
from farm.asking.limits import Limits
from farm.base import progress
from farm.roles.protocols import Annotator


def foresee(
    spec: Mapping[str, Any], build: Callable[[], Annotator], pairs: Callable[[], pd.DataFrame], seed: int
) -> dict[str, Any] | None:
    """What verdicts on ``pairs`` cost: ``price`` (US dollars; None without a price), tokens, ``models``.

    Args:
        spec: the resolved spec of the annotator.
        build, pairs: the annotator and its pairs, wanted only for language models.

    Returns:
        None where a class of the spec is not ours, so that nobody knows what it does.
    """
    classes = list(_classes(spec))
    if not all(name.startswith("annotators.") for name in classes):
        return None
    free = {"price": 0.0, "questions": 0, "input_tokens": 0, "output_tokens": 0, "models": [], "unpriced": []}
    if not any(name.startswith("annotators.llm.") for name in classes):
        return free
    with session(Limits(dry_run=True)) as dry, progress.quiet():
        build().annotate(pairs(), seed=seed)
    tally = dry.tally
    return {
        "price": None if tally.unpriced else tally.cost,
        "questions": tally.unasked,
        "input_tokens": tally.input_tokens,
        "output_tokens": tally.output_tokens,
        "models": sorted(tally.models),
        "unpriced": sorted(tally.unpriced),
    }


def _classes(spec: Any) -> Iterator[str]:
    """Every class named in a spec, however deep."""
    if isinstance(spec, Mapping):
        if isinstance(spec.get("class"), str):
            yield spec["class"]
        for value in spec.values():
            yield from _classes(value)
    elif isinstance(spec, (list, tuple)):
        for value in spec:
            yield from _classes(value)
