"""The experiment's preference model, for methods that let a model decide which sample is better.

Nothing is fitted: the experiment fits it once (its key ``preference_model``) and every method that says so shares it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from farm.base.errors import UserError
from farm.roles.protocols import Learning, PreferenceModel


@dataclass(frozen=True)
class SharedPreferenceModel:
    """Puts the experiment's preference model behind the duels."""

    needs: ClassVar[frozenset[str]] = frozenset({"preference_model"})

    def train(self, learning: Learning) -> PreferenceModel:
        if learning.preference_model is None:
            raise UserError("shared_preference: the experiment has no `preference_model`")
        return learning.preference_model
