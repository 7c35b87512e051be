"""Who samples and judges where there is a GPU, with a vLLM that notes what it is given and computes nothing."""

from __future__ import annotations

import asyncio
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from farm.engines import auto
from farm.engines.auto import Auto, choice
from farm.engines.transformers import Transformers
from farm.engines.vllm import VLLM
from tests.policies.conftest import make_policy


class LLM:
    """Stands for vllm.LLM."""

    started: list[dict[str, Any]]

    def __init__(self, *positional: Any, **given: Any) -> None:
        type(self).started.append(given)
        self.over = False
        self.llm_engine = SimpleNamespace(engine_core=SimpleNamespace(shutdown=self._shut))

    def _shut(self) -> None:
        self.over = True


@pytest.fixture(params=["cpu", "cuda"])
def vllm(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The package, on either kind of device."""
    package, platforms = ModuleType("vllm"), ModuleType("vllm.platforms")
    package.LLM = type("LLM", (LLM,), {"started": []})  # type: ignore[attr-defined]
    package.kind = request.param  # type: ignore[attr-defined]
    platforms.current_platform = SimpleNamespace(is_cpu=lambda: request.param == "cpu")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", package)
    monkeypatch.setitem(sys.modules, "vllm.platforms", platforms)
    return package


@pytest.mark.parametrize("eager", [None, True, False])
def test_vllm_starts_eagerly_on_a_processor_alone_unless_it_is_said(vllm: Any, eager: bool | None) -> None:
    from farm.engines import vllm as engine

    engine._started(VLLM(eager=eager), make_policy(), "folder")
    assert vllm.LLM.started[0]["enforce_eager"] is (vllm.kind == "cpu" if eager is None else eager)
    assert vllm.LLM.started[0]["gpu_memory_utilization"] == VLLM().memory


def test_a_context_that_the_cache_does_not_hold_is_cut_on_an_accelerator(vllm: Any) -> None:
    """vLLM did not start with Llama 3's, which are 16 GiB at 8B."""
    from farm.engines import vllm as engine

    for context in (None, 77):
        engine._started(VLLM(context=context), make_policy(), "folder")
    lengths = [given["max_model_len"] for given in vllm.LLM.started]
    assert lengths == [None if vllm.kind == "cpu" else -1, 77]  # -1 is vLLM's word for what fits


def test_a_judge_takes_its_share_of_the_memory_and_gives_it_back(vllm: Any) -> None:
    """It took vLLM's own .92, and kept it until the program ended."""
    from annotators.llm.backends.vllm_model import MEMORY, VLLMModel

    judge = VLLMModel("somebody/judge")
    assert MEMORY == 0.4 and vllm.LLM.started[0]["gpu_memory_utilization"] == MEMORY
    assert vllm.LLM.started[0]["enforce_eager"] is (vllm.kind == "cpu")
    assert vllm.LLM.started[0]["max_model_len"] == (None if vllm.kind == "cpu" else -1)
    engine = judge._engine
    asyncio.run(judge.close())
    assert engine.over and judge._engine is None
    asyncio.run(judge.close())  # a second time is no mistake


@pytest.mark.parametrize(
    ("device", "installed", "processes", "expected", "said"),
    [
        ("cpu", True, "1", "transformers", ""),
        ("cuda", True, "1", "vllm", ""),
        ("cuda", False, "1", "transformers", "pip install vllm"),
        ("cuda", True, "4", "transformers", "engine: server"),
    ],
)
def test_the_engine_is_chosen_by_what_is_there(
    device: str, installed: bool, processes: str, expected: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    monkeypatch.setattr(auto, "find_spec", lambda name: object() if installed else None)
    monkeypatch.setattr(auto.progress, "note", notes.append)
    monkeypatch.setenv("WORLD_SIZE", processes)
    name, why = choice(device)
    assert name == expected and said in why and bool(why) == bool(said)
    engine = Auto(memory=0.3, lora_rank=8).chosen(torch.device(device), rows_at_once=7)
    assert engine == (VLLM(memory=0.3, lora_rank=8) if expected == "vllm" else Transformers(7))
    assert notes == ([why] if why else [])


def test_a_policy_takes_the_engine_of_the_device_that_its_model_is_on() -> None:
    policy = make_policy(engine=Auto(), rows_at_once=9)
    assert policy.engine == Transformers(9)
    assert policy.with_settings(top_p=0.9).engine == Transformers(9)
