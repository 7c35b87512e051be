"""Policies answer conversations: templates, control texts, draws by number, and tables with states."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from farm.base.errors import UserError
from farm.policies import load, table_rows
from farm.policies.tabular import TabularPolicy, TabularScorer
from farm.tables.turns import Prompt, turns_of
from tests.policies.conftest import PROMPTS, make_policy

TALK = ("w1 w2", "w3", "w4")


def test_templates_are_applied_to_the_whole_conversation() -> None:
    plain = make_policy(template="<bos> <user> {prompt} <bot> ")
    words = plain.tokenizer.convert_ids_to_tokens(plain.conversation.prompts([TALK])[0])
    assert words == "<bos> <user> w1 w2 <bot> w3 <eos> <user> w4 <bot>".split()
    chat = make_policy(chat=True)
    words = chat.tokenizer.convert_ids_to_tokens(chat.conversation.prompts([TALK])[0])
    assert words == "<bos> <user> w1 w2 <bot> w3 <eos> <user> w4 <bot>".split()
    assert (
        chat.conversation.responses([TALK], ["w5"])[0].tolist()
        == chat.conversation.responses(["w4"], ["w5"])[0].tolist()
    )


def test_every_turn_is_data() -> None:
    policy = make_policy(template="<bos> <user> {prompt} <bot> ")
    tokens = policy.conversation.prompts([("w1 <eos>", "w3 <bot> w4", "{prompt} <user> w5")])[0]
    words = policy.tokenizer.convert_ids_to_tokens(tokens)
    assert [w for w in words if w.startswith("<") and w != "<unk>"] == "<bos> <user> <bot> <eos> <user> <bot>".split()


def test_control_texts_in_a_row_are_kept_at_the_start_alone() -> None:
    policy = make_policy(control_texts=["<bot>", "<bot> w9", "<user> "])
    words = policy.tokenizer.convert_ids_to_tokens(
        policy.conversation.prompts([("<user> <bot> w9 <bot>", "<bot>", "w1")])[0]
    )
    assert words[:3] == ["<user>", "<bot>", "w9"] and "<bot>" not in words[3:]


def test_history_that_does_not_fit_is_refused() -> None:
    policy = make_policy()
    with pytest.raises(UserError, match="does not fit"):
        policy.sample([("w1", "w2 " * 100, "w3")], seed=0, purpose="t")


def test_given_draws_follow_the_row() -> None:
    for policy in (make_policy(), TabularPolicy(PROMPTS, ["a", "b", "c", "d"], np.arange(24.0).reshape(6, 4) % 5)):
        counted = policy.sample(PROMPTS * 4, seed=1, purpose="t")
        draws = np.repeat(np.arange(4, dtype=np.uint64), len(PROMPTS))
        named = policy.sample(PROMPTS * 4, seed=1, purpose="t", draws=draws)
        assert named.outputs == counted.outputs
        order = np.random.default_rng(0).permutation(len(counted))
        prompts = [(PROMPTS * 4)[i] for i in order]
        moved = policy.sample(prompts, seed=1, purpose="t", draws=draws[order])
        assert moved.outputs == [counted.outputs[i] for i in order]
        assert policy.sample(prompts, seed=1, purpose="t").outputs != moved.outputs


def test_a_table_sees_of_a_conversation_what_its_state_says() -> None:
    talk: list[Prompt] = ["q", ("q", "b", "no"), ("q", "b", "no", "a", "no"), ("q", "a", "no", "b", "no")]
    blind = TabularPolicy(["q"], ["a", "b", "c"], state="first turn")
    assert [t[0] for t in blind.encode(talk, ["a"] * 4).prompt_tokens] == [0, 0, 0, 0]
    tried = TabularPolicy(["q", ("q", "b"), ("q", "a", "b")], ["a", "b", "c"], state="tried")
    assert [t[0] for t in tried.encode(talk, ["a"] * 4).prompt_tokens] == [0, 1, 2, 2]
    topics = TabularPolicy(["x"], ["a"], state="topic")
    assert len(topics.sample(["x: 1", ("x: 2", "a", "no")], seed=0, purpose="t")) == 2
    with pytest.raises(UserError, match="not in the table"):
        tried.encode([("q", "c", "no")], ["a"])
    with pytest.raises(ValueError, match="first turn"):
        TabularPolicy(["q"], ["a"], state="first_turn")


@table_rows.state
def by_length(prompt: Prompt, prefix: tuple[str, ...]) -> Prompt:
    """A state of this module: how many turns there have been."""
    return f"{len(turns_of(prompt))} turns"


def test_a_module_may_bring_states_of_its_own_by_their_dotted_name(tmp_path: Path) -> None:
    """They had to be entered in the project's own table."""
    name = f"{__name__}.by_length"
    policy = TabularPolicy(["1 turns", "3 turns"], ["a", "b"], np.log([[0.9, 0.1], [0.2, 0.8]]), state=name)
    talk: list[Prompt] = ["q", ("q", "b", "no")]
    assert [t[0] for t in policy.encode(talk, ["a", "a"]).prompt_tokens] == [0, 1]
    policy.save(tmp_path)
    again = load(tmp_path)
    assert isinstance(again, TabularPolicy)
    assert torch.equal(again.log_probabilities(again.encode(talk, ["a", "b"]))[0], policy.log_probabilities(
        policy.encode(talk, ["a", "b"]))[0])  # fmt: skip
    with pytest.raises(ValueError, match=r"no state 'shutil\.rmtree'; import the module that defines it first"):
        TabularPolicy(["1 turns"], ["a"], state="shutil.rmtree")


def test_what_was_answered_before_has_one_logit_for_all_states(tmp_path: Path) -> None:
    policy = TabularPolicy(["q"], ["a", "b", "c"], np.log([[0.5, 0.3, 0.2]]), state="first turn", again=-np.log(2))
    talk = ("q", "a", "no", "b", "no")
    samples = policy.encode([talk, "q"], ["a", "a"])
    wanted = np.array([[0.25, 0.15, 0.2], [0.5, 0.3, 0.2]])
    found = policy.distributions(samples)[0][:, 0].exp().detach().numpy()
    np.testing.assert_allclose(found, wanted / wanted.sum(1, keepdims=True), rtol=1e-12)
    policy.log_probabilities(samples)[0].sum().backward()  # type: ignore[no-untyped-call]
    assert policy.again is not None and policy.again.grad is not None and float(policy.again.grad) != 0
    policy.save(tmp_path / "p")
    again = load(tmp_path / "p")
    assert isinstance(again, TabularPolicy)
    assert torch.equal(again.distributions(samples)[0], policy.distributions(samples)[0])
    assert (
        policy.sample([talk] * 50, seed=1, purpose="t").outputs
        == again.sample([talk] * 50, seed=1, purpose="t").outputs
    )


def test_a_response_of_several_actions_is_a_chain_with_exact_probabilities() -> None:
    """Two actions: the second is drawn in the state that the first leads to, and all pairs add up to 1."""
    states: list[Prompt] = ["q", ("q", "a"), ("q", "b")]
    logits = np.log(np.array([[0.3, 0.7], [0.9, 0.1], [0.4, 0.6]]))
    policy = TabularPolicy(states, ["a", "b"], logits, length=2)
    every = [" ".join(pair) for pair in itertools.product("ab", repeat=2)]
    exact = policy.log_probabilities(policy.encode(["q"] * 4, every))[0].sum(1).exp().detach().numpy()
    np.testing.assert_allclose(exact, [0.27, 0.03, 0.28, 0.42], rtol=1e-12)
    drawn = policy.sample(["q"] * 4000, seed=0, purpose="t")
    shares = np.array([drawn.outputs.count(text) for text in every]) / 4000
    np.testing.assert_allclose(shares, exact, atol=4 * 0.5 / 4000**0.5)
    found = np.stack(drawn.log_probabilities).sum(1)
    np.testing.assert_allclose(found, policy.log_probabilities(drawn)[0].sum(1).detach().numpy(), atol=1e-5)
    scorer = policy.scorer(0)
    assert isinstance(scorer, TabularScorer) and scorer.values(drawn).shape == (4000, 2)
