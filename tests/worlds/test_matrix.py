"""The matrix world: Bradley-Terry from a utility, any matrix that is one, and refusals by cell."""

import numpy as np
import pytest

from farm.policies.tabular import TabularPolicy
from farm.worlds.matrix import MatrixWorld

CYCLE = [[0.5, 0.8, 0.1], [0.2, 0.5, 0.7], [0.9, 0.3, 0.5]]


def test_utilities_are_bradley_terry() -> None:
    world = MatrixWorld(utilities=[0.0, 1.0, 3.0], reference=[0.5, 0.3, 0.2], prompts=2)
    first, second = ["response 2", "response 1"], ["response 1", "response 3"]
    np.testing.assert_allclose(world.preference(first, second), [1 / (1 + np.exp(-1)), 1 / (1 + np.exp(3))])
    policy = world.base_policy()
    assert isinstance(policy, TabularPolicy)
    np.testing.assert_allclose(policy.probabilities().detach(), [[0.5, 0.3, 0.2]] * 2, rtol=1e-6)
    assert world.truth_known
    assert world.features(["prompt 1"], ["response 3"])["utility"].tolist() == [3.0]


def test_a_cycle_has_no_gold_utility() -> None:
    world = MatrixWorld(preferences=CYCLE)
    assert not world.truth_known
    np.testing.assert_array_equal(world.matrix, CYCLE)


@pytest.mark.parametrize(
    ("matrix", "complaint"),
    [
        ([[0.5, 0.8], [0.3, 0.5]], r"row 1, column 2: 0\.8 and its mirror image do not add to 1"),
        ([[0.4, 0.5], [0.5, 0.5]], r"row 1, column 1: 0\.4 and its mirror"),
        ([[0.5, 1.2], [-0.2, 0.5]], r"row 1, column 2: 1\.2 is not a probability"),
        ([[0.5, float("nan")], [0.5, 0.5]], r"row 1, column 2: nan is not a probability"),
        ([[0.5, 0.5]], "must be a square matrix"),
    ],
)
def test_a_wrong_matrix_is_refused_by_cell(matrix: list[list[float]], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        MatrixWorld(preferences=matrix)


def test_terms_are_features_beside_the_utility_and_prompts_may_share_a_row() -> None:
    world = MatrixWorld(utilities=[0.0, 1.0], reference=[0.25, 0.75], prompts=3, terms={"wit": [2.0, 5.0]}, shared=True)
    asked = world.instructions("train")["instruction"].tolist()
    assert world.features(asked, ["response 2"] * 3)["wit"].tolist() == [5.0] * 3
    assert world.features.gold_weights == {"utility": 1.0}
    policy = world.base_policy()
    assert isinstance(policy, TabularPolicy) and len(set(asked)) == 3 and len(policy.prompts) == 1
    np.testing.assert_allclose(policy.probabilities().detach(), [[0.25, 0.75]], rtol=1e-6)
    assert len(policy.sample(asked, seed=1, purpose="test")) == 3
    with pytest.raises(ValueError, match="`wit` has 1 entries for 2 responses"):
        MatrixWorld(utilities=[0.0, 1.0], terms={"wit": [2.0]})
    with pytest.raises(ValueError, match="the name `length` is taken"):
        MatrixWorld(utilities=[0.0, 1.0], terms={"length": [2.0, 1.0]})
