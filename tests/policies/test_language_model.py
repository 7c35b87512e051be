"""Texts to tokens, log-probabilities of given responses, what trains, and the saved folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from farm.base.errors import UserError
from farm.policies import batches, likelihoods, load
from farm.policies.batches import of_sampled
from farm.policies.conversation import INSTRUCTION
from farm.policies.language_model import LanguageModelPolicy
from farm.roles.protocols import Policy, Samples

from .conftest import PROMPTS, make_policy, small_model, word_tokenizer


def ids(policy: LanguageModelPolicy, text: str) -> list[int]:
    return list(policy.tokenizer.convert_tokens_to_ids(text.split()))


def test_encode_ends_every_response_exactly_once(policy: LanguageModelPolicy) -> None:
    outputs = ["w3 w4", "", "w1 <eos> w2", "w5 <eos>"]
    samples = policy.encode(["w1"] * 4, outputs)
    assert samples.outputs == outputs and set(samples.finish_reason) == {"stop"}
    for tokens in samples.response_tokens:
        assert tokens[-1] == 2 and (tokens == 2).sum() == 1
    assert samples.response_tokens[0].tolist() == ids(policy, "w3 w4 <eos>")
    assert samples.response_tokens[1].tolist() == [2]
    assert not np.concatenate(samples.log_probabilities).any()


def test_a_chat_template_is_applied_once_to_the_whole_conversation() -> None:
    policy = make_policy(chat=True)
    samples = policy.encode(["w1 w2", "w3"], ["w4", "w5 w6"])
    assert samples.prompt_tokens[0].tolist() == ids(policy, "<bos> <user> w1 w2 <bot>")
    assert samples.response_tokens[0].tolist() == ids(policy, "w4 <eos>")
    for prompt, response in zip(samples.prompt_tokens, samples.response_tokens, strict=True):
        whole = [*prompt, *response]
        assert whole.count(1) == 1 and whole[0] == 1
    sampled = policy.sample(["w1 w2"], seed=0, purpose="t")
    assert sampled.prompt_tokens[0].tolist() == samples.prompt_tokens[0].tolist()


def test_a_beginning_of_sequence_the_tokenizer_wants_is_added_once() -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = word_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    for template in ("{prompt}", "<bos> {prompt}"):
        policy = LanguageModelPolicy(small_model(), tokenizer, template=template)
        samples = policy.encode(["w1"], ["w2"])
        assert samples.prompt_tokens[0].tolist() == [1, 7] and samples.response_tokens[0].tolist() == [8, 2]


def test_the_plain_template() -> None:
    policy = LanguageModelPolicy(small_model(), word_tokenizer())
    known = policy.encode(["w1"], ["w2"]).prompt_tokens[0]
    assert known.tolist() == policy.tokenizer(INSTRUCTION.replace("{prompt}", "w1")).input_ids
    with pytest.raises(ValueError, match="must have"):
        LanguageModelPolicy(small_model(), word_tokenizer(), template="Answer:")


def test_a_text_cannot_speak_in_special_tokens() -> None:
    policy = make_policy(chat=True)
    samples = policy.encode(["w1 <bot> w2 <eos>"], ["w3 <user> w4"])
    assert samples.prompt_tokens[0].tolist().count(5) == 1 and 2 not in samples.prompt_tokens[0]
    assert 4 not in samples.response_tokens[0]
    assert samples.prompts == ["w1 <bot> w2 <eos>"]


def test_a_prompt_without_any_token_is_refused(policy: LanguageModelPolicy) -> None:
    with pytest.raises(UserError, match="a prompt is empty"):
        policy.sample(["w1", ""], seed=0, purpose="t")


def test_outputs_are_the_text_of_the_tokens(policy: LanguageModelPolicy) -> None:
    samples = policy.sample(PROMPTS * 3, seed=0, purpose="t")
    again = policy.encode(samples.prompts, samples.outputs)
    for row in range(len(samples)):
        tokens = [t for t in samples.response_tokens[row].tolist() if t > 5]
        assert again.response_tokens[row].tolist() == [*tokens, 2]


def test_log_probabilities_by_definition(policy: LanguageModelPolicy) -> None:
    samples = policy.encode(PROMPTS, ["w3 w4 w5", "", "w1", "w2 w9 w9 w1 w3", "w20 w21", "w30"])
    chosen, mask = policy.log_probabilities(samples, temperature=0.8)
    assert chosen.dtype == torch.float32 and chosen.shape == mask.shape == (6, 6)
    assert mask.sum(1).tolist() == [4, 1, 2, 6, 3, 2] and not chosen[~mask].any()
    table, table_mask = policy.distributions(samples, temperature=0.8)
    assert table.shape == (6, 6, 46) and torch.equal(mask, table_mask)
    torch.testing.assert_close(of_sampled(table, samples, mask), chosen)
    for row in range(6):
        whole = np.concatenate([samples.prompt_tokens[row], samples.response_tokens[row]]).astype(np.int64)
        with torch.no_grad():
            logits = policy.model(input_ids=torch.from_numpy(whole)[None]).logits[0] / 0.8
        start = len(samples.prompt_tokens[row])
        wanted = logits.log_softmax(-1)[start - 1 : -1]
        torch.testing.assert_close(table[row, : len(wanted)], wanted, atol=1e-4, rtol=1e-4)
        picked = wanted.gather(1, torch.from_numpy(whole[start:])[:, None])[:, 0]
        torch.testing.assert_close(chosen[row, : len(wanted)], picked, atol=1e-4, rtol=1e-4)


def test_neighbours_and_batches_change_nothing(policy: LanguageModelPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = policy.sample(PROMPTS * 6, seed=0, purpose="t")
    together, mask = policy.log_probabilities(samples)
    (together * mask).square().sum().backward()
    gradient = [p.grad.clone() for p in policy.parameters()]  # type: ignore[union-attr]
    for row in (0, 9, 35):
        alone, _ = policy.log_probabilities(samples.select([row]))
        torch.testing.assert_close(together[row, : alone.shape[1]], alone[0], atol=1e-4, rtol=1e-4)
    monkeypatch.setitem(batches.TOKENS, "cpu", 40)
    monkeypatch.setattr(likelihoods, "LOGITS_AT_ONCE", 46 * 10)  # the head in small pieces, computed again backwards
    for p in policy.parameters():
        p.grad = None
    pieces, mask = policy.log_probabilities(samples)
    torch.testing.assert_close(pieces, together, atol=1e-4, rtol=1e-4)
    (pieces * mask).square().sum().backward()
    for p, wanted in zip(policy.parameters(), gradient, strict=True):
        torch.testing.assert_close(p.grad, wanted, atol=1e-2, rtol=1e-3)


def test_a_response_without_a_token_has_no_log_probability(policy: LanguageModelPolicy) -> None:
    full = policy.encode(["w1", "w2"], ["w3", "w4"])
    empty = np.zeros(0, np.int32)
    samples = Samples(
        full.prompts,
        ["", "w4"],
        full.prompt_tokens,
        [empty, full.response_tokens[1]],
        full.log_probabilities,
        ["length", "stop"],
    )
    chosen, mask = policy.log_probabilities(samples)
    assert mask.tolist() == [[False, False], [True, True]] and not chosen[0].any()
    wanted, _ = policy.log_probabilities(full)
    torch.testing.assert_close(chosen[1], wanted[1])
    chosen, mask = policy.log_probabilities(samples.select([0]))
    assert chosen.shape == mask.shape == (1, 0)


def test_prompts_get_no_loss(policy: LanguageModelPolicy) -> None:
    """Only response tokens are targets: with everything but one token forbidden, its log-probability is 0."""
    only = make_policy(forbidden_tokens=[i for i in range(46) if i not in (2, 9)])
    samples = policy.encode(["w1 w2 w3"], ["w3 w3"])
    chosen, _ = only.log_probabilities(samples)
    assert (chosen < 0).all() and float(only.distributions(samples)[0].detach().exp().sum()) == pytest.approx(3)


def test_no_dropout_ever() -> None:
    import transformers

    config = transformers.GPT2Config(vocab_size=46, n_embd=16, n_layer=2, n_head=2, n_positions=64, resid_pdrop=0.5)
    policy = LanguageModelPolicy(transformers.GPT2LMHeadModel(config).train(), word_tokenizer(), template="{prompt}")
    samples = policy.encode(PROMPTS, PROMPTS)
    assert torch.equal(policy.log_probabilities(samples)[0], policy.log_probabilities(samples)[0])


def test_only_the_last_layers_train() -> None:
    policy = make_policy(train_layers=1)
    samples = policy.encode(PROMPTS, PROMPTS)
    policy.log_probabilities(samples)[0].sum().backward()
    trained = {id(p) for p in policy.parameters()}
    names = {n for n, p in policy.model.named_parameters() if id(p) in trained}
    assert names == {n for n, p in policy.model.named_parameters() if p.grad is not None}
    assert names == {n for n, _ in policy.model.named_parameters() if n.startswith(("model.layers.1.", "model.norm"))}
    with pytest.raises(UserError, match="from 1 to 2"):
        make_policy(train_layers=3)


def test_copies_share_what_never_trains() -> None:
    policy = make_policy(train_layers=1)
    copies = [policy.copy(), policy.with_settings(top_k=3), policy.scorer(0).body, policy.scorer(0).copy().body]
    for other in copies:
        pairs = zip(policy.model.named_parameters(), other.model.parameters(), strict=True)
        own = {name for (name, p), q in pairs if p is not q}
        assert own == {n for n, _ in policy.model.named_parameters() if n.startswith(("model.layers.1.", "model.norm"))}
        assert other.model.lm_head.weight is policy.model.model.embed_tokens.weight
    whole = policy.with_settings(train_layers=None)
    assert not {id(p) for p in whole.parameters()} & {id(p) for p in policy.model.parameters()}
    assert all(p.requires_grad for p in whole.parameters())
    assert sum(p.requires_grad for p in policy.model.parameters()) == len(list(policy.parameters()))


def test_copies_are_independent_and_train_again(policy: LanguageModelPolicy) -> None:
    for p in policy.parameters():
        p.requires_grad_(False)
    other = policy.copy()
    assert all(p.requires_grad for p in other.parameters())
    samples = policy.encode(PROMPTS, PROMPTS)
    before = policy.log_probabilities(samples)[0]
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(1.1)
    assert torch.equal(before, policy.log_probabilities(samples)[0])
    assert not torch.equal(before, other.log_probabilities(samples)[0].detach())
    changed = policy.with_settings(top_k=1).sample(PROMPTS, seed=0, purpose="t").response_tokens
    greedy = policy.sample(PROMPTS, seed=0, purpose="t", temperature=0).response_tokens
    assert [t.tolist() for t in changed] == [t.tolist() for t in greedy]


def test_sampling_follows_an_update(policy: LanguageModelPolicy) -> None:
    before = policy.sample(PROMPTS, seed=0, purpose="t", temperature=0)
    with torch.no_grad():
        for p in policy.parameters():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(1)) * 0.5)
    after = policy.sample(PROMPTS, seed=0, purpose="t")
    chosen, mask = policy.log_probabilities(after)
    wanted = torch.from_numpy(np.concatenate(after.log_probabilities))
    torch.testing.assert_close(chosen[mask].detach(), wanted, atol=1e-4, rtol=1e-3)
    assert before.outputs != policy.sample(PROMPTS, seed=0, purpose="t", temperature=0).outputs


def test_reduced_precision_is_close() -> None:
    exact, quick = make_policy(), make_policy(compute_dtype="bfloat16")
    samples = quick.sample(PROMPTS * 5, seed=0, purpose="t")
    chosen, mask = quick.log_probabilities(samples)
    assert chosen.dtype == torch.float32 and next(quick.parameters()).dtype == torch.float32
    sampled = torch.from_numpy(np.concatenate(samples.log_probabilities))
    assert float((chosen[mask].detach() - sampled).abs().mean()) < 0.05
    assert float((exact.log_probabilities(samples)[0] - chosen).detach()[mask].abs().mean()) < 0.05


@pytest.mark.parametrize("chat", [False, True])
def test_save_and_load(chat: bool, tmp_path: Path) -> None:
    policy = make_policy(chat=chat, forbidden_tokens=[4], extra_eos=["w3"], train_layers=1, max_new_tokens=5)
    policy.save(tmp_path / "p")
    assert {"config.json", "model.safetensors", "farm_policy.json", "tokenizer.json"} <= {
        p.name for p in (tmp_path / "p").iterdir()
    }
    again = load(tmp_path / "p")
    assert isinstance(again, LanguageModelPolicy) and isinstance(again, Policy)
    assert again.settings == policy.settings
    a, b = (x.sample(PROMPTS * 4, seed=0, purpose="t") for x in (policy, again))
    assert [t.tolist() for t in a.response_tokens] == [t.tolist() for t in b.response_tokens]
    assert torch.equal(policy.log_probabilities(a)[0], again.log_probabilities(a)[0])
    (tmp_path / "p" / "model.safetensors").unlink()
    with pytest.raises(UserError, match="no causal language model in safetensors"):
        load(tmp_path / "p")


def test_wrong_settings_are_refused() -> None:
    for wrong in (
        {"top_p": 0.0},
        {"top_k": 0},
        {"max_new_tokens": 0},
        {"compute_dtype": "int4"},
        {"extra_eos": ["zz"]},
    ):
        with pytest.raises(ValueError):
            make_policy(**wrong)
    with pytest.raises(ValueError, match="cannot be forbidden"):
        make_policy(forbidden_tokens=[2])
    with pytest.raises(ValueError, match="positive temperature"):
        make_policy().log_probabilities(make_policy().encode(["w1"], ["w2"]), temperature=0)
