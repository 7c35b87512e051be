"""A policy conditioned on a control text before every prompt, which is hidden from judges and scorers.

Reward conditioning and Quark write a verdict before the prompt, train on what follows, and then ask for the best. The
control text is a special token of the tokenizer, or words. What such a policy writes belongs to the plain prompt: its
samples carry the prompt's tokens without the control text, so that judges, reward models and the reference of a KL see
the plain prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch

from farm.policies import load, read_descriptor, write_descriptor
from farm.roles.protocols import Draws, Policy, Samples, Scorer
from farm.tables.turns import Prompt, prefixed


class ConditionedPolicy:
    """``policy`` with ``control`` before every prompt."""

    def __init__(self, policy: Policy, control: str) -> None:
        self.policy, self.control = policy, control

    def sample(
        self,
        prompts: Sequence[Prompt],
        *,
        seed: int,
        purpose: str,
        temperature: float = 1.0,
        max_new_tokens: int | None = None,
        progress: Callable[[int], None] | None = None,
        draws: Draws | None = None,
    ) -> Samples:
        samples = self.policy.sample(
            [prefixed(self.control, prompt) for prompt in prompts],
            seed=seed,
            purpose=purpose,
            temperature=temperature,
            max_new_tokens=max_new_tokens,
            progress=progress,
            draws=draws,
        )
        return with_prompts(self.policy, samples, list(prompts))

    def log_probabilities(self, samples: Samples, temperature: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
        return self.policy.log_probabilities(self._controlled(samples), temperature)

    def distributions(self, samples: Samples, temperature: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
        return self.policy.distributions(self._controlled(samples), temperature)

    def _controlled(self, samples: Samples) -> Samples:
        return with_prompts(self.policy, samples, [prefixed(self.control, prompt) for prompt in samples.prompts])

    def encode(self, prompts: Sequence[Prompt], outputs: Sequence[str]) -> Samples:
        return self.policy.encode(prompts, outputs)

    def scorer(self, seed: int) -> Scorer:
        return self.policy.scorer(seed)

    def copy(self) -> ConditionedPolicy:
        return ConditionedPolicy(self.policy.copy(), self.control)

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        return self.policy.parameters()

    def save(self, folder: Path) -> None:
        write_descriptor(folder, ConditionedPolicy, {"control": self.control})
        self.policy.save(folder / "policy")

    @classmethod
    def load(cls, folder: Path) -> ConditionedPolicy:
        return cls(cast(Policy, load(folder / "policy")), read_descriptor(folder)["control"])


def controllable(policy: Policy, controls: Sequence[str]) -> Policy:
    """A copy of ``policy`` that takes these texts at the start of a prompt for what they are."""
    with_settings = getattr(policy, "with_settings", None)  # a table has no tokenizer and takes texts as they are
    return policy.copy() if with_settings is None else cast(Policy, with_settings(control_texts=list(controls)))


def with_prompts(policy: Policy, samples: Samples, prompts: list[Prompt]) -> Samples:
    """The same responses, token by token, to other prompts."""
    distinct = dict(zip(prompts, samples.outputs, strict=True))  # the output only has to be one that the policy knows
    asked = policy.encode(list(distinct), list(distinct.values()))
    tokens = dict(zip(distinct, asked.prompt_tokens, strict=True))
    return replace(samples, prompts=prompts, prompt_tokens=[tokens[prompt] for prompt in prompts])
