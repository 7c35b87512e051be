"""How many merged weights there are at once."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch

from farm.hardware import adapters


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Gets a number each time that adapters are merged into a weight: of merged weights that are there then."""
    merged, alive, real = list[weakref.ref[torch.Tensor]](), list[int](), adapters.weight

    def weight(linear: Any) -> torch.Tensor:
        found = real(linear)
        if hasattr(linear, "lora_A"):
            merged.append(weakref.ref(found))
            alive.append(sum(one() is not None for one in merged))
        return found

    monkeypatch.setattr(adapters, "weight", weight)
    return alive
