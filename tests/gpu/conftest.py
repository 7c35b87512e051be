"""The devices that the tests of this folder run on."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from farm.policies.language_model import LanguageModelPolicy
from farm.roles.protocols import Learning, Samples
from reference_methods.parts import trainer
from tests.policies.conftest import PROMPTS, small_model, word_tokenizer
from tests.pretend_accelerator import accelerator  # noqa: F401 (a fixture)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs CUDA, and torch finds none here")
    return torch.device(request.param)


def policy_on(device: torch.device, **settings: Any) -> LanguageModelPolicy:
    """The tests' small model there; in 32 bits unless ``compute_dtype`` says otherwise."""
    given = {"template": "{prompt}", "max_new_tokens": 12, "compute_dtype": "float32", **settings}
    return LanguageModelPolicy(small_model().to(device), word_tokenizer(), **given)


def waits_a_micro_batch(
    method: Any, given: Learning, waits: Callable[[Callable[[], Any]], list[str]], monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """Where a training waits more often if it is cut into more micro-batches.

    ``waits`` runs something and names the line of each wait.
    """
    found, passes, real = [], [0], trainer.accumulate

    def counted(loss: Any, *rest: Any) -> Any:
        def once_more(rows: Any) -> Any:
            passes[0] += 1
            return loss(rows)

        return real(once_more, *rest)

    monkeypatch.setattr(trainer, "accumulate", counted)
    for tokens in (32768, 60):
        passes[0], cut = 0, replace(method, micro_batch_tokens=tokens)
        found.append((waits(lambda m=cut: m.train(given)), passes[0]))  # type: ignore[misc]
    (few, passes_few), (many, passes_many) = found
    assert passes_many > passes_few
    return sorted({line for line in many if many.count(line) > few.count(line)})


def sampled_on_processor() -> Samples:
    """The same on every device."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return policy_on(torch.device("cpu")).sample(PROMPTS * 3, seed=0, purpose="test")
