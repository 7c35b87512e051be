"""Tokens and ends of responses, and the drift between sampler and trainer: details that decide whether learning works.

Tested elsewhere: one template and one beginning of sequence (test_language_model); both sides of padding
(test_sampling, test_scorer); no dropout (test_language_model, test_sampling); weights that are handed over to an
engine (tests/engines).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from farm.base.errors import UserError
from farm.hardware import memory
from farm.policies.language_model import LanguageModelPolicy
from farm.roles.protocols import Samples
from reference_methods.imitation.sft import SFT
from reference_methods.online.rloo import RLOO
from reference_methods.pairs.dpo import DPO
from reference_methods.parts.conditioning import ConditionedPolicy
from reference_methods.parts.preferences import Preferences
from reference_methods.parts.sampler import alarm_of, compare, correction, samples_elsewhere
from tests.policies.conftest import PROMPTS, make_policy, small_model, word_tokenizer
from tests.reference_methods.tables import recorder, rollout_of
from tests.training.conftest import everything, numbers

ONLINE: dict[str, Any] = {"steps": 1, "rollouts": 12, "minibatches": 2, "missing_eos_reward": None}


@pytest.mark.parametrize("pad", ["<eos>", None])
def test_what_pads_is_never_asked_for(pad: str | None) -> None:
    """Padding that is the end of sequence, or none at all, gives what a pad token of its own gives."""
    tokenizer = word_tokenizer()
    tokenizer.pad_token = pad
    ours = LanguageModelPolicy(small_model(), tokenizer, template="{prompt}", max_new_tokens=12)
    usual = make_policy()
    a, b = (p.sample(PROMPTS * 4, seed=0, purpose="t") for p in (ours, usual))
    assert [t.tolist() for t in a.response_tokens] == [t.tolist() for t in b.response_tokens]
    assert torch.equal(ours.log_probabilities(a)[0], usual.log_probabilities(b)[0])
    assert torch.equal(ours.scorer(0).scores(a), usual.scorer(0).scores(b))
    learned = [SFT(epochs=1, batch_size=8, learning_rate=1e-2).train(everything(p)) for p in (ours, usual)]
    assert torch.equal(*(numbers(p) for p in learned))


def test_what_was_sampled_is_trained_on_though_its_text_reads_otherwise() -> None:
    given = everything()
    assert given.preferences is not None
    table = given.preferences.copy()
    strange = np.array([4, 7, 5, 8, 2], np.int32)  # special tokens inside, which the text does not show
    table.at[0, "response_tokens_1"], table.at[0, "output_1"] = strange, "w1 w2"
    table.at[0, "log_probabilities_1"] = np.zeros(5, np.float32)
    pairs = Preferences.read(replace(given, feedback={"pairs": table}))
    assert pairs.first.response_tokens[0].tolist() == strange.tolist()


def test_the_end_is_learned_with_the_rest() -> None:
    given = everything()
    assert given.demonstrations is not None
    demonstrations = given.demonstrations.assign(instruction="w1", output="w2")
    learned = SFT(epochs=6, batch_size=8, learning_rate=3e-2).train(replace(given, demonstrations=demonstrations))
    samples = learned.encode(["w1"], ["w2"])
    before, after = (p.log_probabilities(samples)[0][0, -1].detach().exp() for p in (given.policy, learned))
    assert samples.response_tokens[0].tolist()[-1] == 2 and float(after) > 0.9 > float(before)


def test_an_end_in_the_prompt_ends_no_response() -> None:
    chat = "{% for m in messages %}{{ m.content }} <eos> {% endfor %}{% if add_generation_prompt %}<bot> {% endif %}"
    tokenizer = word_tokenizer()
    tokenizer.chat_template = chat
    policy = LanguageModelPolicy(small_model(), tokenizer, max_new_tokens=2)
    samples = policy.sample(PROMPTS * 4, seed=0, purpose="t")
    assert all(2 in prompt for prompt in samples.prompt_tokens)
    ended = [2 in tokens for tokens in samples.response_tokens]
    assert [reason == "stop" for reason in samples.finish_reason] == ended and not all(ended)


def test_the_share_of_cut_responses_is_always_logged() -> None:
    lines, log = recorder()
    RLOO(**ONLINE).train(everything(make_policy(max_new_tokens=2), log=log))
    assert 0 < lines[0]["truncated_share"] <= 1


def test_the_comparison_by_hand() -> None:
    trained, sampled = torch.tensor([[-1.0, -2.0], [-3.0, 9.0]]), torch.tensor([[-1.1, -2.0], [-2.7, 0.0]])
    mask = torch.tensor([[True, True], [True, False]])
    with pytest.warns(UserWarning, match="sampler_error"):
        found = compare(trained, sampled, mask)
    d = np.array([0.1, 0.0, -0.3])
    assert found["sampler_gap"] == pytest.approx(np.abs(d).mean(), rel=1e-5)
    assert found["sampler_gap_max"] == pytest.approx(np.exp(0.3), rel=1e-5)
    assert found["sampler_error"] == pytest.approx(np.exp(np.abs(d)).mean(), rel=1e-5)
    assert found["sampler_kl"] == pytest.approx((np.expm1(d) - d).mean(), rel=1e-3)
    assert compare(trained, trained, mask)["sampler_error"] == 1


def test_the_alarm_of_a_difference_knows_the_precision(recwarn: pytest.WarningsRecorder) -> None:
    policy = make_policy()
    limits = [alarm_of(policy), alarm_of(policy.with_settings(compute_dtype="bfloat16"))]
    assert limits == [1.05, 1.2] and alarm_of(ConditionedPolicy(policy, "")) == 1.05
    trained, mask = torch.tensor([[-1.0, -2.0]]), torch.tensor([[True, True]])
    compare(trained, trained + 0.06, mask, limits[1])
    assert not recwarn.list
    for limit, gap in zip(limits, (0.06, 0.2), strict=True):
        with pytest.warns(UserWarning, match=f"alarm above {limit}"):
            compare(trained, trained + gap, mask, limit)


def test_the_correction_is_unbiased_until_the_cap_cuts() -> None:
    """Over all tokens of a small vocabulary: E_engine[min(w, cap) f] is E_trainer[f] with no cap, and less with one."""
    engine = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
    trainer = torch.tensor([0.2, 0.3, 0.2, 0.3], dtype=torch.float64)
    mask, f = torch.ones(1, 4, dtype=torch.bool), torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    loose, none_cut = correction(trainer.log()[None], engine.log()[None], mask, 100.0)
    assert loose is not None and none_cut == 0
    assert float((engine * loose[0] * f).sum()) == pytest.approx(float((trainer * f).sum()))
    tight, cut = correction(trainer.log()[None], engine.log()[None], mask, 2.0)
    assert tight is not None and cut == 0.25
    assert tight[0].tolist() == pytest.approx([0.4, 1.0, 4 / 3, 2.0])
    assert correction(trainer.log()[None], engine.log()[None], mask, None) == (None, 0.0)


class Elsewhere:
    """An engine that draws from a somewhat different distribution than it was given: a lower precision, in earnest."""

    own = False

    def __init__(self, noise: float) -> None:
        self.noise, self.draw = noise, np.random.default_rng(0)

    def write(self, writer: Any, request: Any) -> Any:
        from farm.engines.transformers import Transformers

        written = Transformers().write(writer, request)
        shifted = [x + self.draw.normal(0, self.noise, len(x)).astype(np.float32) for x in written.log_probabilities]
        return replace(written, log_probabilities=shifted)


def test_the_loop_takes_the_trainers_log_probabilities_and_weights_the_tokens() -> None:
    policy = make_policy()
    policy.engine = Elsewhere(0.02)
    assert samples_elsewhere(policy) and not samples_elsewhere(make_policy())
    assert samples_elsewhere(ConditionedPolicy(policy, "")) and not samples_elsewhere(
        ConditionedPolicy(make_policy(), "")
    )
    given = replace(everything(make_policy()), policy=policy)
    method = RLOO(**ONLINE)
    rollout = rollout_of(method, given, policy)
    trained = policy.log_probabilities(rollout.samples)[0].detach()
    torch.testing.assert_close(rollout.log_probabilities, trained)
    ratio = (trained[rollout.mask] - torch.from_numpy(np.concatenate(rollout.samples.log_probabilities))).exp()
    assert rollout.weights is not None
    torch.testing.assert_close(rollout.weights[rollout.mask], ratio.clamp(max=2.0))
    assert rollout.comparison["sampler_gap"] == pytest.approx(0.016, abs=0.004)
    policy.engine = Elsewhere(0.5)
    with pytest.warns(UserWarning), pytest.raises(RuntimeError, match="nats a token apart"):
        rollout_of(method, given, policy)


def test_in_16_bits_the_ratio_is_one_though_the_sampler_rounds_otherwise() -> None:
    """A sequence's ratio adds the rounding of all its tokens up: SmolLM2 was clipped in 29 % of its first answers."""
    policy = make_policy(compute_dtype="bfloat16")
    given = replace(everything(make_policy()), policy=policy)
    rollout = rollout_of(RLOO(**ONLINE), given, policy)
    with torch.no_grad():
        trained = policy.log_probabilities(rollout.samples)[0]
    torch.testing.assert_close(rollout.log_probabilities, trained, atol=1e-2, rtol=1e-2)
    assert rollout.weights is not None and rollout.comparison["sampler_gap"] > 1e-3  # they do round otherwise
    lines: list[dict[str, float]] = []
    RLOO(**{**ONLINE, "minibatches": 1}).train(replace(given, log=lines.append))
    assert lines[0]["update_kl"] < 1e-4 and lines[0]["kl"] == pytest.approx(0, abs=1e-2)


def test_a_cut_distribution_is_noticed_before_the_first_update() -> None:
    given = everything(make_policy(top_k=3))
    with pytest.warns(UserWarning, match="sampler_error"), pytest.raises(RuntimeError, match="before the first update"):
        RLOO(**ONLINE).train(given)


def test_responses_without_a_single_token_have_a_defined_place() -> None:
    """An engine may return nothing at all: no loss, no gradient, a finite score."""
    policy = make_policy()
    samples = policy.sample(PROMPTS, seed=0, purpose="t")
    none = np.zeros(0, np.int32)
    empty = Samples(
        samples.prompts,
        ["", *samples.outputs[1:]],
        samples.prompt_tokens,
        [none, *samples.response_tokens[1:]],
        [np.zeros(0, np.float32), *samples.log_probabilities[1:]],
        ["length", *samples.finish_reason[1:]],
    )
    chosen, mask = policy.log_probabilities(empty)
    assert not mask[0].any() and not chosen[0].any()
    chosen.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in policy.parameters() if p.grad is not None)
    assert torch.isfinite(policy.scorer(0).scores(empty)).all()
    alone = empty.select([0])
    assert policy.log_probabilities(alone)[0].shape == (1, 0)


def test_a_prompt_longer_than_the_window_is_named_before_anything_is_trained() -> None:
    from farm.hardware.models import tiny_llama

    policy = LanguageModelPolicy(tiny_llama(46, 16, 2, 2, 32, 10, 0), word_tokenizer(), template="{prompt}")
    table = everything().prompts.assign(instruction="w1 " * 12)
    with pytest.raises(UserError, match=r"12 tokens|13 tokens"):
        RLOO(**ONLINE).train(replace(everything(), policy=policy, prompts=table))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried"),
        MemoryError(),
    ],
    ids=["accelerator", "processor", "python"],
)
def test_out_of_memory_is_one_sentence(error: Exception, monkeypatch: Any) -> None:
    given = everything()

    def fails(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(LanguageModelPolicy, "log_probabilities", fails)
    with pytest.raises(UserError, match=r"out of memory during a micro-batch of .*micro_batch_tokens"):
        SFT(epochs=1, batch_size=4).train(given)
    with pytest.raises(UserError, match="out of memory during"):
        DPO(epochs=1, batch_size=4).train(given)


def test_another_error_is_not_taken_for_a_shortage() -> None:
    with pytest.raises(RuntimeError, match="shapes"), memory.explained("a test"):
        raise RuntimeError("shapes do not fit")
