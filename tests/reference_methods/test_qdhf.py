"""QDHF: what triplets tell of a planted plane, what a grid over it keeps, the arm, and diverse best-of-n."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pytest
import torch

import farm
from farm.base.arrays import Floats
from farm.base.errors import UserError
from farm.policies import load
from reference_methods.parts.embedding import embedded
from reference_methods.parts.similarity import Grid, Triplets, best_of_cells, fit_projection, plane_share
from reference_methods.selection.best_of_n import BestOfN
from reference_methods.selection.diverse_best_of_n import DiverseBestOfN, DiverseBestOfNPolicy
from reference_methods.studies.arm import METHODS, Archive, Arm, features, fitness
from tests.policies.conftest import make_policy
from tests.reference_methods.tables import learning, policy_of, recorder, scorer_of

LABELS: tuple[Literal["true", "random"], ...] = ("true", "random")
PLANE = np.eye(10)[:2]
"""two of ten features are the hidden descriptor"""


def pool(n: int = 3000) -> Floats:
    return np.random.default_rng(1).normal(size=(n, 10))


def triplets(look: Floats, n: int = 1000, flips: float = 0.0) -> Triplets:
    draws = np.random.default_rng(2)
    anchor, first, second = (look[rows] for rows in draws.integers(len(look), size=(3, n)))
    far = [np.square((anchor - other) @ PLANE.T).sum(1) for other in (first, second)]
    nearer = np.where((far[0] <= far[1]) ^ (draws.uniform(size=n) < flips), 1.0, 2.0)
    return Triplets.of(anchor, first, second, nearer)


def kept(look: Floats, weights: Floats, value: Floats) -> float:
    """What a grid over z keeps, in the bins of the hidden grid, as a share of what that grid itself keeps."""

    def quality(z: Floats) -> float:
        rows = best_of_cells(Grid.around(z, 20).cells(z), value)
        hidden = Grid.around(look @ PLANE.T, 20).cells(look[rows] @ PLANE.T)
        return float(value[rows][best_of_cells(hidden, value[rows])].sum())

    return quality(look @ weights.T) / quality(look @ PLANE.T)


def turned(angle: float) -> Floats:
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.asarray(turn @ PLANE)


def test_triplets_tell_the_planted_plane() -> None:
    """[num] .98 or more of trace(W'W) from 1,000 triplets; [trend] less with a quarter flipped, little of coins."""
    weights, accuracy = fit_projection(triplets(pool()), seed=1)
    assert plane_share(weights, PLANE) >= 0.98 and accuracy > 0.97
    singular = np.linalg.svd(weights)[1]
    assert singular[1] > 0.8 * singular[0]  # both directions count alike
    flipped, coins = (fit_projection(triplets(pool(), flips=flips), seed=1)[0] for flips in (0.25, 0.5))
    assert plane_share(weights, PLANE) > plane_share(flipped, PLANE) > 0.6 > plane_share(coins, PLANE)


def test_a_learned_grid_keeps_what_the_true_plane_keeps_at_a_random_rotation_and_no_more() -> None:
    look = pool(8000)
    value = np.random.default_rng(3).uniform(size=len(look))
    learned = kept(look, fit_projection(triplets(look), seed=1)[0], value)
    rotated = np.mean([kept(look, turned(angle), value) for angle in np.linspace(0.15, 1.4, 6)])
    drawn = np.mean([kept(look, np.random.default_rng(k).normal(size=(2, 10)), value) for k in range(4)])
    main = kept(look, np.linalg.svd(look - look.mean(0), full_matrices=False)[2][:2], value)
    assert learned >= 0.97 * rotated
    assert max(drawn, main) < rotated - 0.1 and rotated < 0.9  # the hidden axes are not told


def test_turning_z_changes_no_triplet() -> None:
    given, weights = triplets(pool(), n=50), np.random.default_rng(4).normal(size=(2, 10))
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    assert given.loss(turn @ weights, 0.05) == pytest.approx(given.loss(weights, 0.05))
    assert given.gradient(turn @ weights, 0.05) == pytest.approx(turn @ given.gradient(weights, 0.05))


def test_the_gradient_is_that_of_the_loss() -> None:
    given, weights, step = triplets(pool(), n=40), np.random.default_rng(5).normal(size=(2, 10)), 1e-6
    found = given.gradient(weights, 0.05)
    for place in ((0, 0), (1, 7)):
        moved = [weights.copy(), weights.copy()]
        moved[0][place] += step
        moved[1][place] -= step
        up, down = (given.loss(w, 0.05).mean() for w in moved)
        assert found[place] == pytest.approx((up - down) / (2 * step), rel=1e-4)


def test_too_few_triplets_are_refused() -> None:
    with pytest.raises(UserError, match="triplets: 5 are decided and 8 are needed"):
        fit_projection(triplets(pool(), n=5), seed=1)


def test_the_best_of_each_bin_is_kept_best_first() -> None:
    rows = best_of_cells(np.array([3, 1, 3, 1, 7]), np.array([0.2, 0.9, 0.5, 0.9, 0.1]))
    assert rows.tolist() == [1, 2, 4]


def test_an_archive_keeps_the_better_of_two_whatever_their_order() -> None:
    angles = np.random.default_rng(6).uniform(-1, 1, size=(40, 4))
    weights, grid = np.eye(8)[:2], Grid(np.full(2, -1.0), np.full(2, 1.0), 3)
    cells = grid.cells(features(angles) @ weights.T)
    archives = [Archive(weights, grid, given) for given in (angles, angles[::-1], angles[:8])]
    for start in range(8, 40, 8):
        archives[2].add(angles[start : start + 8])
    occupied = np.unique(cells)
    best = [fitness(angles)[cells == cell].max() for cell in occupied]
    assert 1 < len(occupied) < 9
    for archive in archives:
        assert archive.fitness[occupied] == pytest.approx(best)
        assert fitness(archive.elites()) == pytest.approx(best)


def test_a_straight_arm_reaches_farthest_and_is_even() -> None:
    straight = np.zeros((1, 10))
    assert Arm().plane() @ features(straight)[0] == pytest.approx([10.0, 0.0])
    assert fitness(straight) == pytest.approx([1.0])


def test_random_answers_are_worse_than_true_ones_on_the_arm() -> None:
    """[trend] at a twentieth of the iterations."""
    true, random = (
        Arm(iterations=40, triplets=600, bins=20, labels=labels).tables(1)["archives"].set_index("method")
        for labels in LABELS
    )
    assert list(true.index) == list(METHODS)
    assert true.loc["learned", "plane"] > 0.8 > random.loc["learned", "plane"]
    assert true.loc["learned", "quality"] > random.loc["learned", "quality"]
    assert true.loc["learned", "quality"] > true.loc["random", "quality"] + 0.1  # whereas coins gain nothing over it:
    assert random.loc["learned", "quality"] < random.loc["random", "quality"] + 0.05
    others = [name for name in METHODS if name != "learned"]
    assert true.loc[others].equals(random.loc[others])


CORNERS = np.array([[0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1]], dtype=np.float64)
"""a measure of six responses of which two and two are alike"""


def test_answers_are_the_best_of_each_kind_best_first(tmp_path: Path) -> None:
    scorer, grid = scorer_of(np.arange(6.0), 2), Grid(np.zeros(2), np.ones(2), 2)
    policy = DiverseBestOfNPolicy(policy_of(np.full((2, 6), 1 / 6), prompts=2), scorer, CORNERS, grid, n=64)
    prompts = ["prompt 0", "prompt 1"] * 4
    found = policy.sample(prompts, seed=1, purpose="look")
    for row in (0, 1):
        assert found.outputs[row::2] == ["response 5", "response 3", "response 1", "response 5"]
    alone = policy.sample(["prompt 1"], seed=1, purpose="look", draws=[1])
    assert alone.outputs == ["response 3"]  # a draw depends on its number, not on what is asked with it
    policy.save(tmp_path)
    again = load(tmp_path)
    assert again.sample(prompts, seed=1, purpose="look").outputs == found.outputs  # type: ignore[union-attr]


def test_the_first_answer_is_that_of_best_of_n_and_the_measure_is_what_triplets_say() -> None:
    names, place = [f"response {r}" for r in range(6)], np.array([0.0, 0.1, 0.2, 1.0, 1.1, 1.2])
    rows = [(a, b, c) for a in range(6) for b in range(6) for c in range(6) if len({a, b, c}) == 3]
    nearer = [1.0 if abs(place[b] - place[a]) < abs(place[c] - place[a]) else 2.0 for a, b, c in rows]
    table = pd.DataFrame([[names[k] for k in row] for row in rows], columns=["anchor", "output_1", "output_2"])
    metrics, log = recorder()
    given = learning(
        policy_of(np.full(6, 1 / 6)),
        models={"reward_model": scorer_of(np.arange(6.0))},
        feedback={"triplets": table.assign(instruction="prompt 0", nearer=nearer)},
        log=log,
    )
    diverse = DiverseBestOfN(n=8).train(given).sample(["prompt 0"], seed=3, purpose="look")
    assert diverse.outputs == BestOfN(n=8).train(given).sample(["prompt 0"], seed=3, purpose="look").outputs
    assert metrics[0]["held_out_accuracy"] > 0.8


def test_the_whole_loop_asks_for_triplets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FARM_HOME", str(tmp_path / "home"))
    experiment = {
        "name": "kinds",
        "world": "matrix",
        "sft": None,
        "feedback": {"triplets": "matcher"},
        "responses": {"prompts": 20, "per_prompt": 4},
        "reward_model": {"use": "reward_model", "epochs": 1},
        "methods": {"diverse_best_of_n": {"n": 8}},
        "sizes": {"pairs": 40, "prompts": 20, "evaluation": 2, "samples": 3},
    }
    found = farm.run(experiment, {"reporter": None}, out=tmp_path / "run")
    outputs = pd.read_parquet(found.folder / "tables" / "outputs.parquet").query("method == 'diverse_best_of_n'")
    assert len(outputs) == 6


def test_a_language_models_responses_are_the_mean_of_their_hidden_states_whatever_the_batch() -> None:
    policy = make_policy()
    samples = policy.encode(["w1", "w2 w3 w4", "w5 w6"], ["w7 w8 w9", "", "w10"])
    found = embedded(policy, samples, 4096)
    for row in range(3):
        tokens = len(samples.prompt_tokens[row]), len(samples.response_tokens[row])
        with torch.no_grad():
            states = policy.body.hidden(samples.select(np.array([row])), np.array(tokens[:1]), np.array(tokens[1:]))
        assert found[row] == pytest.approx(states.double().mean(0).numpy(), abs=1e-5)
        assert embedded(policy, samples.select(np.array([row])), 4096)[0] == pytest.approx(found[row], abs=1e-5)
    assert np.allclose(embedded(policy, samples, 1), found, atol=1e-5)
    nothing = replace(samples, response_tokens=[tokens[:0] for tokens in samples.response_tokens])
    assert np.isfinite(embedded(policy, nothing, 4096)).all()


def test_diverse_best_of_n_on_a_language_model_is_saved_and_loaded(tmp_path: Path) -> None:
    policy = make_policy()
    texts = policy.sample(["w1"] * 12, seed=1, purpose="triplets").outputs
    table = pd.DataFrame({"instruction": "w1", "anchor": texts, "output_1": texts[1:] + texts[:1]})
    table = table.assign(output_2=texts[2:] + texts[:2], nearer=[1.0, 2.0] * 6)
    given = learning(policy, models={"reward_model": policy.scorer(2)}, feedback={"triplets": table})
    found = DiverseBestOfN(n=6).train(given)
    found.save(tmp_path)
    outputs = found.sample(["w2", "w2", "w3"], seed=4, purpose="look").outputs
    assert load(tmp_path).sample(["w2", "w2", "w3"], seed=4, purpose="look").outputs == outputs  # type: ignore[union-attr]
    assert found.copy().sample(["w3"], seed=4, purpose="look").outputs == outputs[2:]
