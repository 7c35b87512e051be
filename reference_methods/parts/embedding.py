"""Numbers for a response: the mean last hidden state of its tokens, or in a table how often it has each action."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from farm.policies.batches import onto, prompt_lengths
from farm.policies.tabular import TabularPolicy
from farm.roles.protocols import Policy, Samples
from reference_methods.parts.batches import in_parts


def embedded(policy: Policy, samples: Samples, micro_batch_tokens: int) -> NDArray[np.float64]:
    """[n, d] of the samples, without gradient, from the body of the policy itself."""
    if isinstance(policy, TabularPolicy):
        actions = [np.bincount(row, minlength=len(policy.responses)) for row in samples.response_tokens]
        return np.array(actions, dtype=np.float64).reshape(len(samples), len(policy.responses))
    with torch.no_grad():
        found = in_parts(partial(mean_state, policy), samples, micro_batch_tokens)
    return np.asarray(found.double().cpu().numpy())


def mean_state(policy: Any, samples: Samples) -> torch.Tensor:
    """The mean of the hidden states at a response's tokens, [B, d]; of one without any, at the prompt's last."""
    prompts, lengths = prompt_lengths(samples), samples.lengths()
    counts = np.maximum(lengths, 1)
    states = policy.body.hidden(samples, np.where(lengths > 0, prompts, prompts - 1), counts).float()
    rows = onto(np.repeat(np.arange(len(counts)), counts), states.device)
    total = states.new_zeros(len(counts), states.shape[1]).index_add(0, rows, states)
    return total / onto(counts, states.device)[:, None]
