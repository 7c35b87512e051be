"""Responses to one prompt computed as branches of one sequence: the same numbers and gradients, fewer tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from farm.policies import trees
from farm.policies.body import Body
from farm.policies.language_model import LanguageModelPolicy
from farm.policies.trees import KEY, computes_trees, group_into_trees, mask_of, same_prompts
from farm.roles.protocols import Samples
from reference_methods.parts.batches import micro_batches, total_lengths
from tests.policies.conftest import PROMPTS, in_float64, make_policy, small_model, word_tokenizer
from tests.policies.test_sampling import architectures


def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trees though the model is narrow."""
    monkeypatch.setattr(trees, "KEY", 0.0)


def counted(policy: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes that the model is called with, from now on."""
    shapes: list[tuple[int, ...]] = []
    inputs = Body._inputs

    def noted(self: Body, ids: torch.Tensor, *given: Any) -> dict[str, Any]:
        shapes.append(tuple(ids.shape))
        return inputs(self, ids, *given)

    monkeypatch.setattr(Body, "_inputs", noted)
    return shapes


def answers(policy: LanguageModelPolicy) -> Samples:
    """Six prompts with four responses of different lengths each, in no order, and a prompt that stands alone."""
    samples = policy.sample([*PROMPTS * 4, "w20 w21 w22"], seed=0, purpose="t")
    return samples.select(np.random.default_rng(0).permutation(len(samples)))


def gradient(policy: Any, value: torch.Tensor) -> torch.Tensor:
    weights = torch.linspace(-1, 1, value.numel()).view(value.shape)
    found = torch.autograd.grad((value * weights).sum(), [p for p in policy.parameters() if p.requires_grad])
    return torch.cat([g.reshape(-1) for g in found])


QUESTIONS: dict[str, Callable[[Any, Samples], tuple[Any, torch.Tensor]]] = {
    "log-probabilities": lambda policy, s: (policy, policy.log_probabilities(s, 0.7)[0]),
    "distributions": lambda policy, s: (policy, policy.distributions(s)[0]),
    "scores": lambda policy, s: ((scorer := policy.scorer(0, "last")), scorer.scores(s)),
    "scores of all tokens": lambda policy, s: ((scorer := policy.scorer(0, "last+sum")), scorer.scores(s)),
    "values": lambda policy, s: ((scorer := policy.scorer(0, "last+sum")), scorer.values(s)),
}


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("settings", [{}, {"gradient_checkpointing": True}, {"train_layers": 1}], ids=str)
def test_numbers_and_gradients_are_those_of_rows_alone(
    question: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = make_policy(**settings)
    samples = answers(policy)
    in_float64(policy, monkeypatch)
    shapes = counted(policy, monkeypatch)
    found = []
    for key in (1e9, 0.0):
        monkeypatch.setattr(trees, "KEY", key)
        shapes.clear()
        trained, value = QUESTIONS[question](policy, samples)
        found.append((value.detach(), gradient(trained, value), sum(int(np.prod(shape)) for shape in shapes)))
    torch.testing.assert_close(found[0][0], found[1][0], atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(found[0][1], found[1][1], atol=1e-10, rtol=1e-10)
    assert found[1][2] < 0.9 * found[0][2]


@pytest.mark.parametrize("name", ["gpt2", "qwen2", "grouped"])
def test_in_other_architectures(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = small_model(heads=4) if name == "grouped" else architectures()[name]()
    policy = LanguageModelPolicy(model, word_tokenizer(), template="{prompt}", max_new_tokens=8)
    samples = answers(policy)
    with torch.no_grad():
        alone = policy.log_probabilities(samples)[0]
        everywhere(monkeypatch)
        shapes = counted(policy, monkeypatch)
        together = policy.log_probabilities(samples)[0]
    assert policy.body._trees_of == policy.body.width and sum(rows for rows, _ in shapes) <= len(PROMPTS) + 1
    torch.testing.assert_close(alone, together, atol=2e-5, rtol=1e-5)


def test_in_16_bits_they_differ_by_rounding_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = make_policy(compute_dtype="bfloat16")
    samples = answers(policy)
    with torch.no_grad():
        exact = make_policy().log_probabilities(samples)[0]
        alone = policy.log_probabilities(samples)[0]
        everywhere(monkeypatch)
        together = policy.log_probabilities(samples)[0]
    assert (together - exact).abs().mean() < 2 * (alone - exact).abs().mean()


def test_a_response_without_tokens_in_a_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = make_policy()
    samples = policy.encode(["w1 w2"] * 3, ["w3 w4", "", "w5"])
    samples.response_tokens[1] = np.zeros(0, np.int32)
    scorer = policy.scorer(0, "last")
    alone = scorer.scores(samples)
    everywhere(monkeypatch)
    torch.testing.assert_close(alone, scorer.scores(samples))
    assert policy.log_probabilities(samples)[0].shape == (3, 3)


def test_what_a_token_may_look_at() -> None:
    mask = mask_of(torch.tensor([[0, 0, 1, 2, 2, 0]]), torch.float32)[0, 0]
    seen = [[j for j in range(6) if mask[i, j] == 0] for i in range(5)]
    assert seen == [[0], [0, 1], [0, 1, 2], [0, 1, 3], [0, 1, 3, 4]]
    assert bool((mask[mask != 0] == torch.finfo(torch.float32).min).all())


def test_every_row_is_in_one_tree_of_its_prompt() -> None:
    draw = np.random.default_rng(0)
    prompts = draw.integers(0, 12, 100)
    prompt_lengths = draw.integers(5, 40, 12)[prompts]
    for width in (8, 256, 4096):
        found = group_into_trees(prompts, prompt_lengths, draw.integers(1, 60, 100), width)
        assert sorted(np.concatenate(found)) == list(range(100))
        assert all(len(set(prompts[tree])) == 1 for tree in found)
    assert group_into_trees(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64), 64) == []


@pytest.mark.parametrize(("width", "prompt", "response"), [(96, 14, 36), (576, 50, 48), (2048, 192, 300), (64, 2, 90)])
def test_trees_have_the_size_that_costs_least(width: int, prompt: int, response: int) -> None:
    def cost(rows: int) -> float:
        length = prompt + rows * response
        keys = length if rows > 1 else length / 2
        return length * (1 + KEY * keys / width) / rows

    same = np.zeros(48, dtype=np.int64)
    found = group_into_trees(same, np.full(48, prompt), np.full(48, response), width)
    best = min(range(1, trees.MOST_BRANCHES + 1), key=cost)
    assert len(found) == -(-48 // best) and max(map(len, found)) - min(map(len, found)) <= 1
    assert all(len(tree) == 1 for tree in group_into_trees(same, np.full(48, prompt), np.full(48, response), 1))


def test_prompts_are_the_same_by_their_tokens() -> None:
    tokens = [np.array([1, 2], np.int32), np.array([1, 2], np.int64), np.array([2, 1], np.int32), np.zeros(0, np.int32)]
    assert same_prompts(tokens).tolist() == [0, 0, 1, 2]
    assert same_prompts([]).tolist() == []


def small(name: str, **more: Any) -> Any:
    import transformers

    shape = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return getattr(transformers, f"{name}Config")(**{**shape, "intermediate_size": 48, **more})


def cases() -> Iterator[tuple[str, Any, bool]]:
    yield "Llama", small("Llama", num_key_value_heads=1), True
    yield "OPT", small("OPT", ffn_dim=48, word_embed_proj_dim=32), True
    yield "windows", small("Mistral", num_key_value_heads=1, sliding_window=4), False
    yield "windows in turn", small("Gemma3Text", head_dim=16, num_key_value_heads=1), False
    yield (
        "local attention",
        small("GPTNeo", num_layers=2, num_heads=2, attention_types=[[["global", "local"], 1]]),
        False,
    )
    yield (
        "a causal mask no longer than the context",
        small("GPTNeo", num_layers=2, num_heads=2, attention_types=[[["global"], 2]]),
        False,
    )
    yield "no attention", small("Mamba"), False
    yield "positions in the mask", small("Bloom"), False
    yield "positions in the mask, too", small("Falcon", alibi=True), False
    yield "states beside attention", small("FalconH1"), False


@pytest.mark.parametrize(
    ("name", "config", "able"), list(cases()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_which_models_can(name: str, config: Any, able: bool) -> None:
    import transformers

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config).eval()
    assert computes_trees(model.base_model, model.config.get_text_config()) is able


def test_micro_batches_keep_the_responses_to_a_prompt_together() -> None:
    policy = make_policy()
    samples = answers(policy)
    lengths, prompts = total_lengths(samples), same_prompts(samples.prompt_tokens)
    some = np.flatnonzero(np.arange(len(samples)) % 5)
    for tokens in (1, 40, 120, 10_000):
        parts = micro_batches(some, lengths, tokens, prompts)
        assert sorted(np.concatenate(parts)) == some.tolist()
        assert all(len(part) == 1 or lengths[part].sum() <= tokens for part in parts)
        order = prompts[np.concatenate(parts)]
        assert np.count_nonzero(np.diff(order)) == len(set(order)) - 1
    assert len(micro_batches(some, lengths, 120, prompts)) <= 1 + lengths[some].sum() // 60


def test_micro_batches_of_uneven_rows_hold_half_as_much_padding_at_most() -> None:
    lengths = np.minimum(np.random.default_rng(0).pareto(1.0, 240) * 40, 1000).astype(np.int64) + 10
    for prompts in (np.arange(240) // 4, np.arange(240)):
        parts = micro_batches(np.arange(240), lengths, 1000, prompts)
        assert sorted(np.concatenate(parts)) == list(range(240))
        assert all(len(part) == 1 or len(part) * lengths[part].max() <= 1500 for part in parts)
