"""What only CUDA shows: where the program waits for it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch

from farm.hardware import memory
from tests.gpu.conftest import policy_on, waits_a_micro_batch
from tests.gpu.test_device import METHODS
from tests.training.conftest import everything

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA, and torch finds none here"),
]


def waits(compute: Callable[[], Any]) -> list[str]:
    """Torch's own words wherever the program waited for the device, a line of code each."""
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            compute()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return [f"{w.filename}:{w.lineno}" for w in seen if "synchroniz" in str(w.message)]


@pytest.mark.parametrize("name", METHODS)
def test_a_micro_batch_makes_nothing_wait(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = everything(policy_on(torch.device("cuda"), compute_dtype="bfloat16"))
    METHODS[name].train(given)  # what is made once is made
    added = waits_a_micro_batch(METHODS[name], given, waits, monkeypatch)
    assert not [line for line in added if "/transformers/" not in line]  # which looks for packed sequences in each pass


def test_sampling_waits_every_eighth_token() -> None:
    policy = policy_on(torch.device("cuda"), max_new_tokens=40)
    prompts = [f"w{i % 40} w{i % 7}" for i in range(64)]
    policy.sample(prompts, seed=0, purpose="warm up")
    short, long = (
        len(waits(lambda n=n: policy.sample(prompts, seed=0, purpose="t", max_new_tokens=n)))  # type: ignore[misc]
        for n in (8, 40)
    )
    assert (long - short) / 32 < 1  # today, of rows that end: some waits each time it is asked who has


def test_free_memory_is_what_torch_could_still_take() -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    before = memory.free(device)
    assert before is not None
    held = torch.empty(2**28, dtype=torch.uint8, device=device)
    during = memory.free(device)
    del held
    after = memory.free(device)
    assert during is not None and after is not None
    assert before - during >= 2**28 - 2**24 and after >= before - 2**24
