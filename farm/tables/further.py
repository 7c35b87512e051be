"""Further columns of a world's instructions: a scope, a context, a group of users. They go with every row that is about
the instruction: responses, feedback and who gives it, users, answers, verdicts, and so to measures (``where``).

They are carried beside the texts and are no part of an id: draws are the same with and without them. So a prompt has
one value of each, and a column may not have a name under which a stage writes what it finds out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from pandas.api.types import infer_dtype

from farm.base.errors import UserError
from farm.tables.records import USAGE_COLUMNS, VERDICT_COLUMNS
from farm.tables.turns import Prompt, prompt_ids, row_ids

OF_THE_PROMPT = ("instruction", "turns", "split")
"""columns of instructions that are not further ones: what is asked, and a part of the stage's setting"""
OF_STAGES = frozenset(
    {
        *VERDICT_COLUMNS,
        *USAGE_COLUMNS,
        *"output generator finish_reason prompt_tokens response_tokens log_probabilities group writer draw".split(),
        *"outputs generators output_1 output_2 generator_1 generator_2 anchor method sample tokens gold proxy".split(),
        *"kl baseline model of margin agrees episode turn reply reward done user score scores ranking liked".split(),
        *"observed text polarity marks correction right nearer value failure row".split(),
    }
)
"""names under which stages, givers of feedback, users and measures write"""
PLAIN = ("string", "integer", "floating", "mixed-integer-float", "boolean", "empty")
"""kinds of cells, as pandas calls them, that a stage's table can hold"""


def plain(table: pd.DataFrame) -> list[str]:
    """The columns whose cells can be kept; a file may have others."""
    return [c for c in table.columns if infer_dtype(table[c], skipna=True) in PLAIN]


def further(table: pd.DataFrame) -> list[str]:
    """The names of a table's further columns that are not taken."""
    return [c for c in table.columns if c not in OF_THE_PROMPT and c not in OF_STAGES]


def of_prompts(table: pd.DataFrame) -> list[str]:
    """The names of further columns that have one value for each prompt of the table; others are of its rows."""
    ids = row_ids(table)
    return [name for name in further(table) if (table[name].groupby(ids).nunique(dropna=False) <= 1).all()]


@dataclass(frozen=True)
class Further:
    """The further columns of instructions, one row a prompt."""

    ids: pd.Index
    table: pd.DataFrame
    then: Further | None = None
    """what others say of prompts, which counts where both do"""

    @property
    def names(self) -> list[str]:
        """Of all columns."""
        return [*self.table.columns, *(self.then.names if self.then else ())]

    @classmethod
    def of(cls, instructions: pd.DataFrame, origin: str) -> Further:
        """Those of an instruction table. What data set a prompt is from (``dataset``) may differ where it stands twice;
        the first counts.

        Raises:
            UserError: for a name that is taken, or a prompt with two values of a column.
        """
        taken = [c for c in instructions.columns if c in OF_STAGES]
        if taken:
            raise UserError(
                f"{origin}: the world's instructions have a column `{taken[0]}`, a name under which a stage writes; "
                "give it another name"
            )
        ids = pd.Index(row_ids(instructions))
        table, first = instructions[further(instructions)].reset_index(drop=True), ~ids.duplicated()
        place = ids[first].get_indexer(ids)
        for name in table.columns if not first.all() and len(table) else ():
            once = table[name][first].iloc[place].reset_index(drop=True)
            differs = (once != table[name]) & (once.notna() | table[name].notna())
            if name != "dataset" and differs.any():
                asked = str(instructions["instruction"].iloc[int(differs.to_numpy().argmax())])[:40]
                raise UserError(
                    f"{origin}: the instruction {asked!r} stands twice with two values of `{name}`: a further column "
                    "has one value for a prompt"
                )
        return cls(ids[first], table[first].reset_index(drop=True))

    def onto(self, rows: pd.DataFrame, prompts: Sequence[Prompt] | None = None) -> pd.DataFrame:
        """The rows with these columns, by their prompts or by those given, [n]; for prompts that are not among the
        instructions what the rows have themselves, or missing; no column where no prompt is."""
        place = self.ids.get_indexer(pd.Index(row_ids(rows) if prompts is None else prompt_ids(prompts)))
        if len(self.table.columns) and not (len(place) and place.max() < 0):
            known = place >= 0
            found = self.table.take(place) if known.all() else self.table.reindex(place)
            said = {str(name): found[name].to_numpy() for name in found.columns}
            for name in rows.columns.intersection(list(said)) if not known.all() else ():
                said[name] = rows[name].where(~known, found[name].to_numpy()).to_numpy()
            rows = rows.assign(**said)
        return rows if self.then is None else self.then.onto(rows, prompts)
