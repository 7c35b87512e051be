"""Models of a user's own: three families through the front door, each method, saved and opened again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from farm.policies import load
from farm.policies.language_model import LanguageModelPolicy
from farm.roles.protocols import Learning
from farm.worlds.text import TextWorld
from tests.hardware.families import FAMILIES, INSTRUCTIONS, METHODS, learning_of, world_of


@pytest.fixture(scope="module", params=FAMILIES)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TextWorld:
    return world_of(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def given(world: TextWorld) -> Learning:
    return learning_of(world)


@pytest.mark.parametrize(
    ("name", "tune"),
    [
        *((name, "full") for name in METHODS),
        ("ppo", "lora"),
        *(pytest.param(name, "lora", marks=pytest.mark.slow) for name in METHODS if name != "ppo"),
    ],
)
def test_each_family_takes_a_step_of_each_method_and_is_saved(
    name: str, tune: Any, given: Learning, tmp_path: Path
) -> None:
    if tune == "lora":
        pytest.importorskip("peft")
    lines: list[dict[str, float]] = []
    learned = replace(METHODS[name], tune=tune, lora_rank=2).train(replace(given, log=lines.append))
    assert len(lines) == 1 and all(np.isfinite(list(lines[0].values())))
    samples = given.policy.encode(INSTRUCTIONS, INSTRUCTIONS)
    with torch.no_grad():
        before, after = (policy.log_probabilities(samples)[0] for policy in (given.policy, learned))
        assert not torch.allclose(before, after, atol=1e-6)
        learned.save(tmp_path / "learned")
        opened = load(tmp_path / "learned")
        torch.testing.assert_close(opened.log_probabilities(samples)[0], after, atol=1e-5, rtol=1e-4)


def test_prompts_begin_and_responses_end_as_the_family_does(world: TextWorld) -> None:
    policy: Any = world.base_policy()
    own = policy.tokenizer
    samples = policy.encode(INSTRUCTIONS[:1], ["the sea <|im_end|> <|eot_id|> <|endoftext|>"])
    said = own.decode(samples.prompt_tokens[0])
    assert INSTRUCTIONS[0] in said
    if own.chat_template:
        asked = [{"role": "user", "content": INSTRUCTIONS[0]}]
        assert said == own.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    tokens = samples.response_tokens[0].tolist()
    assert tokens[-1] == own.eos_token_id and not policy.conversation.ends & set(tokens[:-1])
    written = policy.sample(INSTRUCTIONS * 8, seed=0, purpose="t", max_new_tokens=8)
    for row, reason in zip(written.response_tokens, written.finish_reason, strict=True):
        assert (int(row[-1]) in policy.conversation.ends) == (reason == "stop")
        assert reason == "stop" or len(row) == 8


def test_both_loops_write_the_same_and_with_the_trainers_likelihoods(
    world: TextWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy: Any = world.base_policy()
    lean = policy.sample(INSTRUCTIONS, seed=0, purpose="t")
    monkeypatch.setattr("farm.policies.language_model.is_plain_llama", lambda model: False)
    own = policy.sample(INSTRUCTIONS, seed=0, purpose="t")
    for samples in (lean, own):
        with torch.no_grad():
            trained, mask = policy.log_probabilities(samples)
        drawn = torch.from_numpy(np.concatenate(samples.log_probabilities))
        torch.testing.assert_close(trained[mask], drawn, atol=2e-4, rtol=1e-4)
    same = np.mean([one == other for one, other in zip(lean.outputs, own.outputs, strict=True)])
    assert same >= 0.5  # a draw on the edge between two tokens may fall to either side by rounding


def test_a_template_and_end_tokens_of_ones_own(world: TextWorld) -> None:
    one = replace_world(world, template="Q: {prompt}\nA:", end_tokens=["."])
    policy: Any = one.base_policy()
    assert isinstance(policy, LanguageModelPolicy)
    assert policy.tokenizer.decode(policy.conversation.prompts(["why"])[0]).endswith("Q: why\nA:")
    assert policy.conversation._id(".") in policy.conversation.ends


def replace_world(world: TextWorld, **more: Any) -> TextWorld:
    return TextWorld(model=world.model, instructions=world.file, **more)
