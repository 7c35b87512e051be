"""A preference model of the experiment's, for methods that let a model decide which sample is better.

Nothing is fitted: the experiment fits it once (its key ``preference_model``, or one of its ``models``) and every method
that says so shares it.
"""

from __future__ import annotations

from dataclasses import dataclass

from farm.roles.protocols import Learning, PreferenceModel


@dataclass(frozen=True)
class SharedPreferenceModel:
    """Puts the experiment's preference model behind the duels."""

    model: str = "preference_model"
    """its name"""

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({self.model})

    def train(self, learning: Learning) -> PreferenceModel:
        return learning.preference_model(self.model)
