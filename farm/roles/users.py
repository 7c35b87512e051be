"""The role of a user, who replies to a policy's responses and may end the dialogue.

An *episode* is one dialogue of a policy with a user. In a table it is a row a turn of the policy: the prompt of a turn
holds the history (``instruction``, ``turns``), ``output`` is the policy's response, and beside stand

    episode     which dialogue of those that begin with the same turn; with that turn, the instruction, it names one
    turn        of the policy, from 0
    reply       what the user says to the response; "" where the dialogue is over
    reward      that the user gives for this turn
    done        whether the user has ended the dialogue
    status      "ok", or why there is no reply; the dialogue then ends there
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from farm.base.errors import UserError
from farm.base.rng import Ids
from farm.tables.further import Further
from farm.tables.records import USAGE_COLUMNS
from farm.tables.turns import Prompt, continued, prompt_of, prompts_of, turns_of

SAID = ("reply", "reward", "done", "status", *USAGE_COLUMNS)
"""the columns that a user adds"""


@runtime_checkable
class User(Protocol):
    """Someone, or something, that a policy talks to: a batch without state."""

    def reply(self, episodes: pd.DataFrame, *, seed: int) -> pd.DataFrame:
        """The rows (``instruction``, ``turns`` where there are, ``output``, ``episode``, ``turn``, and in an experiment
        the further columns of the instruction) with :data:`SAID`.

        What is hidden of an episode, such as the answer that the user has in mind, follows from (seed, first turn,
        episode), so it is the same in every turn, whoever else is in the batch.
        """


@runtime_checkable
class Verifier(Protocol):
    """A world that knows which answers are right."""

    def right(self, episodes: pd.DataFrame, *, seed: int) -> NDArray[np.bool_]:
        """Whether the response of each row is right, [n]; what is hidden follows from (seed, first turn, episode)."""


@dataclass(frozen=True)
class _Informed:
    """A user who is shown the further columns of the instruction that a dialogue began with."""

    user: User
    further: Further

    def reply(self, episodes: pd.DataFrame, *, seed: int) -> pd.DataFrame:
        rows = zip(prompts_of(episodes), episodes["turn"], strict=True)
        began = [prompt_of(turns_of(prompt)[: len(turns_of(prompt)) - 2 * int(turn)]) for prompt, turn in rows]
        return self.user.reply(self.further.onto(episodes, began), seed=seed)


def informed(user: User, further: Further) -> User:
    """The user, who is shown these columns wherever a dialogue began with an instruction that has them."""
    return _Informed(user, further) if further.names else user


def replies(user: User, shown: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """The user's replies to the rows that are shown, in their order.

    Raises:
        UserError: where the user does not answer as its role says.
    """
    found, who = user.reply(shown, seed=seed), type(user.user if isinstance(user, _Informed) else user).__name__
    if lacking := [name for name in SAID if name not in found.columns]:
        raise UserError(f"the user {who} gives no `{lacking[0]}`: reply() adds {', '.join(SAID)}")
    if len(found) != len(shown):
        raise UserError(f"the user {who} replies to {len(found):,} of {len(shown):,} rows; give one row for each")
    return found.reset_index(drop=True)


def episode_numbers(prompts: Sequence[Prompt]) -> Ids:
    """The number of each dialogue among those that begin with the same turn, [n].

    >>> episode_numbers(["a", ("a", "b", "c"), "b", "a"]).tolist()
    [0, 1, 0, 2]
    """
    first = pd.Series([turns_of(prompt)[0] for prompt in prompts], dtype=object)
    return first.groupby(first).cumcount().to_numpy(np.uint64)


Take = Callable[[int, list[Prompt], Ids], pd.DataFrame]
"""One turn of the dialogues that go on: (turn, prompts, episodes) -> a row each, with the response and the reply"""


def dialogues(take: Take, prompts: Sequence[Prompt], episodes: Ids, turns: int) -> Iterator[pd.DataFrame]:
    """The rows of each turn, until every dialogue is over or had ``turns`` turns.

    Args:
        prompts, episodes: [n], which together name the dialogues.
    """
    going, ids = list(prompts), episodes
    for turn in range(turns):
        if not going:
            return
        table = take(turn, going, ids)
        yield table
        on = np.flatnonzero(~table["done"].to_numpy(bool) & (table["status"] == "ok").to_numpy())
        said = zip(prompts_of(table), table["output"], table["reply"], strict=True)
        after = [continued(*row) for row in said]
        going, ids = [after[row] for row in on], ids[on]
