"""The game that the documented numbers are about: a cycle of three responses, none as strong as another."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from farm.base.arrays import Floats
from farm.experiments.asker import FeedbackAsker
from farm.feedback.kind import kind


def asker(annotator: Any, seed: int = 1) -> FeedbackAsker:
    """Who is asked for pairs while a method learns."""
    return FeedbackAsker(kind("pairs"), annotator, seed)


@pytest.fixture(scope="session")
def cycle() -> tuple[Floats, Floats]:
    """Preferences [3, 3] and reference [3]: 0 beats 1 by .3, 1 beats 2 by .2, 2 beats 0 by .4."""
    return np.array([[0.5, 0.8, 0.1], [0.2, 0.5, 0.7], [0.9, 0.3, 0.5]]), np.array([0.5, 0.3, 0.2])


def skew_game(size: int, seed: int) -> tuple[Floats, Floats]:
    """A random game: every pair has a preference drawn uniformly, the reference is a Dirichlet draw."""
    draw = np.random.default_rng([size, seed])
    upper = np.triu(draw.uniform(-0.5, 0.5, (size, size)), 1)
    return 0.5 + upper - upper.T, draw.dirichlet(np.full(size, 2.0))


@pytest.fixture(scope="session")
def random_games() -> list[tuple[Floats, Floats]]:
    """100 games: batches of 3 or 4 of one size, sizes 3 to 30; preferences [S, K, K], references [S, K]."""
    sizes = np.resize(np.arange(3, 31), 100)
    batches = []
    for size in range(3, 31):
        games = [skew_game(size, i) for i in np.flatnonzero(sizes == size)]
        batches.append((np.stack([p for p, _ in games]), np.stack([r for _, r in games])))
    return batches
