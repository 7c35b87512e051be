"""The devices that the tests of this folder run on."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

from farm.policies.language_model import LanguageModelPolicy
from farm.roles.protocols import Samples
from tests.policies.conftest import PROMPTS, small_model, word_tokenizer


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs CUDA, and torch finds none here")
    return torch.device(request.param)


def policy_on(device: torch.device, **settings: Any) -> LanguageModelPolicy:
    """The tests' small model there; in 32 bits unless ``compute_dtype`` says otherwise."""
    given = {"template": "{prompt}", "max_new_tokens": 12, "compute_dtype": "float32", **settings}
    return LanguageModelPolicy(small_model().to(device), word_tokenizer(), **given)


def sampled_on_processor() -> Samples:
    """The same on every device."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return policy_on(torch.device("cpu")).sample(PROMPTS * 3, seed=0, purpose="test")
