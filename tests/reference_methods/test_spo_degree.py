"""SPO-degree: what is left out of a response, and what the policy learns beside the pairs."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from farm.base.errors import UserError
from farm.roles.protocols import Learning, Policy
from reference_methods.imitation.sft import SFT
from reference_methods.pairs.dpo import DPO
from reference_methods.pairs.ipo import IPO
from reference_methods.pairs.simpo import SimPO
from reference_methods.pairs.spo_degree import SPODegree
from reference_methods.parts.batches import log_likelihoods
from reference_methods.parts.degrees import Degrees
from tests.policies.conftest import PROMPTS, make_policy
from tests.reference_methods.tables import REFERENCE, all_pairs, bradley_terry, learning, policy_of, recorder

RESPONSES = [np.array(t, np.int32) for t in ([5, 6, 7, 8, 1], [5, 6, 9, 1], [5, 9, 1], [5, 1])]
END = frozenset({1})


def test_the_rarest_tokens_go_first_and_the_end_stays() -> None:
    """[num] of 4 responses 5 is in all, 6 and 9 in two, 7 and 8 in one."""
    degrees = Degrees.of(RESPONSES, 10, END, levels=4, most=1.0, at_random=False)
    assert degrees.rarity[[5, 6, 7]] == pytest.approx([0.0, math.log(2), math.log(4)])
    draws = np.array([0.3, 0.1, 0.9, 0.5, 0.2])
    left = [degrees.left_out(RESPONSES[0], d, draws).tolist() for d in range(5)]
    assert left == [[5, 6, 7, 8, 1], [5, 6, 7, 1], [5, 6, 1], [5, 1], [1]]
    random = replace(degrees, at_random=True)
    assert random.left_out(RESPONSES[0], 2, draws).tolist() == [7, 8, 1]
    assert Degrees.of(RESPONSES, 10, END, 4, 0.5, False).left_out(RESPONSES[0], 4, draws).tolist() == [5, 6, 1]


@pytest.fixture(scope="module")
def given() -> Learning:
    start = make_policy()
    sides = [start.sample(PROMPTS * 4, seed=s, purpose="pairs").frame("sft") for s in (1, 2)]
    table = sides[0][["instruction", "prompt_tokens"]]
    for k, side in enumerate(sides, start=1):
        columns = side.drop(columns=["instruction", "prompt_tokens"]).add_suffix(f"_{k}")
        table = pd.concat([table, columns], axis=1)
    table["preference"] = np.where(table["output_1"].str.len() > table["output_2"].str.len(), 1.0, 2.0)
    return Learning(seed=1, policy=start, prompts=table[["instruction"]], feedback={"pairs": table})


def numbers(policy: Policy, given: Learning) -> torch.Tensor:
    with torch.no_grad():
        return log_likelihoods(policy, given.policy.encode(PROMPTS, ["w3 w4 w5"] * len(PROMPTS)))


PAIRS: dict[str, Any] = {"batch_size": 8, "learning_rate": 1e-3}


@pytest.mark.parametrize("method", [DPO(**PAIRS), IPO(**PAIRS), SimPO(**PAIRS)], ids=lambda m: type(m).__name__)
def test_without_degrees_it_is_the_other_method_to_the_bit(method: Any, given: Learning) -> None:
    plain = numbers(method.train(given), given)
    assert torch.equal(plain, numbers(SPODegree(method=method, gamma=0.0).train(given), given))
    assert not torch.equal(plain, numbers(SPODegree(method=method, gamma=1.0).train(given), given))


def test_it_learns_to_tell_degrees_and_repeats_whatever_the_micro_batches(given: Learning) -> None:
    log, record = recorder()
    method = DPO(batch_size=16, learning_rate=5e-3, epochs=15, micro_batch_tokens=100_000)
    whole_or_nothing: dict[str, Any] = {"gamma": 1.0, "levels": 1, "most": 1.0}
    spo = SPODegree(method=method, head_learning_rate=5e-3, **whole_or_nothing)
    spo.train(replace(given, log=record))
    assert log[0]["degree_loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert log[-1]["degree_accuracy"] > 0.85
    short = replace(method, epochs=2)
    found = [
        numbers(SPODegree(method=replace(short, micro_batch_tokens=size)).train(given), given) for size in (100_000, 60)
    ]
    assert torch.allclose(*found, atol=0.05)


def test_the_head_learns_at_a_rate_of_its_own_however_slowly_the_policy_learns(given: Learning) -> None:
    log, record = recorder()
    method = DPO(batch_size=16, learning_rate=1e-7, epochs=4, micro_batch_tokens=100_000)
    SPODegree(method=method, gamma=1.0, levels=1, most=1.0, head_learning_rate=0.1).train(replace(given, log=record))
    assert log[-1]["degree_loss"] < 0.9 * math.log(2)


def test_copies_are_keyed_by_the_response(given: Learning) -> None:
    samples = given.policy.sample(PROMPTS, seed=4, purpose="copies")
    degrees = Degrees.of(samples.response_tokens, 64, END, 4, 0.5, False)
    ids = np.arange(len(samples), dtype=np.uint64)
    whole, of = degrees.copies(samples, ids, 1, "x")
    last, alone = degrees.copies(samples.select([len(samples) - 1]), ids[-1:], 1, "x")
    assert alone[0] == of[-1] and last.response_tokens[0].tolist() == whole.response_tokens[-1].tolist()
    assert set(degrees.copies(samples.select([0] * 400), np.arange(400, dtype=np.uint64), 1, "x")[1]) == set(range(5))


def test_what_it_cannot_learn_from_is_refused(given: Learning) -> None:
    with pytest.raises(UserError, match="SFT does not"):
        SPODegree(method=SFT()).train(given)
    table = all_pairs(bradley_terry(np.array([0.0, 1.0, 2.0])))
    with pytest.raises(UserError, match="states of language models"):
        SPODegree().train(learning(policy_of(REFERENCE), feedback={"pairs": table}))
