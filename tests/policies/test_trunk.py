"""States above frozen layers that are computed once a step: the same numbers, and fewer passes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from farm.hardware.models import tiny_llama
from farm.policies import load, trunk
from farm.policies.language_model import LanguageModelPolicy
from farm.roles.protocols import Learning
from reference_methods.games.online_dpo import OnlineDPO
from reference_methods.online.grpo import GRPO
from reference_methods.online.ppo import PPO
from reference_methods.online.rloo import RLOO
from tests.policies.conftest import PROMPTS, in_float64, make_policy, small_model, word_tokenizer
from tests.policies.test_sampling import architectures
from tests.training.conftest import everything, numbers

ONLINE: dict[str, Any] = {"steps": 2, "rollouts": 12, "minibatches": 2, "missing_eos_reward": None}
METHODS: dict[str, Any] = {
    "ppo": PPO(epochs=2, learning_rate=1e-3, value_learning_rate=1e-3, **ONLINE),
    "rloo": RLOO(samples_per_prompt=2, learning_rate=1e-3, **ONLINE),
    "online_dpo": OnlineDPO(steps=2, prompts_per_step=6, samples_per_prompt=2, learning_rate=1e-3),
    "grpo": GRPO(samples_per_prompt=4, learning_rate=1e-3, **ONLINE),
}


@contextmanager
def forwarded(policy: Any) -> Iterator[list[int]]:
    """How many tokens, padding included, each pass through the first layer had."""
    found: list[int] = []
    hook = policy.body.inner.layers[0].register_forward_hook(
        lambda m, x, y: found.append(x[0].shape[0] * x[0].shape[1])
    )
    try:
        yield found
    finally:
        hook.remove()


def policy_of(layers: int, train_layers: int) -> LanguageModelPolicy:
    model = tiny_llama(46, 16, layers, 2, 32, 64, 0)
    return LanguageModelPolicy(
        model, word_tokenizer(), template="{prompt}", max_new_tokens=12, train_layers=train_layers
    )


def in_64_bits(monkeypatch: pytest.MonkeyPatch) -> LanguageModelPolicy:
    policy = LanguageModelPolicy(
        small_model(), word_tokenizer(), template="{prompt}", max_new_tokens=12, train_layers=1
    )
    return in_float64(policy, monkeypatch)


@pytest.mark.parametrize("prompts", [PROMPTS, ["w7 w8 w9 w10 w11"] * 6], ids=["rows", "branches of one prompt"])
def test_a_pass_that_begins_above_frozen_layers_is_the_whole_one(
    prompts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And so are its gradients; whatever was asked for before, in whatever parts."""
    policy = in_64_bits(monkeypatch)
    scorer = policy.scorer(1)
    samples = policy.sample(prompts, seed=0, purpose="t")

    def all_of() -> list[torch.Tensor]:
        log_probabilities, _ = policy.log_probabilities(samples)
        log_probabilities.sum().backward()
        gradients = [p.grad for p in policy.parameters() if p.grad is not None]
        for p in policy.parameters():
            p.grad = None
        found = [log_probabilities, policy.distributions(samples)[0], scorer.values(samples), scorer.scores(samples)]
        return [*(t.detach() for t in found), *gradients]

    expected = all_of()
    with trunk.kept():
        policy.log_probabilities(samples.select([1, 4]))
        found = all_of()
        again = all_of()
    for a, b, c in zip(expected, found, again, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-6)
        torch.testing.assert_close(a, c, atol=1e-5, rtol=1e-6)
    assert not trunk._NOW


@pytest.mark.parametrize("name", METHODS)
def test_a_step_computes_the_frozen_layers_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They were computed by the reward model, the reference, the check of the sampler, the value network and in every
    update of either network: of PPO with two epochs seven times."""
    policy = policy_of(4, 1)
    given = everything(policy)
    lines: list[list[dict[str, float]]] = []
    passes = []
    for room in (2**30, 0):
        monkeypatch.setattr(trunk, "MOST_BYTES", room)
        lines.append([])
        with forwarded(policy) as tokens:
            learned = METHODS[name].train(replace(given, log=lines[-1].append))
        passes.append(sum(tokens))
        if room:
            kept = numbers(learned)
    longest = max(len(policy.conversation.prompts([p])[0]) for p in PROMPTS) + 12
    assert passes[0] <= 2 * 12 * longest  # two steps of twelve rows, padding included
    assert passes[1] > {"ppo": 4.5, "online_dpo": 1.5}.get(name, 2) * passes[0]
    assert float((kept - numbers(learned)).abs().mean()) < 1e-5
    for a, b in zip(*lines, strict=True):
        for metric in {"loss", "reward", "kl", "gradient_norm"} & set(a):
            assert a[metric] == pytest.approx(b[metric], rel=1e-3, abs=1e-4), metric


def test_where_everything_trains_nothing_is_kept() -> None:
    given = everything()
    with forwarded(given.policy) as tokens, trunk.kept():
        for _ in range(2):
            given.policy.log_probabilities(given.policy.encode(PROMPTS, PROMPTS))
    assert len(tokens) % 2 == 0 and sum(tokens[: len(tokens) // 2]) == sum(tokens) / 2


@pytest.mark.parametrize("stop_at", [1, 2])
def test_a_training_that_goes_on_ends_where_it_would_have_to_the_bit(stop_at: int, tmp_path: Path) -> None:
    """What is kept ends with its step."""

    class Killed(Exception):
        pass

    def log(line: dict[str, float]) -> None:
        if line["step"] == stop_at:
            raise Killed

    method = replace(METHODS["ppo"], steps=3, checkpoint_minutes=0.0, tune="last_layers", last_layers=1)
    given: Learning = everything(make_policy(train_layers=1))
    expected = numbers(method.train(given))
    with pytest.raises(Killed):
        method.train(replace(given, log=log, checkpoints=tmp_path))
    assert torch.equal(numbers(method.train(replace(given, checkpoints=tmp_path))), expected)


def test_a_loaded_model_shares_the_layers_that_were_frozen(tmp_path: Path) -> None:
    """They were held twice, and computed twice."""
    policy = policy_of(4, 1)
    made = policy.scorer(1)
    with torch.no_grad():
        for p in made.parameters():
            p.add_(0.01)
    made.save(tmp_path / "r")
    loaded: Any = load(tmp_path / "r")
    samples = policy.sample(PROMPTS, seed=0, purpose="t")
    expected = loaded.scores(samples)
    with torch.no_grad():
        next(iter(loaded.body.model.model.layers[1].parameters())).add_(1)  # another's layer stays another's
    loaded.body.share_frozen(policy.body)
    ours, theirs = (dict(b.model.named_parameters()) for b in (policy.body, loaded.body))
    shared = {name for name in ours if ours[name] is theirs[name]}
    assert (
        "model.embed_tokens.weight" in shared and loaded.body.model.lm_head.weight is ours["model.embed_tokens.weight"]
    )
    assert {name for name in ours if name.startswith(("model.layers.0.", "model.layers.2."))} <= shared
    assert sum(name.startswith("model.layers.1.") for name in shared) == 8
    assert not {name for name in shared if name.startswith(("model.layers.3.", "model.norm"))}
    again: Any = load(tmp_path / "r")
    again.body.share_frozen(policy.body)
    assert torch.equal(again.scores(samples), expected)
    critic = again.copy(zero_head=True)  # whose modules are its own, and whose frozen weights are not
    with forwarded(policy) as first, forwarded(critic) as third, forwarded(again) as tokens, trunk.kept():
        again.scores(samples)
        once = len(tokens)
        policy.log_probabilities(samples)
        critic.values(samples)
        again.scores(samples)
    assert len(tokens) == once > 0 and not first and not third


@pytest.mark.parametrize("name", ["qwen2", "gpt2"])
def test_other_architectures_are_taken_apart_or_left_whole(name: str) -> None:
    """GPT-2 adds its positions to whatever it is given."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = architectures()[name]()
    policy = LanguageModelPolicy(model, word_tokenizer(), template="{prompt}", max_new_tokens=6, train_layers=1)
    assert (policy.body._trunk is None) == (name == "gpt2")
    samples = policy.sample(PROMPTS, seed=0, purpose="t")
    expected = policy.log_probabilities(samples)[0]
    with trunk.kept():
        found = policy.log_probabilities(samples)[0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("windows", "apart"), [((0, 1), False), ((1, 0), False), ((1, 1), True), ((0, 0), True)])
def test_layers_that_look_back_differently_are_left_whole(windows: tuple[int, int], apart: bool) -> None:
    """A model finds the mask of a layer by its place, which is another one above frozen layers: texts longer than the
    window had other log-probabilities."""
    import transformers as t

    kinds = [("full_attention", "sliding_attention")[window] for window in windows]
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "max_position_embeddings": 64}
    named = {"vocab_size": 46, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    config = t.Qwen2Config(use_sliding_window=True, sliding_window=4, layer_types=kinds, **heads, **shape, **named)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = t.Qwen2ForCausalLM(config)
        for p in model.parameters():
            if p.dim() == 2:
                torch.nn.init.normal_(p, std=0.5)
    policy = LanguageModelPolicy(model, word_tokenizer(), template="{prompt}", max_new_tokens=6, train_layers=1)
    samples = policy.encode(PROMPTS, ["w1 w2 w3 w4 w5 w6 w7 w8"] * len(PROMPTS))
    expected = policy.log_probabilities(samples)[0]
    with trunk.kept():
        found = policy.log_probabilities(samples)[0]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert (policy.body._trunk is not None) == apart


def test_a_training_on_fixed_rows_inside_a_step_keeps_nothing() -> None:
    """It may go on from a checkpoint of its own, where the step has kept nothing yet."""
    policy = policy_of(4, 1)
    samples = policy.encode(PROMPTS, PROMPTS)
    with trunk.kept(), trunk.kept(False), forwarded(policy) as tokens:
        policy.log_probabilities(samples)
        once = len(tokens)
        policy.log_probabilities(samples)
    assert len(tokens) == 2 * once > 0


def test_a_loop_that_an_error_left_does_not_end_another() -> None:
    first, second = trunk.kept(), trunk.kept()
    first.__enter__()
    second.__enter__()
    inner = trunk._NOW[-1]
    first.__exit__(None, None, None)
    assert [inner] == trunk._NOW
    second.__exit__(None, None, None)
    assert not trunk._NOW
