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

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit

from farm.base import rng
from farm.base.bounds import Bounded, Count, ErrorRate, Positive, Several, Share
from farm.worlds.pocket import grammar
from reference_methods.parts.label_weights import flipped, softened
from reference_methods.studies.denoising_users import auroc, fit
from reference_methods.studies.pocket_texts import PocketTexts, Scale

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LabelStrength(Bounded):
    """Tables ``accuracy`` (``right``: share of fresh pairs in the order of the gold utility) and ``detection``
    (``auroc`` of flipped labels, and ``precision``: the share of them among the lowest strengths)."""

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
        honest = draws.random(self.pairs) < expit(difference[: self.pairs] / self.temperature)
        wrong = draws.random(self.pairs) < self.flips
        label = np.where(honest != wrong, 1.0, 0.0)
        seen, fresh, order = x[: self.pairs], x[self.pairs :], np.sign(difference[self.pairs :])
        samples = draws.integers(0, self.pairs, (self.members, self.pairs))
        members = [self.fitted(seen[rows], label[rows]) for rows in samples]
        mean = np.mean(members, axis=0)
        lead = seen @ mean
        mu = np.where(label > 0.5, lead, -lead)
        turned, soft = flipped(label, mu, self.share), softened(label, mu)
        nothing = np.zeros(len(mean))
        remedies = {
            "raw": (label, nothing),
            "flip": (turned, nothing),
            "margin": (label, mean),
            "flip+margin": (turned, mean),
            "soft+margin": (soft, mean),
        }
        accuracy = [
            {"method": name, "right": float((0.5 + 0.5 * np.sign(fresh @ self.fitted(seen, *said)) * order).mean())}
            for name, said in remedies.items()
        ]
        found = self.detected(seen, label, wrong, mu, members[0]) if self.flips else []
        table = pd.DataFrame(found, columns=["method", "auroc", "precision"])
        return {"accuracy": pd.DataFrame(accuracy), "detection": table}

    def compared(self, n: int, seed: int) -> tuple[Floats, Floats]:
        """n pairs: the differences of their terms, [n, d], and of their utility, [n]."""
        everything = grammar.all_requests()
        rows = rng.generator(seed, "label strength/requests").integers(0, len(everything), n)
        first, second = (PocketTexts.to(everything.take(rows), seed, f"label strength/{k}") for k in (1, 2))
        scale = Scale.of(first)
        return scale(first) - scale(second), first.utility() - second.utility()

    def fitted(self, x: Floats, label: Floats, margin: Floats | None = None) -> Floats:
        """The model of labels p of the first, which may be soft, with x . margin for a margin, [d]."""
        nothing = np.zeros(x.shape[1])
        start = nothing if margin is None else margin
        both, signs = np.concatenate([x, x]), np.repeat([1.0, -1.0], len(x))
        weights = np.concatenate([label, 1 - label])
        return fit(both, signs, weights, self.ridge, nothing, lead=both @ start, start=start)

    def detected(
        self, x: Floats, label: Floats, wrong: NDArray[np.bool_], mu: Floats, member: Floats
    ) -> list[dict[str, float | str]]:
        """A row for the ensemble, one of its members, and chance."""
        number = round(self.share * len(label))
        found = {"ensemble": mu, "member": np.where(label > 0.5, 1, -1) * (x @ member)}
        rows: list[dict[str, float | str]] = [
            {"method": name, "auroc": auroc(-s, wrong), "precision": float(wrong[np.argsort(s)[:number]].mean())}
            for name, s in found.items()
        ]
        return [*rows, {"method": "chance", "auroc": 0.5, "precision": float(wrong.mean())}]


def detection(flips: float, temperature: float, points: int = 200_001) -> tuple[float, float]:
    """(AUROC, precision of the lowest share ``flips``) of the true strength, for utilities N(0, 1).

    With t = the lead of the response that is *not* preferred, of density g = N(0, 2) before any label is given: of
    honest labels 2 g(t) sigma(-t / T), of flipped ones 2 g(t) sigma(t / T).
    """
    t = np.linspace(-12, 12, points)
    g = np.exp(-(t**2) / 4) / np.sqrt(4 * np.pi) * (t[1] - t[0])
    clean, turned = 2 * g * expit(-t / temperature), 2 * g * expit(t / temperature)
    area = float(turned @ (np.cumsum(clean) - clean / 2))
    above = np.cumsum(((1 - flips) * clean + flips * turned)[::-1])[::-1]
    suspect = above <= flips
    return area, float(turned[suspect].sum())
