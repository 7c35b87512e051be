"""Recorded verdicts instead of a model: annotations in AlpacaEval's form, looked up by their texts.

``replay/annotations.json`` answers a pair that stands in the file, in either order, with the recorded preference; a
pair that does not is unparseable, not an error of the run. A judge whose model is gone can be asked this way.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from annotators.llm.completion import Completion, Failed, Request
from annotators.llm.prompt import Item, clean, in_tags, shown
from annotators.llm.verdicts import spoken
from farm.tables.formats import read_annotations
from farm.tables.records import PairIds, swapped
from farm.tables.turns import prompts_of


class Replay:
    """The recorded verdicts of one file; several for a pair are drawn in turn by ``replicate``."""

    concurrency = 64

    def __init__(self, name: str, _: str | None = None) -> None:
        table = read_annotations(name)
        table = table[table["preference"].notna()]
        both_of = zip(table["output_1"], table["output_2"], strict=True)
        items = [Item(asked, outputs) for asked, outputs in zip(prompts_of(table), both_of, strict=True)]
        texts = {f"output_{k + 1}": [clean(item.outputs[k], item.tags) for item in items] for k in range(2)}
        table = table.assign(instruction=list(map(in_tags, items)), **texts).drop(columns="turns", errors="ignore")
        both = [table, swapped(table, np.ones(len(table), dtype=bool))]
        self._recorded: dict[tuple[str, str, str], list[float]] = defaultdict(list)
        for one in both:
            if (ids := PairIds(one)).identical.all():
                continue
            rows = zip(one["instruction"], one["output_1"], one["output_2"], one["preference"], strict=True)
            for keep, (instruction, first, second, preference) in zip(~ids.identical, rows, strict=True):
                if keep:
                    self._recorded[instruction, first, second].append(float(preference))

    async def complete(self, request: Request) -> Completion:
        verdicts = []
        for pair in shown(request.user):
            recorded = self._recorded.get((pair.instruction, pair.first, pair.second))
            if not recorded:
                raise Failed("this pair is not in the recorded annotations")
            verdicts.append(recorded[request.replicate % len(recorded)])
        return Completion(spoken(verdicts), model="replay")

    async def close(self) -> None:
        return None
