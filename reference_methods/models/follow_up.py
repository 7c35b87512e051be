"""Follow-up likelihood as reward: a response is good if a pleased user is likelier to go on than a displeased one.

    l(f)     = log p(f | x, y) per token of the follow-up f, under the policy itself, read where the user's turn begins
    r(x, y)  = mean over categories of [mean of l over positive follow-ups - mean of l over negative ones]
    bounded:   mean over categories of [share of the positive ones - share of the negative ones],
               share = softmax of l over the category's follow-ups, the neutral ones among them

Nothing is fitted and no label is asked: it is a reward model of what the policy knows about conversations. Used as one:
``reward_model: follow_up``. Differences of log-likelihoods have no bound, so that one unlikely phrase can rule a score;
shares have (default). In the pocket world the follow-ups are verdict tokens (configs/presets/pocket.yaml).

Paper: FLR (Zhang et al., arXiv 2409.13948): six categories of ten positive and ten negative phrases, the mean
difference; DPO on the best and worst of 8 samples. Deviations: two phrases each way in a category, in words of our own;
shares by default. The paper's code takes raw logits at one position, where here each token is read at its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from farm.base.bounds import Bounded, Count, Natural
from farm.base.errors import UserError
from farm.policies import load, read_descriptor, write_descriptor
from farm.policies.batches import response_ids, response_mask, unflatten
from farm.policies.language_model import LanguageModelPolicy
from farm.policies.tabular import calibrated
from farm.roles.protocols import Learning, Samples, Scorer
from reference_methods.parts.calibration import standardise

FollowUps = Mapping[str, Mapping[str, Sequence[str]]]
SIDES = ("positive", "negative", "neutral")
PHRASES: FollowUps = {
    "understanding": {
        "positive": ["You understood me perfectly.", "Yes, that is what I meant."],
        "negative": ["That is not what I meant.", "You misunderstood me."],
    },
    "relevance": {
        "positive": ["That is exactly on point.", "This answers my question."],
        "negative": ["What has that to do with my question?", "You are off the topic."],
    },
    "correctness": {
        "positive": ["I checked it, and it is right.", "That is correct."],
        "negative": ["That is wrong.", "There is a mistake in it."],
    },
    "interest": {
        "positive": ["How interesting, tell me more!", "I enjoyed reading this."],
        "negative": ["This is boring.", "I do not want to read on."],
    },
    "information": {
        "positive": ["I learned a lot, thank you.", "That is all I needed to know."],
        "negative": ["That tells me nothing.", "Can you be more specific?"],
    },
    "instructions": {
        "positive": ["You did what I asked for.", "Thanks, that is the form I wanted."],
        "negative": ["You did not do what I asked for.", "I asked for something else."],
    },
}
"""What a user may say next, by what it is about"""


@dataclass(frozen=True, kw_only=True)
class FollowUp(Bounded):
    """Puts the SFT policy's own expectation of what the user says next in the place of a reward model."""

    needs: ClassVar[frozenset[str]] = frozenset()

    follow_ups: dict[str, dict[str, list[str]]] | None = None
    """category -> ``positive``, ``negative`` and, where there are any, ``neutral`` phrases; those above if omitted"""
    bounded: bool = True
    """whether shares of a category are compared, or log-likelihoods (the paper's)"""
    calibration_samples: Natural = 512
    """samples of the SFT policy on which the scores get mean 0 and standard deviation 1; 0 leaves them as they are"""
    micro_batch_tokens: Count | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        for category, sides in (self.follow_ups or {}).items():
            if not sides.get("positive") or not sides.get("negative") or set(sides) - set(SIDES):
                raise ValueError(
                    f"follow_ups: {category} needs `positive` and `negative` phrases, and may have `neutral`"
                )

    def train(self, learning: Learning) -> FollowUpScorer:
        if not isinstance(learning.policy, LanguageModelPolicy):
            raise UserError(f"follow_up reads language models, not a {type(learning.policy).__name__}")
        scorer = FollowUpScorer(learning.policy, self.follow_ups or PHRASES, self.bounded)
        if self.calibration_samples:
            standardise(scorer, learning, self.calibration_samples, self.micro_batch_tokens, "follow_up")
        return scorer


class FollowUpScorer:
    """The reward, from the policy's own weights."""

    def __init__(
        self, policy: LanguageModelPolicy, follow_ups: FollowUps, bounded: bool, mean: float = 0.0, scale: float = 1.0
    ) -> None:
        self.policy, self.bounded, self.mean, self.scale = policy, bounded, mean, scale
        self.follow_ups = {c: {side: list(said) for side, said in sides.items()} for c, sides in follow_ups.items()}
        self.sides = [[side for side in SIDES for _ in sides.get(side, ())] for sides in self.follow_ups.values()]
        phrases = [said for sides in self.follow_ups.values() for side in SIDES for said in sides.get(side, ())]
        self._tokens = [self._tokenised(phrase) for phrase in phrases]
        self._before = np.array(self._tokenised(turn_begins(policy)), dtype=np.int32)
        if not all(len(tokens) for tokens in self._tokens):
            raise UserError("follow_up: a follow-up without a token cannot be read: take the empty phrase away")

    @property
    def body(self) -> Any:
        """For those who ask how much of it fits into memory."""
        return self.policy.body

    def scores(self, samples: Samples) -> Tensor:
        return (score(self.log_likelihoods(samples), self.sides, self.bounded) - self.mean) / self.scale

    def log_likelihoods(self, samples: Samples) -> Tensor:
        """l of each follow-up after each response, [B, F] with gradient, in the order of categories and sides."""
        ends, end = self.policy.conversation.ends, np.array([self.policy.conversation.eos], dtype=np.int32)
        texts = [
            np.concatenate([p, y, end[: 0 if len(y) and int(y[-1]) in ends else 1], self._before])
            for p, y in zip(samples.prompt_tokens, samples.response_tokens, strict=True)
        ]
        at_once = max(map(len, self._tokens)) == 1  # then all are read in one place
        asked = self._asked(samples, texts, self._tokens[:1] if at_once else self._tokens)
        body = self.policy.body
        # Of all tokens, also those that a policy never writes: follow-ups are not its own.
        found: Tensor = body.run(lambda: body.project(body.before_head(asked))).log_softmax(-1)
        if at_once:
            return found[:, torch.tensor([tokens[0] for tokens in self._tokens], device=found.device)]
        chosen = found.gather(1, response_ids(asked, found.device)[:, None])[:, 0]
        mask = response_mask(asked.lengths(), found.device)
        return (unflatten(chosen, mask).sum(1) / mask.sum(1)).view(len(samples), -1)

    def _asked(self, samples: Samples, texts: list[Any], follow_ups: list[list[int]]) -> Samples:
        """Each follow-up as the response to each text, B F samples."""
        said = [np.array(tokens, dtype=np.int32) for _ in texts for tokens in follow_ups]
        rows = np.repeat(np.arange(len(texts)), len(follow_ups))
        return replace(samples.select(rows), prompt_tokens=[texts[row] for row in rows], response_tokens=said)

    def _tokenised(self, text: str) -> list[int]:
        return [int(t) for t in self.policy.tokenizer(text, add_special_tokens=False).input_ids]

    def values(self, samples: Samples) -> Tensor:
        raise NotImplementedError(
            "a user goes on after a whole response; a value model begins with a scorer that is fitted"
        )

    def calibrate(self, mean: float, scale: float) -> None:
        self.mean, self.scale = calibrated(self.mean, self.scale, mean, scale)

    def copy(self, zero_head: bool = False) -> Scorer:
        """Zeroed, a scalar model on the policy's body, such as a value model begins with."""
        if zero_head:
            return self.policy.scorer(0).copy(zero_head=True)
        return FollowUpScorer(self.policy.copy(), self.follow_ups, self.bounded, self.mean, self.scale)

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        return self.policy.parameters()

    def save(self, folder: Path) -> None:
        said = {"follow_ups": self.follow_ups, "bounded": self.bounded, "mean": self.mean, "scale": self.scale}
        write_descriptor(folder, FollowUpScorer, said)
        self.policy.save(folder / "policy")

    @classmethod
    def load(cls, folder: Path) -> FollowUpScorer:
        said, policy = read_descriptor(folder), load(folder / "policy")
        assert isinstance(policy, LanguageModelPolicy)
        return cls(policy, said["follow_ups"], said["bounded"], said["mean"], said["scale"])


def score(found: Tensor, sides: Sequence[Sequence[str]], bounded: bool) -> Tensor:
    """The reward of each response, [B], from the log-likelihoods of follow-ups [B, F]; ``sides`` says of each category
    which side each of its follow-ups is on."""
    categories = []
    for part, names in zip(torch.split(found, [len(names) for names in sides], dim=1), sides, strict=True):
        for_it, against = (torch.tensor([n == side for n in names], device=found.device) for side in SIDES[:2])
        if bounded:
            shares = part.softmax(1)
            categories.append(shares[:, for_it].sum(1) - shares[:, against].sum(1))
        else:
            categories.append(part[:, for_it].mean(1) - part[:, against].mean(1))
    return torch.stack(categories, 1).mean(1)


def turn_begins(policy: LanguageModelPolicy) -> str:
    """What stands between the end of a response and what the user says next, in the policy's template."""
    talk, tokenizer = policy.conversation, policy.tokenizer
    if not talk.chat:
        return talk.template.removeprefix(tokenizer.bos_token or "").partition("{prompt}")[0]
    said = [("user", "A"), ("assistant", "RESPONSE"), ("user", "FOLLOW-UP")]
    shown = str(tokenizer.apply_chat_template([{"role": r, "content": c} for r, c in said], tokenize=False))
    return shown.partition("RESPONSE")[2].partition("FOLLOW-UP")[0].removeprefix(tokenizer.eos_token)
