"""Scores on a scale of their own: mean 0 and standard deviation 1 on samples of the SFT policy."""

from __future__ import annotations

from typing import Literal

from farm.base.errors import UserError
from farm.roles.protocols import Learning, Scorer
from farm.tables.turns import prompts_of
from reference_methods.parts.batches import in_parts, prompt_stream, sampled, tokens_at_once


def standardise(
    scorer: Scorer, learning: Learning, samples: int, micro_batch_tokens: int | Literal["auto"], name: str
) -> None:
    """Calibrate a scorer on so many samples of the SFT policy.

    Args:
        name: of what fits the scorer: in errors, and what the samples are keyed by.

    Raises:
        UserError: there are no prompts, or all samples have one score.
    """
    if not len(learning.prompts):
        raise UserError(f"{name}: standardising the scores needs prompts: give some or set `calibration_samples: 0`")
    purpose = f"{name}/calibration"
    (prompts,) = prompt_stream(prompts_of(learning.prompts), samples, 1, learning.seed, purpose)
    written = sampled(learning.policy, prompts, seed=learning.seed, purpose=purpose)
    tokens = tokens_at_once(micro_batch_tokens, scorer, training=False)
    scores = in_parts(scorer.scores, written, tokens, together=True).double()
    mean, deviation = float(scores.mean()), float(scores.std(unbiased=False))
    if not deviation > 1e-6:
        raise UserError(
            f"{name}: every sample of the policy has the same score, so there is nothing to standardise by; "
            "train longer, or set calibration_samples to 0"
        )
    scorer.calibrate(mean, deviation)
