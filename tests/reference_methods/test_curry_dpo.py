"""Curry-DPO: its stages, and what a reference that moves makes of them."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from farm.base.errors import UserError
from farm.policies.tabular import TabularPolicy
from farm.roles.protocols import Learning
from reference_methods.pairs.curry_dpo import CurryDPO, ranked
from reference_methods.parts.preferences import Preferences
from reference_methods.studies.curriculum import Curriculum
from tests.reference_methods.tables import (
    REFERENCE,
    all_pairs,
    bradley_terry,
    distance,
    learned,
    learning,
    policy_of,
    recorder,
    tilt,
)

EXACT: dict[str, Any] = {"epochs": 120, "batch_size": 6, "learning_rate": 0.1, "warm_up": 0.0}
UTILITIES = np.array([0.3, -0.2, 0.1])
RATED = pd.DataFrame(
    {
        "instruction": ["prompt 0"] * 4 + ["prompt 1"] * 4,
        "output": [f"response {k}" for k in (0, 1, 2, 3, 3, 1, 0, 2)],
        "score": [4.0, 2.0, 7.0, 1.0, 5.0, 5.0, 3.0, 1.0],
    }
)


def rated(log: Callable[[dict[str, float]], None] = lambda metrics: None, **more: Any) -> Learning:
    start = policy_of(np.full((2, 4), 0.25), prompts=2)
    return replace(learning(start, prompts=2, feedback={"ratings": RATED}, **more), log=log)


def test_a_moved_reference_is_a_third_of_the_anchor_after_three_stages() -> None:
    """[num] pi_ref exp(S u / beta) / Z with a moved reference, pi_ref exp(u / beta) / Z with a fixed one."""
    beta, start = 0.5, policy_of(REFERENCE)
    given = learning(start, feedback={"pairs": all_pairs(bradley_terry(UTILITIES))})
    pairs = Preferences.read(given)
    for reference, stages, tilts in (("last_stage", 3, 3), ("sft", 2, 1)):
        method = CurryDPO(beta=beta, reference=reference, **EXACT)  # type: ignore[arg-type]
        policy = start.copy()
        for number in range(stages):
            anchor = policy.copy() if number and reference == "last_stage" else start
            method.stage(policy, pairs, anchor, given, number)
        assert distance(learned(policy), tilt(REFERENCE, UTILITIES * tilts, beta)) < 0.01


def test_the_best_is_paired_with_the_worst_first() -> None:
    best, other, place = ranked(RATED, seed=1)
    said = {(int(b), int(o)): int(p) for b, o, p in zip(best, other, place, strict=True)}
    assert said[2, 0] == 1 and said[2, 1] == 2 and said[2, 3] == 3
    of_the_other = {o: p for (b, o), p in said.items() if b in (4, 5)}
    assert of_the_other == {6: 2, 7: 3}  # the two best have one rating: no pair
    gaps = []
    for pairs in CurryDPO().stages(rated()):
        scores = [dict(zip(RATED["output"][:4], RATED["score"][:4]))[o] for o in pairs.second.outputs[:1]]
        gaps.append(7.0 - scores[0])
        assert (pairs.p_first == 1).all()
    assert gaps == sorted(gaps, reverse=True) and len(gaps) == 3


@pytest.mark.parametrize("order", ["easy_first", "hard_first", "shuffled", "same"])
def test_every_order_has_the_same_number_of_pairs(order: Any) -> None:
    stages = CurryDPO(order=order).stages(rated())
    sizes = [len(pairs) for pairs in stages]
    assert sizes == {"easy_first": [2, 2, 1], "hard_first": [1, 2, 2], "shuffled": [2, 2, 1], "same": [2, 2, 2]}[order]
    if order == "shuffled":
        assert sorted(i for p in stages for i in p.ids) == sorted(i for p in CurryDPO().stages(rated()) for i in p.ids)


def test_rows_in_another_order_are_the_same_stages() -> None:
    mixed = replace(rated(), feedback={"ratings": RATED.sample(frac=1, random_state=0).reset_index(drop=True)})
    for one, other in zip(CurryDPO().stages(rated()), CurryDPO().stages(mixed), strict=True):
        assert sorted(one.ids) == sorted(other.ids)


def test_it_logs_each_stage_and_learns_the_order_of_the_ratings() -> None:
    log, record = recorder()
    gold = lambda samples: np.array([float(o[-1]) for o in samples.outputs])  # noqa: E731
    policy = CurryDPO(epochs=20, batch_size=2, learning_rate=0.1, measured=400).train(rated(record, gold=gold))
    assert isinstance(policy, TabularPolicy)
    measured = [line for line in log if "kl" in line]
    assert len(measured) == 4 and measured[0]["kl"] == 0
    assert [line["step"] for line in log] == list(range(len(log)))
    assert all(later["kl"] > before["kl"] for before, later in pairwise(measured))
    assert learned(policy, 0)[2] > 0.9 and learned(policy, 1)[[1, 3]].sum() > 0.9


def test_a_training_that_was_killed_goes_on_to_the_same_policy(tmp_path: Path) -> None:
    method = CurryDPO(epochs=3, batch_size=1, learning_rate=0.1, checkpoint_minutes=0)
    whole = method.train(rated())

    def dying(metrics: dict[str, float]) -> None:
        if metrics["step"] == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        method.train(rated(dying, checkpoints=tmp_path))
    again = method.train(rated(checkpoints=tmp_path))
    assert torch.equal(*(p.logits for p in (whole, again)))  # type: ignore[attr-defined]


def test_without_different_ratings_there_is_nothing_to_learn() -> None:
    with pytest.raises(UserError, match="no two responses"):
        CurryDPO().stages(replace(rated(), feedback={"ratings": RATED.assign(score=1.0)}))
    with pytest.raises(UserError, match="no ratings"):
        CurryDPO().stages(replace(rated(), feedback={}))


def test_every_arm_of_the_study_begins_at_the_uniform_policy_and_takes_as_many_steps() -> None:
    tables = Curriculum(responses=6, lists=40, epochs=1, batch_size=20).tables(1)
    path = tables["path"]
    starts = path[path["step"] == 0]
    assert (starts["kl"].abs() < 1e-12).all() and starts["gold"].nunique() == 1
    assert path.groupby("method")["step"].max().drop(["one_pair", "one_pair_moved"]).nunique() == 1
    assert (tables["policies"]["gold"] > starts["gold"].iloc[0]).all()


def test_of_lists_of_two_all_arms_of_the_study_but_the_weaker_anchor_are_one() -> None:
    """One pair a list is one stage, which has no order and whose reference does not move."""
    ends = Curriculum(responses=6, size=2, lists=40, epochs=1, batch_size=20).tables(1)["policies"]
    gold = ends.set_index("method")["gold"]
    assert gold.drop("multi_pair_weak").nunique() == 1 and gold["multi_pair_weak"] != gold["curry"]
