"""The grid: where moves lead, its soft optimum, what segments are worth, and a policy that is Markov on it."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
import torch

from annotators.people.logit import LogitAnnotator
from farm.base.errors import UserError
from farm.policies.cells import after
from farm.policies.tabular import TabularPolicy
from farm.worlds.grid import GridWorld

CHAIN = GridWorld({"6,1 right": 1.0, "1,1 left": 0.3})


def optimal() -> TabularPolicy:
    return TabularPolicy(CHAIN.cells, CHAIN.moves, CHAIN.advantage / CHAIN.alpha, state="cell", length=3)


def test_walls_hold_and_a_grid_has_two_directions() -> None:
    assert after("cell 1,1 of 6x1", ("left",)) == "cell 1,1 of 6x1"
    assert after("cell 2,1 of 3x2", ("up", "up", "right", "down", "left")) == "cell 2,1 of 3x2"
    with pytest.raises(UserError, match="'cell 3' is no cell of a grid"):
        after("cell 3", ())
    with pytest.raises(UserError, match="'rigth' is no move on a grid; did you mean `right`"):
        after("cell 2,1 of 3x2", ("rigth",))


def test_the_soft_optimum_is_a_policy_and_its_own_improvement() -> None:
    policy = np.exp(CHAIN.advantage / CHAIN.alpha)
    assert policy.sum(1) == pytest.approx(np.ones(6))
    assert CHAIN.worth(policy) == pytest.approx(0.7245, abs=5e-5)
    assert CHAIN.soft_advantage(CHAIN.reward + 7.0) == pytest.approx(CHAIN.advantage)  # a constant changes nothing
    # shaped by a potential, whose optimum is the same (Ng, Harada and Russell, 1999)
    potential = np.arange(6.0) ** 2
    shaped = CHAIN.reward + CHAIN.gamma * potential[CHAIN.next] - potential[:, None]
    assert CHAIN.soft_advantage(shaped) == pytest.approx(CHAIN.advantage)


def test_the_advantage_of_a_segment_is_its_log_likelihood_under_the_optimal_policy() -> None:
    rows = [(start, " ".join(m)) for start in CHAIN.cells for m in itertools.product(CHAIN.moves, repeat=3)]
    starts, outputs = zip(*rows, strict=True)
    policy = optimal()
    likelihood = policy.log_probabilities(policy.encode(starts, outputs))[0].sum(1)
    found = CHAIN.features(starts, outputs)
    assert CHAIN.alpha * likelihood.detach().numpy() == pytest.approx(found["advantage"].to_numpy())
    assert found["return"].max() == 3.0 and (found["return"] > 0).sum() == 8 + 8  # a side that push a wall


def test_a_markov_policy_does_not_see_how_it_came_to_a_cell() -> None:
    policy = optimal()
    both = policy.encode([CHAIN.cells[2]] * 2, ["left right right", "right left left"])
    tables, _ = policy.distributions(both)
    assert torch.equal(tables[0, 2], tables[1, 2]) and not torch.equal(tables[0, 1], tables[1, 1])


def test_people_who_see_regret_and_people_who_see_returns_differ_where_a_segment_ends() -> None:
    pairs = pd.DataFrame(
        {"instruction": [CHAIN.cells[1]], "output_1": ["left left left"], "output_2": ["right right right"]}
    )
    said = {
        seen: LogitAnnotator(CHAIN.features, weights={seen: 1.0}, temperature=1e-3).annotate(pairs, seed=1)
        for seen in ("advantage", "return")
    }
    assert said["return"]["preference"].tolist() == [1.0]  # two small rewards now
    assert said["advantage"]["preference"].tolist() == [2.0]  # on the way to the large ones


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rewards": {"7,1 right": 1.0}}, "'7,1 right' is no move in a cell of the grid; did you mean `6,1 right`"),
        ({"rewards": {}, "moves": ("left", "rihgt")}, "`moves`: 'rihgt' is none; did you mean `right`"),
    ],
)
def test_what_a_grid_does_not_have_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GridWorld(**settings)  # type: ignore[arg-type]
