"""What only CUDA shows: where the program waits for it."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch

from farm.engines.transformers import Transformers
from farm.hardware import memory
from farm.hardware.models import tiny_llama
from farm.policies.language_model import LanguageModelPolicy
from tests.gpu.conftest import policy_on, waits_a_micro_batch
from tests.gpu.test_device import METHODS
from tests.policies.conftest import word_tokenizer
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


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_recorded_steps_write_what_plain_ones_do(compute: str, capsys: pytest.CaptureFixture[str]) -> None:
    """On a model of SmolLM2's shape; tokens a second of both are printed (benchmarks/gpu_check.sh keeps them)."""
    model = tiny_llama(49152, 576, 30, 9, 1536, 512, 0, key_value_heads=3).to("cuda")
    prompts = [f"w{i % 40}" + f" w{i % 7}" * (i % 23) for i in range(256)]
    took, found = {}, {}
    for recorded in (False, True):
        settings = {"max_new_tokens": 200, "extra_eos": list(range(100)), "compute_dtype": compute}
        policy = LanguageModelPolicy(
            model, word_tokenizer(), template="{prompt}", engine=Transformers(graphs=recorded), **settings
        )
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # where a step cannot be recorded a warning says so
            policy.sample(prompts, seed=1, purpose="warm up")
            torch.cuda.synchronize()
            began = time.perf_counter()
            found[recorded] = policy.sample(prompts, seed=0, purpose="t")
        took[recorded] = found[recorded].lengths().sum() / (time.perf_counter() - began)
    with capsys.disabled():
        print(f"\nsampling, {compute}: {took[False]:,.0f} tokens/s launched one by one, {took[True]:,.0f} recorded")
    plain, graph = (found[k].response_tokens for k in (False, True))
    same = sum(a.tolist() == b.tolist() for a, b in zip(plain, graph, strict=True))
    if compute == "float32":
        assert same == len(prompts)
    else:  # a batch of another shape rounds differently, and a token may be another then, and all that follow
        assert sum(a[0] == b[0] for a, b in zip(plain, graph, strict=True)) > 0.98 * len(prompts)
    samples = found[True].select(range(32))
    with torch.no_grad():
        chosen, mask = policy.log_probabilities(samples)
    drawn = torch.cat([torch.from_numpy(row) for row in samples.log_probabilities])
    assert float((chosen[mask].cpu() - drawn).abs().mean()) < (1e-3 if compute == "float32" else 5e-2)


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
