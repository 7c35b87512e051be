"""A calibration in sentences, for a terminal."""

from __future__ import annotations

import math

from annotators.calibration.calibrate import ENOUGH, Calibration
from annotators.calibration.check import check_lines
from annotators.people.crowd import Group
from farm.votes.noise import SplitFit, agreement_from_flip

_LEVEL = 0.01
"""of the tests of the vote splits"""


def sentences(found: Calibration) -> str:
    """What the votes say, who the crowd is, and how well it does."""
    by = f" by {found.annotators:,} annotators" if found.annotators else ""
    others = "another vote" if found.against == 1 else f"the majority of {found.against} others"
    agreement = agreement_from_flip(found.flip, found.against)
    lines = [
        f"{found.votes:,} votes on {found.pairs:,} pair{'s' if found.pairs != 1 else ''}{by}",
        f"flip rate {found.flip:.3f}, were it constant: a vote agrees with {others} in {100 * agreement:.1f} %",
        f"difficulty: margins spread by {found.spread:.2f} logits, temperature {found.temperature:.3f}",
        *(_split(fit) for fit in (found.noise.fits if found.noise else ())),
        *_competence(found),
        _retest(found),
        f"{len(found.groups)} group{'s' if len(found.groups) > 1 else ''} of people:",
        *(_group(group) for group in found.groups),
    ]
    if len(found.check):
        lines.append("people beside the crowd, simulated on the same pairs:")
        lines += [f"  {line}" for line in check_lines(found.check)]
    return "\n".join(lines)


def _split(fit: SplitFit) -> str:
    models = {"flip": f"constant flip {fit.flip:.3f}", "difficulty": f"difficulty {fit.sigma:.2f}"}
    said = models.get(fit.model, f"difficulty {fit.sigma:.2f} and flip {fit.flip:.3f}")
    if math.isinf(fit.sigma):
        said = f"no pair is hard, flip {fit.flip:.3f}"
    verdict = f"p {fit.p_value:.2g}: {'rejected' if fit.p_value < _LEVEL else 'not rejected'} at {100 * _LEVEL:g} %"
    if fit.degrees < 1:
        verdict = "too few kinds of splits to test it"
    return (
        f"splits of {fit.votes} decisive votes ({fit.items:,} pairs): {said}: "
        f"chi2 {fit.chi_square:.1f}, {max(fit.degrees, 0)} df, {verdict}"
    )


def _competence(found: Calibration) -> list[str]:
    rated = found.competence
    if not rated["annotators_rated"]:
        return []
    low, middle, high = (rated[f"accuracy_{k}"] for k in ("10", "median", "90"))
    return [
        f"competence of {rated['annotators_rated']} annotators with {ENOUGH} votes or more (Dawid and Skene): accuracy "
        f"{low:.2f} / {middle:.2f} / {high:.2f} (10, 50, 90 %), {rated['below_chance']} below chance; "
        f"GLAD: {rated['negative_ability']} with negative ability"
    ]


def _retest(found: Calibration) -> str:
    again = found.test_retest
    if again is None:
        return "test-retest: no annotator was asked twice"
    return (
        f"test-retest: people agree with themselves in {100 * again.value:.1f} % of {again.n} repetitions; "
        f"lasting opinions of {found.opinion_spread:.2f} logits"
    )


def _group(g: Group) -> str:
    biases = f"position {g.position_bias:+.2f}, length {g.length_bias:+.2f}, list {g.list_bias:+.2f}"
    return (
        f"  {100 * g.share:5.1f} % of votes: spread {g.spread:.2f}, flip {g.flip:.3f}, tie width {g.tie_width:.2f}, "
        f"{biases}, utility {g.utility:+.2f}"
    )
