"""A grid to walk on: a small Markov decision problem whose soft optimum is known, with segments of moves as responses.

    Q(s, a) = r(s, a) + gamma V(s'),    V(s) = alpha log sum_a exp(Q(s, a) / alpha),    A = Q - V = alpha log pi*(a|s)

A prompt is the cell where a segment begins, a response ``length`` moves, and a policy a softmax over the moves of each
cell. Two things can be told of a segment: the sum of its rewards (``return``), and the sum of its advantages under the
optimal policy (``advantage``), the negative of its regret. The second is the gold utility: it says how near each move
is to what the optimal policy does, and it counts where a segment ends, which the first does not see.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import pandas as pd

from farm.base.arrays import Floats
from farm.base.bounds import Count, Discount, Positive, bounded
from farm.base.errors import UserError, nearest
from farm.hardware.device import Device
from farm.policies import cells
from farm.policies.tabular import TabularPolicy
from farm.roles.protocols import Features, Policy
from farm.tables.turns import Prompt, turns_of


class Segments:
    """What a segment is worth: ``advantage`` and ``return``, undiscounted sums over its moves."""

    gold_weights: ClassVar[dict[str, float]] = {"advantage": 1.0}

    def __init__(self, places: Mapping[str, int], moves: Mapping[str, int], advantage: Floats, reward: Floats) -> None:
        self.places, self.moves = places, moves
        self.advantage, self.reward = advantage, reward

    def __call__(self, instructions: Sequence[Prompt], outputs: Sequence[str]) -> pd.DataFrame:
        rows = [self.steps(turns_of(prompt)[0], output) for prompt, output in zip(instructions, outputs, strict=True)]
        table = {
            "advantage": [float(sum(self.advantage[s, a] for s, a in row)) for row in rows],
            "return": [float(sum(self.reward[s, a] for s, a in row)) for row in rows],
            "length": [len(row) for row in rows],
        }
        return pd.DataFrame(table).assign(lists=0)

    def steps(self, start: str, output: str) -> list[tuple[int, int]]:
        """State and move of each step of a segment, by their numbers.

        Raises:
            UserError: for a cell or a move that the world does not have.
        """
        words = output.split()
        if wrong := next((word for word in words if word not in self.moves), None):
            raise UserError(f"{wrong[:60]!r} is no move of this grid; {nearest(wrong, self.moves)}")
        states = [cells.after(start, tuple(words[:t])) for t in range(len(words))]
        if states and states[0] not in self.places:
            raise UserError(f"{start[:60]!r} is no cell of this grid, which has {len(self.places)}")
        return [(self.places[state], self.moves[word]) for state, word in zip(states, words, strict=True)]


class GridWorld:
    """Cells, moves between them, and what some of the moves earn.

    Args:
        width, height: of the grid; one row is a chain.
        rewards: "column,row move" -> what that move earns there; the others earn nothing.
        moves: those there are, of left, right, up and down.
        length: moves of a segment.
        gamma: the discount, below 1.
        alpha: the weight of the entropy; towards 0 the optimal policy is greedy.

    Raises:
        ValueError: for a move that is none, or a reward for what the grid does not have.
    """

    device: ClassVar[Device] = "cpu"
    features: Features
    truth_known: bool

    @bounded
    def __init__(
        self,
        rewards: dict[str, float],
        width: Count = 6,
        height: Count = 1,
        moves: tuple[str, ...] = ("left", "right"),
        length: Count = 3,
        gamma: Discount = 0.9,
        alpha: Positive = 0.5,
    ) -> None:
        if wrong := next((move for move in moves if move not in cells.MOVES), None):
            raise ValueError(f"`moves`: {wrong!r} is none; {nearest(wrong, cells.MOVES)}")
        self.moves, self.length, self.gamma, self.alpha = list(moves), length, gamma, alpha
        places = [(column, row) for row in range(1, height + 1) for column in range(1, width + 1)]
        self.cells = [cells.cell(*place, width, height) for place in places]
        known = {f"{c},{r} {move}": (s, a) for s, (c, r) in enumerate(places) for a, move in enumerate(self.moves)}
        self.reward = np.zeros((len(self.cells), len(self.moves)))
        for name, value in rewards.items():
            if name not in known:
                raise ValueError(f"`rewards`: {name!r} is no move in a cell of the grid; {nearest(name, known)}")
            self.reward[known[name]] = value
        number = {text: s for s, text in enumerate(self.cells)}
        self.next = np.array([[number[cells.after(text, (move,))] for move in self.moves] for text in self.cells])
        self.advantage = self.soft_advantage(self.reward)
        self.truth_known = True
        columns = {move: a for a, move in enumerate(self.moves)}
        self.features = self.segments = Segments(number, columns, self.advantage, self.reward)

    def instructions(self, split: str, limit: int | None = None) -> pd.DataFrame:
        """All cells, in every split: there is nothing to generalise to in a table."""
        return pd.DataFrame({"instruction": self.cells, "split": split, "dataset": "grid"})[:limit]

    def demonstrations(self, limit: int | None = None) -> pd.DataFrame | None:  # noqa: ARG002
        """None: the base policy walks at random."""
        return None

    def base_policy(self) -> Policy:
        return TabularPolicy(self.cells, self.moves, state="cell", length=self.length)

    def soft_advantage(self, reward: Floats) -> Floats:
        """A of the soft optimum for rewards [S, K], by value iteration to rounding; alpha log of its policy."""
        value, change = np.zeros(len(reward)), np.inf
        while change > 1e-13 * max(1.0, float(np.abs(value).max())):
            q = reward + self.gamma * value[self.next]
            better = self._soft_maximum(q)
            value, change = better, float(np.abs(better - value).max())
        return np.asarray(q - self._soft_maximum(q)[:, None])

    def _soft_maximum(self, q: Floats) -> Floats:
        return np.asarray(self.alpha * np.logaddexp.reduce(q / self.alpha, axis=1))

    def worth(self, policy: Floats) -> float:
        """(1 - gamma) times the expected discounted return of a policy [S, K] from a uniform start."""
        steps = np.zeros((len(policy), len(policy)))
        np.add.at(steps, (np.arange(len(policy))[:, None], self.next), policy)
        value = np.linalg.solve(np.eye(len(policy)) - self.gamma * steps, (policy * self.reward).sum(1))
        return float((1 - self.gamma) * value.mean())
