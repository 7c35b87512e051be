"""Alarms while a method trains: they read the metrics of each step, warn, and stop a training that cannot recover.

    not finite        a metric that is NaN or infinite stops the training; a warning where it is only a diagnostic
    KL                above 50 nats a response a warning; above 500 it stops; likewise a method that learns from pairs
                      where the preferred responses have become so many nats less likely than under the SFT policy
    no ending         every response of a step met the length limit: a warning (short limits may be meant)
    equal groups      every group of a step had equal rewards, so nothing was learnt: a warning; ten in a row stop it

The drift between sampler and trainer has an alarm of its own (``reference_methods.parts.sampler``), and so has a loss
that is not finite (``reference_methods.parts.optimization``), which is not even applied.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field

from farm.base.errors import Alarm, UserError

KL_WARNS, KL_STOPS = 50.0, 500.0
"""nats a response"""
PATIENCE = 10
"""steps in a row in which nothing could be learnt before the training is stopped"""
_MUST_BE_FINITE = {"loss", "reward", "kl", "gradient_norm"}
_NOTHING_LEARNT = {
    "truncated_share": "every response met the length limit before it ended; raise max_new_tokens, or look at whether "
    "the SFT policy ends its answers",
    "equal_groups": "the rewards of every group were equal, so there was nothing to learn; look at the reward model, "
    "or raise the temperature or samples_per_prompt",
}


@dataclass
class Alarms:
    """Watches one training. Each kind of warning is given once."""

    name: str
    _given: set[str] = field(default_factory=set)
    _in_a_row: dict[str, int] = field(default_factory=dict)

    def __call__(self, metrics: dict[str, float]) -> None:
        """Look at the metrics of a step.

        Raises:
            UserError: the training cannot recover.
        """
        step = metrics.get("step", 0)
        for metric, value in metrics.items():
            if not math.isfinite(value):
                if metric in _MUST_BE_FINITE:
                    raise UserError(f"{self.name}: {metric} is {value} at step {step:g}; lower the learning rate")
                self._warn(metric, f"{metric} is {value} at step {step:g}")
        divergence = metrics.get("kl", 0.0)
        if divergence > KL_STOPS:
            raise UserError(
                f"{self.name}: the KL to the SFT policy is {divergence:.0f} nats at step {step:g}; the training "
                "diverges: raise beta or lower the learning rate"
            )
        if divergence > KL_WARNS:
            self._warn(
                "kl", f"the KL to the SFT policy is {divergence:.0f} nats at step {step:g}; beta may be too small"
            )
        lost = -metrics.get("chosen_log_ratio", 0.0)
        if lost > KL_STOPS:
            raise UserError(
                f"{self.name}: at step {step:g} the preferred responses have become {lost:.0f} nats less likely than "
                "under the SFT policy; the training diverges: raise beta or lower the learning rate"
            )
        if lost > KL_WARNS:
            self._warn(
                "chosen_log_ratio",
                f"at step {step:g} the preferred responses have become {lost:.0f} nats less likely than under the SFT "
                "policy; the learning rate may be too large",
            )
        for metric, said in _NOTHING_LEARNT.items():
            if metric in metrics:
                self._count(metric, metrics[metric] >= 1, said, step)

    def _count(self, metric: str, nothing: bool, said: str, step: float) -> None:
        row = self._in_a_row[metric] = self._in_a_row.get(metric, 0) + 1 if nothing else 0
        if row >= PATIENCE and metric != "truncated_share":
            raise UserError(f"{self.name}: in {row} steps up to step {step:g} {said}")
        if nothing:
            self._warn(metric, f"at step {step:g} {said}")

    def _warn(self, kind: str, said: str) -> None:
        if kind not in self._given:
            self._given.add(kind)
            warnings.warn(f"{self.name}: {said}", Alarm, stacklevel=3)
