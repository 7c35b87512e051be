"""A reward model of labels that an ensemble doubts: they are turned round, softened, given a margin, or weighed down.

    mu_i  = mean over M reward models of r(preferred) - r(other)         the strength of pair i; < 0: probably wrong
    flip          the lowest share of the strengths is turned round
    margin        L = -log sigma(r(preferred) - r(other) - mu_i)         for all pairs
    flip+margin   both;   mu_i of the labels as they are then
    soft+margin   where mu_i < 0 the label is the ensemble's sigma(mu_i), and the margin for all pairs
    personal      weight softmax(-loss_i / T) within each annotator's pairs, times their number
    history       1, but for losses in the upper tail their normal density (parts/label_weights.py)

Members differ by their seeds: the draw of the head and the order of the pairs. A member that has memorised its labels
finds none wrong: one epoch. Labels as they are by the ensemble are what the final model is fitted to, those held out
among them.

Papers: Secrets of RLHF II (Wang et al., arXiv 2401.06080): M = 10, flips of the lowest 10 %; its equation 6 prints the
margin outside of the logarithm, where it would have no gradient. PLD (arXiv 2502.00348), DBPM (arXiv 2302.03357).
Deviations: M = 5; ``history`` takes the mean of the members' losses for the mean of a training's epochs; no contrastive
term, no MetaRM. In a class of models that is linear in its parameters a margin moves the fit along mu itself and
reorders nothing (reference_methods/studies/label_strength.py).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from farm.base import rng
from farm.base.arrays import Floats
from farm.base.bounds import Count, NotNegative, Positive, Several, Share
from farm.roles.protocols import Learning, Scorer
from reference_methods.models.reward_model import RewardModel
from reference_methods.parts.checkpoints import following
from reference_methods.parts.label_weights import flipped, history_weights, personal_weights, softened
from reference_methods.parts.preferences import Preferences
from reference_methods.parts.trainer import Trainer

Remedy = Literal["flip", "margin", "flip+margin", "soft+margin", "personal", "history"]


@dataclass(frozen=True, kw_only=True)
class DenoisedRewardModel(RewardModel):
    """Fits an ensemble to ``preferences``, and a reward model to what it makes of them."""

    remedy: Remedy = "flip+margin"
    members: Several = 5
    """M"""
    share: Share = 0.1
    """of the pairs, that is turned round"""
    temperature: Positive = 1.0
    """T of ``personal``"""
    tail: NotNegative = 2.0
    """of ``history``: standard deviations beyond which a loss is suspect"""
    epochs: Count = 1

    def train(self, learning: Learning) -> Scorer:
        pairs = Preferences.read(learning, self.context)
        both, found = pairs.both(np.arange(len(pairs))), Margins(self.members, len(pairs))
        lines = self.members * (1 + self.epochs * -(-len(pairs) // self.batch_size))
        with Trainer(self, learning, "denoised_reward_model", state={"margins": found}) as trainer:
            for k in trainer.steps(self.members, of=pairs.ids.tobytes(), lines=lines):
                seed = rng.torch_seed(learning.seed, f"denoised_reward_model/member {k}") % 2**31
                member = self.member().train(replace(trainer.part(f"member {k}"), seed=seed))
                first, second = trainer.compute(member.scores, both).chunk(2)
                found.table[k] = (first - second).double().cpu()
                trainer.log(doubted_share=float((strength(pairs, found.table[: k + 1].mean(0).numpy()) < 0).mean()))
        columns = self.denoised(pairs, found.table.numpy(), learning.feedback["pairs"].get("annotator"))
        table = learning.feedback["pairs"].assign(**columns)
        last = replace(learning, feedback={**learning.feedback, "pairs": table})
        return super().train(following(last, lines))

    def member(self) -> RewardModel:
        """What fits one of the ensemble: to all pairs, its scores as they are."""
        own = {field.name: getattr(self, field.name) for field in fields(RewardModel)}
        return RewardModel(**{**own, "held_out_share": 0.0, "calibration_samples": 0})

    def denoised(self, pairs: Preferences, margins: Floats, annotators: object) -> dict[str, Floats]:
        """The columns of the pairs that change, from the members' margins of the first, [M, n]."""
        label, mean = pairs.p_first.astype(np.float64), margins.mean(0)
        mu = strength(pairs, mean)
        if self.remedy in ("personal", "history"):
            loss = np.logaddexp(0, -mu)
            if self.remedy == "history":
                so_far = np.logaddexp(0, -strength(pairs, margins)).mean(0)
                return {"label_weight": history_weights(loss, so_far, self.tail)}
            whose = np.zeros(len(pairs)) if annotators is None else np.asarray(annotators)
            return {"label_weight": personal_weights(loss, whose.astype(object), self.temperature)}
        out: dict[str, Floats] = {}
        if "flip" in self.remedy:
            label = flipped(label, mu, self.share)
        if "soft" in self.remedy:
            label = softened(label, mu)
        if "margin" in self.remedy:
            out["label_margin"] = mean
        return {"preference": 2 - label, **out}


class Margins:
    """How far each member puts the first response of each pair above the second, [M, n]; a part of a checkpoint."""

    def __init__(self, members: int, pairs: int) -> None:
        self.table = torch.zeros(members, pairs, dtype=torch.float64)

    def state_dict(self) -> dict[str, Tensor]:
        return {"table": self.table}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.table.copy_(state["table"])


def strength(pairs: Preferences, margin: Floats) -> Floats:
    """mu: how far the preferred response leads, of margins of the first [n] or [M, n]; 0 of a tie."""
    return np.asarray(np.sign(pairs.p_first - 0.5) * margin)
