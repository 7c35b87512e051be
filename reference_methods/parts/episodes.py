"""Episodes while a method learns: dialogues that a policy writes, and the return that is carried over their turns.

An episode is rows of samples, one a turn (farm.roles.users). What a turn is worth shows in later ones, so advantages
are computed over the whole episode: the tokens of its turns, one after the other, are one sequence.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from farm.asking.replies import replies
from farm.base import rng
from farm.hardware import processes
from farm.policies.tabular import occurrences
from farm.roles.protocols import Policy
from farm.roles.users import User, dialogues, episode_numbers
from farm.tables.turns import Prompt, columns
from reference_methods.parts.batches import sampled


def episodes_of(
    policy: Policy,
    user: User,
    prompts: Sequence[Prompt],
    turns: int,
    *,
    seed: int,
    purpose: str,
    temperature: float = 1.0,
    max_new_tokens: int | None = None,
) -> pd.DataFrame:
    """One dialogue for each prompt, a row a turn: the columns of samples and of users, and ``row``, the place of the
    prompt that the dialogue began with. Turn 0 draws what the policy writes to the prompts alone; of several processes
    one asks the user."""
    number, episode = occurrences(prompts), episode_numbers(prompts)
    talk = rng.torch_seed(seed, f"{purpose}/user")

    def take(turn: int, going: list[Prompt], rows: rng.Ids) -> pd.DataFrame:
        samples = sampled(
            policy,
            going,
            seed=seed,
            purpose=f"{purpose}/turn {turn}" if turn else purpose,
            temperature=temperature,
            max_new_tokens=max_new_tokens,
            draws=number[rows],
        )
        shown = pd.DataFrame({**columns(samples.prompts), "output": samples.outputs})
        shown = shown.assign(episode=episode[rows], turn=turn)
        said = processes.made_by_first(lambda: replies(user, shown, seed=talk))
        written = samples.frame("policy")
        return said.assign(row=rows, **{name: written[name] for name in written if name not in said})

    return pd.concat(dialogues(take, prompts, np.arange(len(prompts), dtype=np.uint64), turns), ignore_index=True)


def last_turns(row: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which rows are the last of their episodes; rows stand in the order of turns, [n]."""
    last: dict[int, int] = {int(episode): place for place, episode in enumerate(row)}
    out = np.zeros(len(row), dtype=bool)
    out[list(last.values())] = True
    return out


class Turns:
    """The tokens of B rows as those of E episodes.

    Args:
        row: which episode each row belongs to, [B]; its rows stand in the order of their turns.
        mask: true at real tokens, which come first in each row, [B, T].
    """

    def __init__(self, row: NDArray[np.uint64], mask: Tensor) -> None:
        _, line = np.unique(row, return_inverse=True)
        lengths, ends = mask.sum(1).cpu().numpy(), np.zeros(int(line.max(initial=-1)) + 1, dtype=np.int64)
        offset = np.empty(len(row), dtype=np.int64)
        for place, episode in enumerate(line):
            offset[place], ends[episode] = ends[episode], ends[episode] + lengths[place]
        self._mask = mask
        where = torch.from_numpy(offset).to(mask.device)[:, None] + torch.arange(mask.shape[1], device=mask.device)
        self._where = torch.from_numpy(line).to(mask.device)[:, None].expand_as(mask)[mask], where[mask]
        self._shape = len(ends), int(ends.max(initial=0))
        self.mask = self.together(mask)
        """true at real tokens of episodes, [E, L]"""

    def together(self, values: Tensor) -> Tensor:
        """[B, T] -> [E, L], zeros behind the last token of an episode."""
        out = values.new_zeros(self._shape)
        out[self._where] = values[self._mask]
        return out

    def apart(self, values: Tensor) -> Tensor:
        """[E, L] -> [B, T], zeros where masked."""
        out = values.new_zeros(self._mask.shape)
        out[self._mask] = values[self._where]
        return out
