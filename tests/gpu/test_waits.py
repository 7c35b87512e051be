"""What would make a GPU wait, on the pretend accelerator: nothing of ours grows with the number of micro-batches.

transformers looks for packed sequences at the start of each pass, and waits for the answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.gpu.conftest import policy_on, waits_a_micro_batch
from tests.gpu.test_device import METHODS
from tests.policies.conftest import PROMPTS
from tests.pretend_accelerator import Accelerator
from tests.training.conftest import everything


def waits_on(there: Accelerator) -> Callable[[Callable[[], Any]], list[str]]:
    def waits(compute: Callable[[], Any]) -> list[str]:
        there.clear()
        compute()
        return [" ".join(where) for where in there.waits.elements()]

    return waits


@pytest.mark.parametrize(
    "name", ["dpo", *(pytest.param(name, marks=pytest.mark.slow) for name in METHODS if name != "dpo")]
)
def test_a_micro_batch_makes_nothing_wait(
    name: str,
    accelerator: Accelerator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two to six numbers were read after each, and five arrays copied before it."""
    given = everything(policy_on(accelerator.device))
    added = waits_a_micro_batch(METHODS[name], given, waits_on(accelerator), monkeypatch)
    assert not [line for line in added if not line.startswith("_local_scalar_dense farm/policies/body.py")]


@pytest.mark.parametrize("name", ["dpo", "ppo"])
def test_an_update_waits_once(name: str, accelerator: Accelerator) -> None:
    """The metrics were read, and then the norms of the gradients."""
    given, method = everything(policy_on(accelerator.device)), METHODS[name]
    lines: list[dict[str, float]] = []
    accelerator.clear()
    method.train(replace(given, log=lines.append))
    waits = [where for _, where in accelerator.waits.elements() if where.startswith("reference_methods/parts/opti")]
    updates = len(lines) if name == "dpo" else method.steps * method.epochs * method.minibatches
    assert updates and len(waits) == updates


def test_sampling_waits_every_eighth_token(accelerator: Accelerator) -> None:
    policy = policy_on(accelerator.device, max_new_tokens=40, extra_eos=["w3"])
    counts = []
    for limit in (8, 40):
        accelerator.clear()
        policy.sample(PROMPTS * 4, seed=0, purpose="t", max_new_tokens=limit)
        counts.append(sum(accelerator.waits.values()))
    assert (counts[1] - counts[0]) / 32 < 1
