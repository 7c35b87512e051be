"""Generative pairwise judge: a language model is asked which response is better, and the odds of its verdict are read.

    d(y, y') = log pi("A" | question with y as A and y' as B) - log pi("B" | the same)
    P(y > y') = 1/2 [sigma(d(y, y')) + 1 - sigma(d(y', y))]            both orders, so that neither place is favoured

The verdict is a probability, not the likelier word. Fitting raises the likelihood of the verdict that the annotators
gave, one order a pair, drawn for it; how much the two orders still disagree is measured by :meth:`Judge.asymmetry`.

Papers: the pairwise models of Munos et al. (arXiv 2312.00886) and RLHF workflow (arXiv 2405.07863), which put the
question in words and read a label token. Texts of responses are quoted as they are: a model that was fitted to verdicts
reads them as data, but a response may still address the judge.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from farm.base import rng
from farm.policies import load, read_descriptor, write_descriptor
from farm.roles.protocols import Learning, Policy, Samples
from farm.tables.turns import prompt_ids, transcript
from reference_methods.parts.batches import log_likelihoods
from reference_methods.parts.games.models import PreferenceFit

QUESTION = """Which response to the instruction is better?

Instruction: {instruction}

Response A: {first}

Response B: {second}

Answer with A or B."""


@dataclass(frozen=True, kw_only=True)
class GenerativePreferenceModel(PreferenceFit):
    """Fits a judge to ``preferences``, on a copy of the SFT policy."""

    question: str = QUESTION
    """a text with {instruction}, {first} and {second}"""
    verdicts: tuple[str, str] = ("A", "B")

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("{instruction}", "{first}", "{second}"):
            if field not in self.question:
                raise ValueError(f"question must contain {field}")

    def begin(self, policy: Policy, seed: int) -> Judge:
        return Judge(policy.copy(), self.question, self.verdicts, seed, fitting=True)

    def train(self, learning: Learning) -> Judge:
        model = self.begin(learning.policy, learning.seed)
        self.fit(model, learning)
        return Judge(model.policy, self.question, self.verdicts, learning.seed)


@dataclass(frozen=True)
class Judge:
    """A language model as a preference model; it need not have been fitted."""

    policy: Policy
    question: str = QUESTION
    verdicts: tuple[str, str] = ("A", "B")
    seed: int = 0
    fitting: bool = False
    """one order a pair, drawn for it, instead of both"""

    def logits(self, first: Samples, second: Samples) -> Tensor:
        """Log-odds of first over second, [B]."""
        if self.fitting:
            ids = rng.combine(prompt_ids(first.prompts), rng.text_ids(first.outputs), rng.text_ids(second.outputs))
            swap = rng.uniform(self.seed, "order of the question", ids) < 0.5
            shown = self._odds(_where(swap, second, first), _where(swap, first, second))
            return torch.where(torch.from_numpy(swap).to(shown.device), -shown, shown)
        there, back = self._odds(first, second), self._odds(second, first)
        return torch.logit((torch.sigmoid(there) + torch.sigmoid(-back)) / 2, eps=1e-6)

    def asymmetry(self, first: Samples, second: Samples) -> Tensor:
        """|P in one order - P in the other| of each pair, [B]: 0 for a judge that does not mind the order."""
        with torch.no_grad():
            return (torch.sigmoid(self._odds(first, second)) - torch.sigmoid(-self._odds(second, first))).abs()

    def _odds(self, first: Samples, second: Samples) -> Tensor:
        """log pi(first verdict) - log pi(second verdict), [B]; all questions with both answers in one pass."""
        asked = [
            _fill(self.question, transcript(prompt), a, b)
            for prompt, a, b in zip(first.prompts, first.outputs, second.outputs, strict=True)
        ]
        answers = [verdict for verdict in self.verdicts for _ in asked]
        found = log_likelihoods(self.policy, self.policy.encode(asked * 2, answers))
        return found[: len(asked)] - found[len(asked) :]

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        return self.policy.parameters()

    def save(self, folder: Path) -> None:
        settings = {"question": self.question, "verdicts": self.verdicts, "seed": self.seed}
        write_descriptor(folder, Judge, settings)
        self.policy.save(folder / "policy")

    @classmethod
    def load(cls, folder: Path) -> Judge:
        settings, policy = read_descriptor(folder), load(folder / "policy")
        assert isinstance(policy, Policy)
        return cls(policy, settings["question"], tuple(settings["verdicts"]), settings["seed"])


def _fill(question: str, instruction: str, first: str, second: str) -> str:
    """The question with its blanks filled at once, so that braces in a text are only text."""
    import re

    blanks = {"{instruction}": instruction, "{first}": first, "{second}": second}
    return re.sub(r"\{(?:instruction|first|second)\}", lambda blank: blanks[blank.group()], question)


def _where(condition: np.ndarray[tuple[int], np.dtype[np.bool_]], yes: Samples, no: Samples) -> Samples:
    """Sample by sample, one or the other."""
    n = len(yes)
    return Samples.concatenate([yes, no]).select(np.where(condition, np.arange(n), n + np.arange(n)))
