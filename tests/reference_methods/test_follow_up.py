"""Follow-ups as a reward: what a score is, where it is read, and that it depends on nothing else."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from farm.base.errors import UserError
from farm.policies import load
from farm.policies.language_model import LanguageModelPolicy
from farm.roles.protocols import Learning, Policy, Samples, Scorer
from reference_methods.models.follow_up import FollowUp, FollowUpScorer, score, turn_begins
from reference_methods.studies.follow_ups import FollowUpJudges, in_pairs
from reference_methods.studies.parts import agrees
from tests.policies.conftest import PROMPTS, make_policy
from tests.reference_methods.tables import learning, policy_of

WORDS = {
    "one": {"positive": ["w3 w4"], "negative": ["w5"]},
    "two": {"positive": ["w6"], "negative": ["w7 w8 w9"], "neutral": ["w3"]},
}
SINGLE = {"one": {"positive": ["w3"], "negative": ["w5"]}}


@pytest.fixture(scope="module")
def start() -> LanguageModelPolicy:
    found = make_policy()
    assert isinstance(found, LanguageModelPolicy)
    return found


@pytest.fixture(scope="module")
def samples(start: Policy) -> Samples:
    return start.sample(PROMPTS * 2, seed=3, purpose="follow-ups")


def test_a_bounded_score_is_a_difference_of_shares_and_the_other_one_of_means() -> None:
    found = torch.tensor([[math.log(3), 0.0, 0.0], [0.0, 0.0, math.log(2)]], dtype=torch.float64)
    sides = [["positive", "negative", "neutral"]]
    assert score(found, sides, bounded=True).tolist() == pytest.approx([3 / 5 - 1 / 5, 0.0])
    assert score(found, sides, bounded=False).tolist() == pytest.approx([math.log(3), 0.0])
    twice = torch.cat([found, found.flip(1)], dim=1)
    pair = [*sides, ["neutral", "negative", "positive"]]  # the same category once more
    assert torch.allclose(score(twice, pair, bounded=True), score(found, sides, bounded=True))


def test_with_the_law_of_the_user_scores_are_the_order_of_utilities_and_phrases_average_noise() -> None:
    """[num] log-odds a + b u of a pleased follow-up: so is the difference; 16 phrases, a quarter of the noise."""
    draws = np.random.default_rng(0)
    u = torch.from_numpy(np.sort(draws.normal(size=4000)))
    odds = 0.5 + 2.0 * u
    exact = torch.stack([torch.nn.functional.logsigmoid(odds), torch.nn.functional.logsigmoid(-odds)], dim=1)
    for bounded in (True, False):
        assert bool((score(exact, [["positive", "negative"]], bounded).diff() > 0).all())
    assert torch.allclose(score(exact, [["positive", "negative"]], False), odds)
    noise = {}
    for phrases in (1, 16):
        many = exact.repeat_interleave(phrases, dim=1)
        many = many + torch.from_numpy(draws.normal(size=many.shape))
        found = score(many, [["positive"] * phrases + ["negative"] * phrases], False)
        noise[phrases] = float((found - odds).std())
    assert noise[1] / noise[16] == pytest.approx(4.0, rel=0.05)


def test_follow_ups_are_read_where_the_users_turn_begins(start: LanguageModelPolicy, samples: Samples) -> None:
    """By hand: the mean log-probability of the tokens of a phrase behind prompt, response and end."""
    scorer = FollowUpScorer(start, WORDS, bounded=False)
    with torch.no_grad():
        found = scorer.log_likelihoods(samples)
    assert found.shape == (len(samples), 5)
    begins = start.tokenizer(turn_begins(start), add_special_tokens=False).input_ids
    for row in (0, 5):
        text = [*samples.prompt_tokens[row], *samples.response_tokens[row]]
        text += [] if text[-1] in start.conversation.ends else [start.conversation.eos]
        for column, phrase in ((0, "w3 w4"), (3, "w7 w8 w9")):
            said = start.tokenizer(phrase, add_special_tokens=False).input_ids
            ids = torch.tensor([[*text, *begins, *said]])
            with torch.no_grad():
                law = start.model(input_ids=ids).logits[0].log_softmax(-1)
            place = range(ids.shape[1] - len(said), ids.shape[1])
            by_hand = np.mean([float(law[t - 1, ids[0, t]]) for t in place])
            assert float(found[row, column]) == pytest.approx(by_hand, abs=1e-4)


@pytest.mark.parametrize("follow_ups", [WORDS, SINGLE])
def test_a_score_depends_neither_on_its_neighbours_nor_on_the_order(
    start: LanguageModelPolicy, samples: Samples, follow_ups: dict[str, dict[str, list[str]]]
) -> None:
    scorer = FollowUpScorer(start, follow_ups, bounded=True)
    with torch.no_grad():
        whole = scorer.scores(samples)
        alone = torch.cat([scorer.scores(samples.select([row])) for row in reversed(range(len(samples)))])
    assert torch.allclose(whole, alone.flip(0), atol=1e-5)
    assert float(whole.abs().max()) <= 1


def test_it_is_a_scorer_that_is_kept_and_standardised(
    start: LanguageModelPolicy, samples: Samples, tmp_path: Path
) -> None:
    given = Learning(seed=1, policy=start, prompts=pd.DataFrame({"instruction": PROMPTS}))
    found = FollowUp(follow_ups=WORDS, calibration_samples=200).train(given)
    assert isinstance(found, Scorer)
    found.save(tmp_path / "kept")
    again = load(tmp_path / "kept")
    assert isinstance(again, FollowUpScorer)
    with torch.no_grad():
        scores = found.scores(start.sample(PROMPTS * 30, seed=9, purpose="other"))
        assert torch.allclose(again.scores(samples), found.scores(samples))
    assert float(scores.mean()) == pytest.approx(0, abs=0.3) and float(scores.std()) == pytest.approx(1, abs=0.3)
    value = found.copy(zero_head=True)
    assert not value.values(samples).detach().any()


def test_what_cannot_be_read_is_refused() -> None:
    with pytest.raises(UserError, match="language models"):
        FollowUp().train(learning(policy_of([0.5, 0.5])))
    with pytest.raises(ValueError, match="needs `positive` and `negative`"):
        FollowUp(follow_ups={"one": {"positive": ["yes"]}})


def test_fewer_training_requests_than_labels_are_refused(start: LanguageModelPolicy) -> None:
    class Three:
        def instructions(self, split: str, limit: int) -> pd.DataFrame:
            return pd.DataFrame({"instruction": PROMPTS[:3]})[:limit]

    with pytest.raises(UserError, match="2,000 `labels` need as many training requests, and there are 3"):
        FollowUpJudges().fitted(Three(), start, 1)  # type: ignore[arg-type]


def test_pairs_agree_where_the_differences_have_one_sign() -> None:
    assert in_pairs(np.array([3.0, 1.0, 2.0, 2.0, 0.0, 5.0])).tolist() == [2.0, 0.0, -5.0]
    assert agrees(np.array([2.0, 1.0, 0.0]), np.array([1.0, -3.0, 1.0])).tolist() == [1.0, 0.0, 0.5]


def test_a_chat_template_says_where_the_user_begins(start: LanguageModelPolicy) -> None:
    class Talk:
        chat, template = True, ""

    class Tokenizer:
        eos_token, bos_token = "<end>", None

        def apply_chat_template(self, turns: list[dict[str, str]], tokenize: bool) -> str:
            assert not tokenize
            return "".join(f"<{turn['role']}>{turn['content']}<end>" for turn in turns)

    class Double:
        conversation, tokenizer = Talk(), Tokenizer()

    assert turn_begins(Double()) == "<user>"  # type: ignore[arg-type]
    assert turn_begins(start) == start.conversation.template.partition("{prompt}")[0]


def test_the_end_is_put_behind_a_response_that_was_cut(start: LanguageModelPolicy, samples: Samples) -> None:
    scorer = FollowUpScorer(start, SINGLE, bounded=True)
    ended = next(row for row, tokens in enumerate(samples.response_tokens) if tokens[-1] in start.conversation.ends)
    one = samples.select([ended])
    cut = replace(one, response_tokens=[one.response_tokens[0][:-1]], finish_reason=["length"])
    with torch.no_grad():
        assert torch.equal(scorer.scores(one), scorer.scores(cut))
