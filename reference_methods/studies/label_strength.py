"""Does an ensemble of reward models tell which labels are wrong, and what is to be done with them?

    texts     pairs of responses of the pocket world's writers to one request
    labels    Bradley-Terry of the gold utility, a share of them flipped
    ensemble  M Bradley-Terry models, linear in the terms of the utility, each fitted to a bootstrap sample of the pairs
    mu        mean over them of x . v in favour of the preferred text: the strength of the label
    raw, flip, margin, flip+margin, soft+margin    one model fitted to what is made of the labels (models/
              denoised_reward_model.py has the formulas)

The class of models is right. Then a margin changes nothing: with m = x . v the loss sigma(x . w - x . v) is that of
w - v, so that the fit is w = v + the plain fit, which orders as that does.

Paper: Secrets of RLHF II (Wang et al., arXiv 2401.06080). Linear models in place of networks; bootstrap samples in
place of seeds, for a convex loss has one optimum whatever the seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from farm.base import rng
from farm.base.arrays import Bools, Floats
from farm.base.bounds import Bounded, Count, ErrorRate, Positive, Several, Share
from farm.worlds.pocket import grammar
from reference_methods.parts.label_weights import flipped, softened
from reference_methods.studies.parts import agrees, auroc, drawn_labels, fit
from reference_methods.studies.pocket_texts import PocketTexts, Scale


@dataclass(frozen=True)
class LabelStrength(Bounded):
    """Tables ``accuracy`` (``right``: share of fresh pairs in the order of the gold utility) and ``detection``
    (``auroc`` of flipped labels, ``precision``: the share of them among the lowest strengths, and ``strongest``: that
    among as many of the highest)."""

    flips: ErrorRate = 0.25
    pairs: Count = 1000
    members: Several = 5
    """M"""
    share: Share = 0.1
    """of the pairs, that is turned round"""
    temperature: Positive = 0.8
    """of the labels, in units of utility"""
    ridge: Positive = 1.0
    held_out: Count = 4000

    def tables(self, seed: int) -> dict[str, pd.DataFrame]:
        x, difference = self.compared(self.pairs + self.held_out, seed)
        draws = rng.generator(seed, "label strength/labels")
        signs, wrong = drawn_labels(difference[: self.pairs] / self.temperature, self.flips, draws)
        seen, fresh, label = x[: self.pairs], x[self.pairs :], (signs + 1) / 2
        samples = draws.integers(0, self.pairs, (self.members, self.pairs))
        members = [self.fitted(seen[rows], label[rows]) for rows in samples]
        mean = np.mean(members, axis=0)
        mu = signs * (seen @ mean)
        turned, soft = flipped(label, mu, self.share), softened(label, mu)
        remedies = {
            "raw": self.fitted(seen, label),
            "flip": self.fitted(seen, turned),
            "margin": self.fitted(seen, label, mean),
            "flip+margin": self.fitted(seen, turned, mean),
            "soft+margin": self.fitted(seen, soft, mean),
        }
        accuracy = [
            {"method": name, "right": float(agrees(fresh @ model, difference[self.pairs :]).mean())}
            for name, model in remedies.items()
        ]
        strengths = {"ensemble": mu, "member": signs * (seen @ members[0])}
        found = self.detected(strengths, wrong) if self.flips else []
        table = pd.DataFrame(found, columns=["method", "auroc", "precision", "strongest"])
        return {"accuracy": pd.DataFrame(accuracy), "detection": table}

    def compared(self, n: int, seed: int) -> tuple[Floats, Floats]:
        """n pairs: the differences of their terms, [n, d], and of their utility, [n]."""
        everything = grammar.all_requests()
        rows = rng.generator(seed, "label strength/requests").integers(0, len(everything), n)
        first, second = (PocketTexts.to(everything.take(rows), seed, f"label strength/{k}") for k in (1, 2))
        scale = Scale.of(first)
        return scale(first) - scale(second), first.utility() - second.utility()

    def fitted(self, x: Floats, label: Floats, margin: Floats | float = 0.0) -> Floats:
        """The model of labels p of the first, which may be soft, with x . margin for a margin, [d]."""
        both, signs = np.concatenate([x, x]), np.repeat([1.0, -1.0], len(x))
        weights, start = np.concatenate([label, 1 - label]), np.zeros(x.shape[1]) + margin
        return fit(both, signs, weights, self.ridge, lead=both @ start, start=start)

    def detected(self, strengths: Mapping[str, Floats], wrong: Bools) -> list[dict[str, float | str]]:
        """A row for each way to tell the strength of a label, and for chance."""
        number = round(self.share * len(wrong))
        rows = list[dict[str, float | str]]()
        for name, s in strengths.items():
            weak, strong = (float(wrong[np.argsort(sign * s)[:number]].mean()) for sign in (1, -1))
            rows.append({"method": name, "auroc": auroc(-s, wrong), "precision": weak, "strongest": strong})
        share = float(wrong.mean())
        return [*rows, {"method": "chance", "auroc": 0.5, "precision": share, "strongest": share}]
