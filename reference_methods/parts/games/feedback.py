"""Who decides a duel: P(y > y' | x) of pairs of samples, from an annotator's verdicts or from a preference model.

Whatever can compare two responses is a :class:`~farm.roles.protocols.PreferenceModel`: a reward model (through
Bradley-Terry), a pairwise model, a general preference model, a judge. Duels of a batch cost one query each, whoever
answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from farm.policies import load, read_descriptor, write_descriptor
from farm.roles.protocols import Learning, PreferenceModel, Samples, Scorer
from farm.tables import turns
from reference_methods.parts.batches import total_lengths


@dataclass(frozen=True)
class RewardPreference:
    """A reward model as a preference model: sigma((r(y) - r(y')) / temperature), transitive by construction."""

    scorer: Scorer
    temperature: float = 1.0

    def logits(self, first: Samples, second: Samples) -> Tensor:
        scores = self.scorer.scores(Samples.concatenate([first, second]))
        return (scores[: len(first)] - scores[len(first) :]) / self.temperature

    def save(self, folder: Path) -> None:
        write_descriptor(folder, RewardPreference, {"temperature": self.temperature})
        self.scorer.save(folder / "scorer")

    @classmethod
    def load(cls, folder: Path) -> RewardPreference:
        scorer = load(folder / "scorer")
        assert isinstance(scorer, Scorer)
        return cls(scorer, read_descriptor(folder)["temperature"])


@dataclass
class ModelFeedback:
    """Duels decided by a preference model: soft labels."""

    model: PreferenceModel
    micro_batch_tokens: int = 4096
    score: bool = False
    """whether to return the logit instead of the probability (general preference optimisation)"""
    queries: int = 0

    def __call__(self, first: Samples, second: Samples) -> NDArray[np.float64]:
        self.queries += len(first)
        longest = max(int(total_lengths(side).max()) for side in (first, second))
        size = max(1, self.micro_batch_tokens // max(1, 2 * longest))
        found = []
        with torch.no_grad():
            for start in range(0, len(first), size):
                rows = range(start, min(start + size, len(first)))
                found.append(self.model.logits(first.select(rows), second.select(rows)).double().cpu())
        logits = torch.cat(found)
        return np.asarray((logits if self.score else torch.sigmoid(logits)).numpy())

    def state_dict(self) -> dict[str, Tensor]:
        """What it remembers, for a checkpoint."""
        return {"counts": torch.tensor([self.queries])}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.queries = int(state["counts"])


@dataclass(frozen=True)
class AskedFeedback:
    """Duels decided by who gives pairs: 1, 0, a tie 1/2, and NaN where no verdict came (never a silent tie)."""

    learning: Learning
    purpose: str = "learning"
    """for which it is counted how often a pair was asked"""
    soft: bool = False
    """whether to take the annotator's own probability where it gives one, instead of its verdict"""

    def __call__(self, first: Samples, second: Samples) -> NDArray[np.float64]:
        pairs = pd.DataFrame(
            {
                **turns.columns(first.prompts),
                "output_1": first.outputs,
                "output_2": second.outputs,
                "generator_1": "policy",
                "generator_2": "policy",
            }
        )
        table = self.learning.ask("pairs", pairs, purpose=self.purpose)
        verdict = 2 - pd.to_numeric(table["preference"]).to_numpy(dtype=np.float64)
        if self.soft and "p_first" in table.columns:
            p_first = pd.to_numeric(table["p_first"]).to_numpy(dtype=np.float64)
            verdict = np.where(np.isnan(p_first), verdict, p_first)
        return np.where(table["status"].to_numpy() == "ok", verdict, np.nan)

    @property
    def queries(self) -> int:
        return self.learning.asked["pairs"].queries(self.purpose)

    @property
    def unanswered(self) -> int:
        return self.learning.asked["pairs"].unanswered(self.purpose)


Feedback = ModelFeedback | AskedFeedback
