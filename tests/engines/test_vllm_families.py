"""Three families through vLLM for real: ``make test-vllm``. Each starts one, which all its tests share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from farm.engines.transformers import Transformers
from farm.roles.protocols import Learning
from tests.engines.conftest import largest_gap
from tests.engines.test_vllm import TOLERANCE, rows
from tests.hardware.families import FAMILIES, INSTRUCTIONS, METHODS, learning_of, world_of

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]


@pytest.fixture(scope="module", params=FAMILIES)
def given(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Learning]:
    """Wide enough for vLLM, which knows no heads of 8 numbers, and far from uniform."""
    pytest.importorskip("vllm")
    from farm.engines.vllm import VLLM, stop

    settings = {"engine": VLLM(cache_gigabytes=0.25, eager=True), "compute_dtype": "float32"}
    yield learning_of(world_of(request.param, tmp_path_factory.mktemp(request.param), 128, 8.0, **settings))
    stop()


def test_a_family_is_sampled_at_the_trainers_likelihoods(given: Learning) -> None:
    policy: Any = given.policy
    own = policy.with_settings(engine=Transformers())
    greedy, expected = (p.sample(INSTRUCTIONS, seed=0, purpose="t", temperature=0) for p in (policy, own))
    assert rows(greedy) == rows(expected) and greedy.finish_reason == expected.finish_reason
    for temperature in (1.0, 0.7):
        samples = policy.sample(INSTRUCTIONS * 4, seed=0, purpose="t", temperature=temperature)
        assert largest_gap(policy, samples, temperature) < TOLERANCE


def test_a_family_writes_to_the_end_of_its_context(given: Learning) -> None:
    """Where GPT-2's table of positions ends, and Llama's are scaled."""
    policy: Any = given.policy
    (asked,) = [text for k in range(128) if len(policy.conversation.prompts([text := "a" * k])[0]) == 124]
    samples = policy.sample([asked] * 8, seed=0, purpose="t")
    assert largest_gap(policy, samples) < TOLERANCE
    for row, reason in zip(samples.response_tokens, samples.finish_reason, strict=True):
        assert reason == "stop" or len(row) == 128 - 124
    assert "length" in samples.finish_reason


@pytest.mark.parametrize("tune", ["full", "lora"])
@pytest.mark.parametrize("name", METHODS)
def test_a_family_takes_a_step_of_each_method_and_hands_it_over(name: str, tune: Any, given: Learning) -> None:
    lines: list[dict[str, float]] = []
    method = replace(METHODS[name], tune=tune, lora_rank=2, learning_rate=1e-2)
    learned: Any = method.train(replace(given, log=lines.append))
    assert len(lines) == 1 and all(np.isfinite(list(lines[0].values())))
    assert lines[0].get("sampler_gap", 0.0) < TOLERANCE and lines[0].get("sampler_error", 1.0) < 1 + 10 * TOLERANCE
    samples = learned.sample(INSTRUCTIONS * 4, seed=5, purpose="after")
    assert largest_gap(learned, samples) < TOLERANCE
    with torch.no_grad():
        before, after = (policy.log_probabilities(samples)[0] for policy in (given.policy, learned))
    assert float((before - after).abs().max()) > 2 * TOLERANCE  # old weights would be found out
