"""How likely each label was as the first token of an answer, from the few tokens whose log-probabilities are given.

A label that is not listed has at most the probability of the least likely token that is, and at most what all listed
tokens leave over. Log-probabilities of one token alone say nothing about the other label, and those that are not
finite, above 0 or of more than everything are no log-probabilities: then there are none, and the text is read.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

LEAST_MASS = 0.5
"""Below this probability that the answer begins with a label, the labels are no verdict: both are from the tail."""

_ROUNDING = 1e-4
"""above 0 that a logarithm may be"""
_SURPLUS = 0.01
"""by which probabilities of rounded logarithms may add up to more than 1"""


class Labels(NamedTuple):
    """What the first token of an answer says about the labels."""

    logs: dict[str, float]
    """log-probability of each label, of one that was not listed an upper bound"""
    mass: float
    """probability that the first token was a label, as far as they were listed"""

    @property
    def decide(self) -> bool:
        return self.mass >= LEAST_MASS


def of_listed(listed: Mapping[str, float], labels: Sequence[str]) -> Labels | None:
    """Labels from the listed tokens and their log-probabilities; None where those tell nothing about the labels."""
    if len(listed) < 2 or not _are_logs(listed.values()):
        return None
    found: dict[str, float] = {}
    for label in labels:  # "1" and " 1" are two tokens that say the same
        same = [p for token, p in listed.items() if token.strip() == label]
        if same:
            found[label] = min(0.0, math.log(sum(map(math.exp, same)))) if max(same) > -700 else max(same)
    if not found:
        return None
    left = 1 - sum(map(math.exp, listed.values()))
    bound = min(*listed.values(), math.log(max(left, 2.0**-24)))
    return Labels({label: found.get(label, bound) for label in labels}, _mass(found.values()))


def of_stored(logs: Mapping[str, float] | None, mass: float | None) -> Labels | None:
    """Labels of an answer that may have been stored before there were bounds and masses."""
    if logs is None or not _are_logs(logs.values()):
        return None
    return Labels(dict(logs), _mass(logs.values()) if mass is None else mass)


def _are_logs(values: Collection[float]) -> bool:
    return all(math.isfinite(p) and p <= _ROUNDING for p in values) and sum(map(math.exp, values)) <= 1 + _SURPLUS


def _mass(values: Collection[float]) -> float:
    return min(1.0, sum(map(math.exp, values)))
