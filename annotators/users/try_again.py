"""The user who says nothing but that an answer was wrong, until it is right.

Paper: "A Simple 'Try Again' Can Elicit Multi-Turn LLM Reasoning" (arXiv 2507.14295), whose words are the default. The
reward is 1 for the right answer, which ends the dialogue, and 0 for any other; what a later success is worth, and what
repetitions cost, is for the method that learns (reference_methods/online/ufo.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd

from farm.roles.protocols import World
from farm.roles.users import Verifier
from farm.tables.records import USAGE_COLUMNS


@dataclass(frozen=True)
class TryAgain:
    """Checks each answer with the world, and asks for another one.

    Raises:
        ValueError: in a world that cannot say what is right.
    """

    free: ClassVar[bool] = True
    world: World
    words: str = "Incorrect. Please think again."

    def __post_init__(self) -> None:
        if not isinstance(self.world, Verifier):
            raise ValueError(
                f"the user try_again checks answers, and {type(self.world).__name__} has no `right` to check them "
                "with; take a world of questions, such as quiz_table"
            )

    def reply(self, episodes: pd.DataFrame, *, seed: int) -> pd.DataFrame:
        assert isinstance(self.world, Verifier)
        right = self.world.right(episodes, seed=seed)
        said = np.where(right, "", self.words)
        free = dict.fromkeys(USAGE_COLUMNS, 0.0)
        return episodes.assign(reply=said, reward=right.astype(np.float64), done=right, status="ok", **free)
