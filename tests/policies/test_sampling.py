"""Sampling: draws that follow their key whatever the batch, and log-probabilities that are those of the policy."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import softmax

from farm.base.errors import UserError
from farm.engines import llama, sampling, transformers
from farm.engines.llama import LlamaDecoder, is_plain_llama
from farm.engines.sampling import NEVER, Sampler, TransformersDecoder, invert, nucleus
from farm.hardware.models import tiny_llama
from farm.policies import language_model
from farm.policies.language_model import LanguageModelPolicy
from farm.roles.protocols import Policy, Samples

from .conftest import PROMPTS, SPECIAL, WORDS, make_policy, small_model, word_tokenizer


@pytest.fixture(params=["llama", "transformers"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test through the fast decoder and through the general one."""
    if request.param == "transformers":
        monkeypatch.setattr(language_model, "is_plain_llama", lambda model: False)
    return str(request.param)


def same(a: Samples, b: Samples) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a.response_tokens, b.response_tokens, strict=True))


def largest_difference(policy: LanguageModelPolicy, samples: Samples, temperature: float = 1.0) -> float:
    chosen, mask = policy.log_probabilities(samples, temperature)
    sampled = torch.zeros_like(chosen)
    sampled[mask] = torch.from_numpy(np.concatenate(samples.log_probabilities))
    return float((chosen - sampled).detach().abs().max())


def test_fulfils_the_role(policy: LanguageModelPolicy) -> None:
    assert isinstance(policy, Policy)


def test_neither_order_nor_batch_changes_a_draw(decoder: str) -> None:
    policy, prompts = make_policy(), PROMPTS * 9
    straight = policy.sample(prompts, seed=1, purpose="t")
    assert len({tuple(t) for t in straight.response_tokens}) > 40
    for rows in (1, 7):
        assert same(make_policy(rows_at_once=rows).sample(prompts, seed=1, purpose="t"), straight)
    order = np.random.default_rng(0).permutation(len(prompts))
    shuffled = policy.sample([prompts[i] for i in order], seed=1, purpose="t")
    for prompt in PROMPTS:
        a = [t.tolist() for p, t in zip(straight.prompts, straight.response_tokens, strict=True) if p == prompt]
        b = [t.tolist() for p, t in zip(shuffled.prompts, shuffled.response_tokens, strict=True) if p == prompt]
        assert a == b
    part = policy.sample(PROMPTS[:2] * 3, seed=1, purpose="t")
    assert [t.tolist() for t in part.response_tokens] == [
        straight.response_tokens[i].tolist() for i in (0, 1, 6, 7, 12, 13)
    ]
    assert not same(policy.sample(prompts, seed=2, purpose="t"), straight)
    assert not same(policy.sample(prompts, seed=1, purpose="u"), straight)


def test_a_longer_limit_only_lengthens(policy: LanguageModelPolicy) -> None:
    short = policy.sample(PROMPTS * 5, seed=1, purpose="t", max_new_tokens=4)
    long = policy.sample(PROMPTS * 5, seed=1, purpose="t", max_new_tokens=20)
    assert max(short.lengths()) == 4 < max(long.lengths())
    assert all(np.array_equal(a, b[:4]) for a, b in zip(short.response_tokens, long.response_tokens, strict=True))


@pytest.mark.parametrize("temperature", [1.0, 0.6, 1.7])
def test_the_first_ratio_is_one(decoder: str, temperature: float) -> None:
    policy = make_policy(extra_eos=["w3", "w9", 20], forbidden_tokens=[1, 4, 5])
    samples = policy.sample(PROMPTS * 10, seed=0, purpose="t", temperature=temperature)
    assert {"stop", "length"} == set(samples.finish_reason)
    assert largest_difference(policy, samples, temperature) < 1e-4
    assert largest_difference(policy, samples, temperature * 1.5) > 1e-2


def test_the_two_decoders_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    fast = make_policy().sample(PROMPTS * 9, seed=3, purpose="t")
    monkeypatch.setattr(language_model, "is_plain_llama", lambda model: False)
    assert same(fast, make_policy().sample(PROMPTS * 9, seed=3, purpose="t"))


@pytest.mark.parametrize(("key_heads", "packed"), [(1, False), (2, False), (4, False), (2, True)])
def test_grouped_heads_gains_and_untied_heads_are_computed_as_transformers_does(
    key_heads: int, packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    if packed and llama._pack is None:
        pytest.skip("this build of torch has no oneDNN, or hides what packs its weights")
    monkeypatch.setattr(llama, "PACKED_FROM", 1 if packed else 10**9)

    rope = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0}
    rope |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 32}
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=key_heads,
        max_position_embeddings=64,
        rope_parameters=rope,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config).eval()
        for p in model.parameters():
            torch.nn.init.normal_(p, mean=1.0 if p.dim() == 1 else 0.0, std=0.4)
    assert is_plain_llama(model)
    prompts = [np.array(p, np.int32) for p in ([1, 2, 3], [4], [5, 6, 7, 8, 9, 10])]
    prompt_of = np.array([0, 0, 1, 2, 2])
    none = torch.zeros(0, dtype=torch.int64)
    from contextlib import nullcontext

    fast, general = LlamaDecoder(model, none), TransformersDecoder(model, none, nullcontext)
    assert fast.layers[0].down.is_mkldnn == packed
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        a, b = (d.start(prompts, prompt_of, 10) for d in (fast, general))
        for step in range(9):
            torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-4)
            if step == 4:
                keep = torch.tensor([0, 4, 2])
                fast.keep(keep), general.keep(keep)
            tokens = torch.randint(0, 50, (len(a) if step < 4 else 3,), generator=generator)
            a, b = fast.step(tokens), general.step(tokens)


def test_a_model_with_other_parts_takes_the_general_way(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model()
    assert is_plain_llama(model)
    layer = model.model.layers[0].self_attn
    layer.q_proj = torch.nn.Sequential(layer.q_proj)
    assert not is_plain_llama(model)


def architectures() -> dict[str, Callable[[], Any]]:
    import transformers as t

    size = len(SPECIAL) + len(WORDS)
    common = {"vocab_size": size, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}

    def gpt2() -> Any:
        return t.GPT2LMHeadModel(t.GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=64, **common))

    def qwen() -> Any:
        shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "max_position_embeddings": 64}
        return t.Qwen2ForCausalLM(t.Qwen2Config(num_attention_heads=2, num_key_value_heads=1, **shape, **common))

    def gemma() -> Any:  # caps its logits after the head, so the head alone is not the model
        shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "max_position_embeddings": 64}
        heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}
        return t.Gemma2ForCausalLM(t.Gemma2Config(final_logit_softcapping=0.5, **heads, **shape, **common))

    return {"gpt2": gpt2, "qwen2": qwen, "gemma2": gemma}


@pytest.mark.parametrize("name", ["gpt2", "qwen2", "gemma2"])
def test_any_architecture(name: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = architectures()[name]()
        for p in model.parameters():
            if p.dim() == 2:
                torch.nn.init.normal_(p, std=0.3)
    policy = LanguageModelPolicy(model, word_tokenizer(), template="{prompt}", max_new_tokens=8, extra_eos=["w1", "w2"])
    samples = policy.sample(PROMPTS * 5, seed=0, purpose="t")
    assert largest_difference(policy, samples) < 1e-4
    alone = [policy.sample([p], seed=0, purpose="t").response_tokens[0].tolist() for p in PROMPTS]
    assert alone == [t.tolist() for t in samples.response_tokens[: len(PROMPTS)]]
    for row in (1, 3):  # the definition: one unpadded pass of the whole model
        ids = np.concatenate([samples.prompt_tokens[row], samples.response_tokens[row]]).astype(np.int64)
        with torch.no_grad():
            logits = model(input_ids=torch.from_numpy(ids)[None]).logits[0].log_softmax(-1)
        start = len(samples.prompt_tokens[row])
        wanted = [float(logits[i - 1, ids[i]]) for i in range(start, len(ids))]
        np.testing.assert_allclose(samples.log_probabilities[row], wanted, atol=1e-4)


def test_frequencies_are_those_of_the_model(policy: LanguageModelPolicy) -> None:
    n = 4000
    samples = policy.sample(["w5 w6"] * n, seed=0, purpose="t", max_new_tokens=1)
    counts = np.bincount([t[0] for t in samples.response_tokens], minlength=46) / n
    table, mask = policy.distributions(samples.select([0]))
    probabilities = table[0, 0].exp().detach().numpy()
    assert mask.shape == (1, 1) and probabilities.max() > 0.05
    chi2 = (n * (counts - probabilities) ** 2 / probabilities).sum()
    assert chi2 < 46 + 5 * (2 * 46) ** 0.5


def test_greedy(decoder: str) -> None:
    policy = make_policy()
    samples = policy.sample(PROMPTS, seed=0, purpose="t", temperature=0)
    table, _ = policy.distributions(samples)
    best = table.argmax(-1)
    for row, tokens in enumerate(samples.response_tokens):
        assert tokens.tolist() == best[row, : len(tokens)].tolist()
    assert same(samples, policy.sample(PROMPTS, seed=9, purpose="other", temperature=0))
    assert not np.concatenate(samples.log_probabilities).any()


def test_forbidden_tokens_do_not_exist(decoder: str) -> None:
    forbidden = list(range(10, 30))
    policy, free = make_policy(forbidden_tokens=forbidden), make_policy()
    samples = policy.sample(PROMPTS * 20, seed=0, purpose="t")
    assert not set(np.concatenate(samples.response_tokens).tolist()) & set(forbidden)
    table, _ = policy.distributions(samples.select([0]))
    assert float(table[0, 0].detach().exp()[forbidden].sum()) == 0
    full = free.distributions(samples.select([0]))[0][0, 0].exp()
    full[forbidden] = 0
    torch.testing.assert_close(table[0, 0].exp(), full / full.sum(), atol=1e-6, rtol=1e-4)
    # an exact sum over the vocabulary, for example a KL, must not turn into NaN
    assert torch.isfinite((table.exp() * (table - table.detach())).sum())


def test_end_tokens_and_limits(decoder: str) -> None:
    policy = make_policy(extra_eos=["w3", 12, 13, 14])
    ends = {2, policy.tokenizer.convert_tokens_to_ids("w3"), 12, 13, 14}
    samples = policy.sample(PROMPTS * 20, seed=0, purpose="t")
    for tokens, reason in zip(samples.response_tokens, samples.finish_reason, strict=True):
        assert not set(tokens[:-1].tolist()) & ends
        assert (tokens[-1] in ends) == (reason == "stop")
        assert reason == "stop" or len(tokens) == 12
    assert len(set(samples.finish_reason)) == 2


def test_the_context_is_a_limit_of_its_own(decoder: str) -> None:
    model = tiny_llama(46, 16, 2, 2, 32, 10, 0)
    policy = LanguageModelPolicy(model, word_tokenizer(), template="{prompt}", max_new_tokens=50)
    samples = policy.sample(["w1 " * 7, "w2", "w3 w4 w5"], seed=0, purpose="t")
    cut = [r == "length" for r in samples.finish_reason]
    room = np.array([3, 9, 7])
    assert (samples.lengths()[cut] == room[cut]).all() and (samples.lengths() <= room).all()
    with pytest.raises(UserError, match=r"row 1 \('w1 w1.*11 tokens .* context of 10 tokens"):
        policy.sample(["w2", "w1 " * 10], seed=0, purpose="t")
    with pytest.raises(UserError, match="context of 10"):
        policy.log_probabilities(policy.encode(["w1"], ["w2 " * 30]))


def test_progress_counts_every_response(decoder: str) -> None:
    seen: list[int] = []
    make_policy(rows_at_once=5).sample(PROMPTS * 4, seed=0, purpose="t", progress=seen.append)
    assert sum(seen) == 24


def test_no_prompts_no_responses(policy: LanguageModelPolicy) -> None:
    assert len(policy.sample([], seed=0, purpose="t")) == 0


def test_global_random_state_is_untouched(policy: LanguageModelPolicy) -> None:
    before = torch.random.get_rng_state()
    policy.sample(PROMPTS, seed=0, purpose="t")
    policy.scorer(1)
    tiny_llama(50, 16, 1, 2, 32, 10, 0)
    assert torch.equal(before, torch.random.get_rng_state())


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3000), st.integers(0, 10_000), st.integers(1, 300))
def test_inverse_of_the_cumulative_distribution(size: int, seed: int, block: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(4, size, generator=generator) * (torch.rand(4, size, generator=generator) > 0.5)
    weights[:, seed % size] = 1e-3
    uniform = torch.rand(4, generator=generator, dtype=torch.float64)
    uniform[0], uniform[1] = 1 - 2**-53, 2**-53
    place, total = invert(weights, uniform, block)
    cumulative = weights.double().cumsum(-1)
    torch.testing.assert_close(total, cumulative[:, -1], rtol=1e-6, atol=0)
    assert (weights.gather(1, place[:, None]) > 0).all()
    upper = cumulative.gather(1, place[:, None])[:, 0]
    lower = upper - weights.double().gather(1, place[:, None])[:, 0]
    target = uniform * total
    slack = 1e-6 * total  # blocks are summed in float32
    assert (lower <= target + slack).all() and (target <= upper + slack).all()


def test_nucleus_against_its_definition() -> None:
    weights = softmax(torch.randn(6, 700, generator=torch.Generator().manual_seed(0)) * 2, dim=-1)
    for top_k, top_p in ((None, 0.9), (5, 1.0), (40, 0.5), (None, 0.999), (1, 1.0)):
        kept, places = nucleus(weights, top_k, top_p)
        for row in range(6):
            order = weights[row].argsort(descending=True)[:top_k]
            p = weights[row][order].double()
            need = int((p.cumsum(0) - p < top_p * p.sum()).sum())
            assert set(places[row][kept[row] > 0].tolist()) == set(order[:need].tolist())


def test_log_probabilities_of_a_cut_distribution() -> None:
    logits = torch.randn(5000, 20, generator=torch.Generator().manual_seed(1))[:1].repeat(5000, 1)
    logits[:, 3] = NEVER
    draws = torch.rand(5000, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    p = softmax(logits[0] / 0.7, dim=-1)
    best = p.argsort(descending=True)[:4]
    wanted = p[best] / p[best].sum()
    token, log_probability = Sampler(0.7, top_k=4)(logits.clone(), draws)
    assert set(token.tolist()) == set(best.tolist())
    for place, probability in zip(best, wanted, strict=True):
        chosen = token == place
        torch.testing.assert_close(log_probability[chosen][0].exp(), probability)
        assert abs(float(chosen.float().mean()) - float(probability)) < 0.03


# --- on an accelerator ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("look", [2, 5, 100])
def test_when_it_is_asked_for_ended_rows_changes_nothing(
    decoder: str, look: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that have ended go on for a few steps, and what they write then is thrown away."""
    policy, seen = make_policy(extra_eos=["w3", "w4", "w5", "w6"]), list[int]()
    straight = policy.sample(PROMPTS * 9, seed=1, purpose="t")
    assert set(straight.finish_reason) == {"stop", "length"}
    monkeypatch.setitem(sampling.LOOK, "cpu", look)
    found = policy.sample(PROMPTS * 9, seed=1, purpose="t", progress=seen.append)
    assert same(found, straight) and found.finish_reason == straight.finish_reason
    assert sum(seen) == len(found)
    for a, b in zip(found.log_probabilities, straight.log_probabilities, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_a_row_that_ended_at_the_end_of_the_context_stays_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was written on until that was seen, past the last position, which kills a program on CUDA."""
    import transformers as t

    shape = {"vocab_size": len(SPECIAL) + len(WORDS), "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 10}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = t.GPT2LMHeadModel(t.GPT2Config(bos_token_id=None, eos_token_id=None, **shape))
    policy = LanguageModelPolicy(model, word_tokenizer(), template="{prompt}", max_new_tokens=50)
    straight = policy.sample(["w1 " * 7, "w2", "w3"], seed=1, purpose="t")
    assert max(straight.lengths()) > 3  # the first prompt leaves room for three
    monkeypatch.setitem(sampling.LOOK, "cpu", 8)
    found = policy.sample(["w1 " * 7, "w2", "w3"], seed=1, purpose="t")
    assert same(found, straight) and found.finish_reason == straight.finish_reason


def test_prompts_in_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = make_policy()
    straight = policy.sample(PROMPTS * 3, seed=1, purpose="t")
    monkeypatch.setitem(sampling.PREFILLED, "cpu", 12)  # the longest prompt has 5 words
    found = policy.sample(PROMPTS * 3, seed=1, purpose="t")
    assert same(found, straight)
    for a, b in zip(found.log_probabilities, straight.log_probabilities, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_a_cache_of_16_bits_has_room_for_twice_the_rows() -> None:
    plain, half = make_policy(), make_policy(compute_dtype="bfloat16")
    sizes = [TransformersDecoder(p.model, p.forbidden, p.body.autocast).bytes_per_token for p in (plain, half)]
    assert sizes[0] == 2 * sizes[1] == plain.decoder().bytes_per_token


def test_rows_are_as_many_as_the_free_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    policy, together = make_policy(), list[int]()
    start = LlamaDecoder.start

    def counted(self: LlamaDecoder, prompts: Any, prompt_of: Any, limit: int) -> torch.Tensor:
        together.append(len(prompt_of))
        return start(self, prompts, prompt_of, limit)

    monkeypatch.setattr(LlamaDecoder, "start", counted)
    monkeypatch.setattr(sampling, "CACHE_BYTES", 5 * 17 * policy.decoder().bytes_per_token)
    policy.sample(PROMPTS * 9, seed=1, purpose="t")
    assert max(together) <= 6
    together.clear()
    monkeypatch.setattr(sampling.memory, "free", lambda device: 2**30)
    policy.sample(PROMPTS * 9, seed=1, purpose="t")
    assert together == [54]


def test_a_large_model_on_an_accelerator_is_told_of_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformers, "LARGE", 10)
    monkeypatch.setattr(transformers, "write", lambda *_: None)
    first = SimpleNamespace(device=torch.device("cuda"), numel=lambda: 20)
    writer: Any = SimpleNamespace(model=SimpleNamespace(parameters=lambda: iter([first])), decoder=lambda: None)
    with pytest.warns(UserWarning, match="`world.engine: vllm`"):
        transformers.Transformers().write(writer, None)  # type: ignore[arg-type]
