"""vLLM for real, on whatever device it was built for: ``make test-vllm``."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from farm.base.errors import UserError
from farm.engines import server
from farm.engines.server import Server, disconnect
from farm.policies import load
from farm.roles.protocols import Learning
from tests import real_servers
from tests.engines.conftest import largest_gap, make_policy, perturb
from tests.policies.conftest import PROMPTS
from tests.reference_methods.tables import recorder

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]
TOLERANCE = 0.05 if torch.cuda.is_available() else 1e-3
"""of log-probabilities: on CUDA vLLM's attention in 32 bits is Triton's, whose products are of TF32. Old weights are
off by far more."""


@pytest.fixture(scope="module", autouse=True)
def _vllm() -> Iterator[None]:
    pytest.importorskip("vllm")
    from farm.engines.vllm import stop

    yield
    stop()


def with_vllm(**settings: Any) -> Any:
    from farm.engines.vllm import VLLM

    # vLLM knows no rank of 4: it is given room for 8. Compiling would take most of the time on an accelerator.
    return make_policy(engine=VLLM(cache_gigabytes=0.25, lora_rank=4, eager=True), **settings)


def rows(samples: Any) -> list[list[int]]:
    return [tokens.tolist() for tokens in samples.response_tokens]


def test_it_writes_what_the_policy_would() -> None:
    own, policy = make_policy(), with_vllm()
    greedy = policy.sample(PROMPTS, seed=0, purpose="t", temperature=0)
    expected = own.sample(PROMPTS, seed=0, purpose="t", temperature=0)
    assert rows(greedy) == rows(expected) and greedy.finish_reason == expected.finish_reason
    assert not np.concatenate(greedy.log_probabilities).any()


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probabilities_ends_and_limits_are_the_policys(temperature: float) -> None:
    policy = with_vllm()
    samples = policy.sample(PROMPTS * 10, seed=0, purpose="t", temperature=temperature)
    assert largest_gap(policy, samples, temperature) < TOLERANCE
    assert set(samples.finish_reason) == {"stop", "length"}
    ends = policy.conversation.ends
    for tokens, reason in zip(samples.response_tokens, samples.finish_reason, strict=True):
        assert (int(tokens[-1]) in ends) == (reason == "stop")
        assert not set(tokens[:-1].tolist()) & ends
        assert reason == "stop" or len(tokens) == 12


def test_a_draw_follows_its_key_and_not_the_batch() -> None:
    policy = with_vllm()
    straight = policy.sample(PROMPTS * 3, seed=0, purpose="t")
    assert rows(policy.sample(PROMPTS, seed=0, purpose="t")) == rows(straight)[:6]
    assert rows(policy.sample(PROMPTS * 3, seed=1, purpose="t")) != rows(straight)


def test_frequencies_are_those_of_the_model() -> None:
    policy, n = with_vllm(), 2000
    samples = policy.sample(["w5 w6"] * n, seed=0, purpose="t", max_new_tokens=1)
    found = np.bincount([t[0] for t in samples.response_tokens], minlength=46) / n
    expected = policy.distributions(samples.select([0]))[0][0, 0].exp().detach().numpy()
    assert (n * (found - expected) ** 2 / expected).sum() < 46 + 5 * (2 * 46) ** 0.5


def test_new_weights_are_handed_over() -> None:
    policy = with_vllm()
    before = policy.sample(PROMPTS * 3, seed=0, purpose="t")
    for seed in (1, 2):
        perturb(policy, seed)
        after = policy.sample(PROMPTS * 3, seed=0, purpose="t")
        assert rows(after) != rows(before) and largest_gap(policy, after) < TOLERANCE
        before = after
    from farm.engines.vllm import _RUNNING

    (running,) = _RUNNING.values()
    assert not list(running._folder.path.rglob("*.safetensors"))  # their memory is free again
    other = with_vllm()  # shares the engine, which then takes its weights
    assert largest_gap(other, other.sample(PROMPTS, seed=0, purpose="t")) < TOLERANCE
    assert largest_gap(policy, policy.sample(PROMPTS, seed=0, purpose="t")) < TOLERANCE


@pytest.mark.skipif(not torch.cuda.is_available(), reason="vLLM's weight transfer is for CUDA")
def test_its_own_transfer_brings_new_weights() -> None:
    from farm.engines.vllm import VLLM

    engine = VLLM(cache_gigabytes=0.25, hand_over="ipc", eager=True)
    policy = make_policy("cuda", engine=engine, compute_dtype="float32")
    before = policy.sample(PROMPTS * 3, seed=0, purpose="t")
    assert largest_gap(policy, before) < TOLERANCE
    perturb(policy)
    after = policy.sample(PROMPTS * 3, seed=0, purpose="t")
    assert rows(after) != rows(before) and largest_gap(policy, after) < TOLERANCE


def test_adapters_are_handed_over_alone_and_merged() -> None:
    from farm.engines.vllm import VLLM

    base = with_vllm()
    for rank in (4, 0):
        policy = base.with_settings(
            lora={"rank": 4, "alpha": 8.0, "seed": 0}, engine=VLLM(cache_gigabytes=0.25, lora_rank=rank, eager=True)
        )
        before = policy.sample(PROMPTS * 3, seed=0, purpose="t")
        assert largest_gap(policy, before) < TOLERANCE
        for seed in (1, 2):
            perturb(policy, seed)
            after = policy.sample(PROMPTS * 3, seed=0, purpose="t")
            assert rows(after) != rows(before) and largest_gap(policy, after) < TOLERANCE
        reference = base.sample(PROMPTS * 3, seed=0, purpose="t")  # the base without adapters
        assert largest_gap(base, reference) < TOLERANCE


def test_forbidden_tokens_are_never_written() -> None:
    policy = with_vllm(forbidden_tokens=list(range(10, 30)))
    samples = policy.sample(PROMPTS * 4, seed=0, purpose="t")
    assert not set(np.concatenate(samples.response_tokens).tolist()) & set(range(10, 30))
    assert largest_gap(policy, samples) < TOLERANCE


@pytest.mark.parametrize("name", ["rloo", "ppo"])
@pytest.mark.parametrize("tune", ["full", "lora"])
def test_online_steps_sampled_by_vllm(name: str, tune: Any) -> None:
    from reference_methods.online.ppo import PPO
    from reference_methods.online.rloo import RLOO

    policy = with_vllm()
    lines, log = recorder()
    given = Learning(
        seed=3,
        policy=policy,
        prompts=pd.DataFrame({"instruction": PROMPTS}),
        models={"reward_model": make_policy().scorer(0)},
        log=log,
    )
    method = {"rloo": RLOO, "ppo": PPO}[name]
    settings = {"steps": 3, "rollouts": 24, "learning_rate": 1e-2, "missing_eos_reward": None, "lora_rank": 4}
    learned = method(tune=tune, **settings).train(given)
    assert len(lines) == 3 and all(np.isfinite(list(line.values())).all() for line in lines)
    assert all(line["sampler_gap"] < TOLERANCE and line["sampler_error"] < 1 + 10 * TOLERANCE for line in lines)
    assert largest_gap(learned, learned.sample(PROMPTS, seed=5, purpose="after")) < TOLERANCE
    assert abs(lines[0]["kl"]) < 1e-3 and any(abs(line["kl"]) > 1e-3 for line in lines[1:])


@contextlib.contextmanager
def real_server(folder: Path, *flags: str, **environment: str) -> Iterator[str]:
    """vLLM's server with the small model in a process of its own; its url."""
    make_policy().save(folder / "tiny")
    from farm.engines.weights import write_model

    write_model(make_policy().model, folder / "served", merge=True)
    # What the model recommends for its use is not what a policy is sampled with.
    recommended = {"repetition_penalty": 1.5, "top_k": 3, "temperature": 0.3, "min_p": 0.2}
    (folder / "served" / "generation_config.json").write_text(json.dumps(recommended))
    sampled = ["--logprobs-mode", "processed_logprobs", *flags]
    log = folder / "server.log"
    with real_servers.vllm(folder / "served", folder / "tiny", "tiny", log, *sampled, **environment) as url:
        try:
            yield url
        finally:
            disconnect()


def test_a_real_server(tmp_path: Path) -> None:
    """Greedy agreement, log-probabilities, hand-over through the folder."""
    with real_server(tmp_path, VLLM_SERVER_DEV_MODE="1") as url:
        served = make_policy().with_settings(engine=Server(url, folder=str(tmp_path / "weights")))
        greedy = served.sample(PROMPTS, seed=0, purpose="t", temperature=0)
        assert rows(greedy) == rows(make_policy().sample(PROMPTS, seed=0, purpose="t", temperature=0))
        samples = served.sample(PROMPTS * 4, seed=0, purpose="t", temperature=0.8)
        assert largest_gap(served, samples, 0.8) < TOLERANCE
        perturb(served)
        after = served.sample(PROMPTS * 4, seed=0, purpose="t", temperature=0.8)
        assert rows(after) != rows(samples) and largest_gap(served, after, 0.8) < TOLERANCE


def test_adapters_reach_a_real_server(tmp_path: Path) -> None:
    """Adapters that train travel alone, update after update, and the SFT policy is the model without them. A saved
    policy, with its adapters merged, is sampled too, and a second run does not mind what the first left."""
    from reference_methods.online.rloo import RLOO

    flags = ["--enable-lora", "--max-lora-rank", "8"]
    allowed = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1", "VLLM_SERVER_DEV_MODE": "1"}
    with real_server(tmp_path, *flags, **allowed) as url:
        engine = Server(url, hand_over="adapter", folder=str(tmp_path / "weights"))
        policy = make_policy().with_settings(engine=engine)
        plain = policy.sample(PROMPTS * 4, seed=0, purpose="t")
        lines, log = recorder()
        prompts, scorer = pd.DataFrame({"instruction": PROMPTS}), make_policy().scorer(0)
        given = Learning(seed=3, policy=policy, prompts=prompts, models={"reward_model": scorer}, log=log)
        settings = {"steps": 3, "rollouts": 24, "learning_rate": 1e-2, "missing_eos_reward": None}
        learned = RLOO(tune="lora", lora_rank=4, **settings).train(given)
        assert all(line["sampler_gap"] < TOLERANCE and line["sampler_error"] < 1 + 10 * TOLERANCE for line in lines)
        assert abs(lines[0]["kl"]) < 1e-3 and any(abs(line["kl"]) > 1e-3 for line in lines[1:])
        after = learned.sample(PROMPTS * 4, seed=0, purpose="t")
        assert rows(after) != rows(plain) and largest_gap(learned, after) < TOLERANCE
        assert rows(policy.sample(PROMPTS * 4, seed=0, purpose="t")) == rows(plain)
        learned.save(tmp_path / "saved")
        server._CONNECTIONS.clear()  # as if the program had been killed
        for one in (load(tmp_path / "saved"), learned, policy):
            assert largest_gap(one, one.sample(PROMPTS, seed=1, purpose="t")) < TOLERANCE  # type: ignore[arg-type]


def test_a_server_with_a_shorter_window_is_found_out(tmp_path: Path) -> None:
    flags = ["--max-model-len", "16"]
    with real_server(tmp_path, *flags, VLLM_SERVER_DEV_MODE="1") as url:
        policy = make_policy(max_new_tokens=15).with_settings(engine=Server(url, folder=str(tmp_path / "weights")))
        with pytest.raises(UserError, match="cut responses"):
            policy.sample(PROMPTS * 4, seed=0, purpose="t")


def test_settings_that_cannot_work_are_named() -> None:
    from farm.engines.vllm import VLLM

    policy = make_policy(engine=VLLM(cache_gigabytes=0.25, lora_rank=4, context=8))
    with pytest.raises(UserError, match="`context` is 8 tokens"):
        policy.sample(PROMPTS, seed=0, purpose="t")
