"""How weights reach vLLM: a pretend one records what it was given, and writes with it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from farm.base.errors import UserError
from farm.engines import transfer, vllm
from farm.engines.server import Server
from farm.engines.vllm import VLLM
from farm.roles.protocols import Request
from tests.engines.conftest import Loopback, largest_gap, make_policy, perturb
from tests.merging import counted
from tests.policies.conftest import PROMPTS


class PretendLLM:
    """vLLM's class with a model of its own, which takes weights by files or by a transfer, and sleeps."""

    made: ClassVar[list[PretendLLM]] = []

    def __init__(self, folder: str, **given: Any) -> None:
        self.given, self.calls, self.asleep = given, list[Any](), False
        self.policy = make_policy()
        self.engine = SimpleNamespace(engine_core=SimpleNamespace(shutdown=lambda: None))
        self.llm_engine = self.engine
        self.dtypes = set[str]()
        self._read(Path(folder))
        PretendLLM.made.append(self)

    def _read(self, folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        self.dtypes = {str(t.dtype) for t in tensors.values()} | {
            json.loads((folder / "config.json").read_text())["dtype"]
        }
        self.policy.model.load_state_dict(tensors)

    def collective_rpc(self, method: str, kwargs: dict[str, Any]) -> None:
        assert method == "reload_weights" and not self.asleep
        self.calls.append("files")
        self._read(Path(kwargs["weights_path"]))

    def reset_prefix_cache(self) -> bool:
        self.calls.append("reset")
        return True

    def sleep(self, level: int) -> None:
        assert level == 1 and not self.asleep  # at level 2 it would forget the weights
        self.calls.append("sleep")
        self.asleep = True

    def wake_up(self) -> None:
        self.calls.append("wake")
        self.asleep = False

    def init_weight_transfer_engine(self, request: dict[str, Any]) -> None:
        self.calls.append(("init", request["init_info"]))

    def start_weight_update(self) -> None:
        self.calls.append("start")

    def update_weights(self, request: dict[str, Any]) -> None:
        self.dtypes = {str(t.dtype) for t in request["update_info"].values()}
        self.policy.model.load_state_dict(request["update_info"])

    def finish_weight_update(self) -> None:
        self.calls.append("finish")

    def generate(self, prompts: list[Any], parameters: list[Any], **_: Any) -> list[Any]:
        assert not self.asleep
        self.calls.append("write")
        first = parameters[0]
        request = Request(
            prompts=[np.array(p["prompt_token_ids"], np.int32) for p in prompts],
            prompt_ids=np.array([p.seed for p in parameters], np.uint64),
            occurrences=np.zeros(len(prompts), np.uint64),
            limits=np.array([p.max_tokens for p in parameters]),
            ends=frozenset(first.stop_token_ids),
            forbidden=(),
            seed=0,
            purpose="vllm",
            temperature=first.temperature,
        )
        found = self.policy.engine.write(self.policy, request)
        answers = []
        for tokens, chosen, reason in zip(found.tokens, found.log_probabilities, found.finish_reason, strict=True):
            flat = SimpleNamespace(start_indices=range(len(tokens)), token_ids=tokens, logprobs=chosen)
            answer = SimpleNamespace(token_ids=tokens.tolist(), logprobs=flat, finish_reason=reason)
            answers.append(SimpleNamespace(outputs=[answer]))
        return answers


@dataclass
class WeightTransferConfig:
    backend: str


class Engine:
    """vLLM's end of a transfer that the trainer drives."""

    def __init__(self, client: Any, source: Any, room: int) -> None:
        self.client, self.source, self.room = client, source, room

    @classmethod
    def trainer_init(cls, info: Any, *, client: Any, source: Any) -> Engine:
        client.init_weight_transfer_engine({"packed": info.packed})
        return cls(client, source, info.packed_buffer_size_bytes)

    def send_weights(self) -> None:
        self.client.start_weight_update()
        declared = [(meta.name, meta.dtype, meta.shape) for meta in self.source.metadata()]
        sent = dict(self.source)
        if (largest := max(tensor.nbytes for tensor in sent.values())) > self.room:
            raise ValueError(f"a tensor has {largest} bytes, and the buffer {self.room}")
        assert declared == [(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in sent.items()]
        self.client.update_weights(sent)
        self.client.finish_weight_update(weight_version="1")


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[PretendLLM]]:
    def module(name: str, **what: Any) -> None:
        made = ModuleType(name)
        vars(made).update(what)
        monkeypatch.setitem(sys.modules, name, made)

    platform = SimpleNamespace(is_cpu=lambda: False, is_cuda=lambda: True)
    module("vllm", LLM=PretendLLM, SamplingParams=SimpleNamespace)
    module("vllm.platforms", current_platform=platform)
    module("vllm.config", WeightTransferConfig=WeightTransferConfig)
    module("vllm.distributed")
    meta = SimpleNamespace
    module(
        "vllm.distributed.weight_transfer",
        ParamMeta=lambda name, dtype, shape: meta(name=name, dtype=dtype, shape=shape),
        WeightSource=object,
        WeightTransferTrainerFactory=Engine,
    )
    module("vllm.distributed.weight_transfer.ipc_engine", IPCTrainerInitInfo=SimpleNamespace)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    PretendLLM.made.clear()
    yield PretendLLM
    vllm.stop()


def rows(samples: Any) -> list[list[int]]:
    return [tokens.tolist() for tokens in samples.response_tokens]


@pytest.mark.parametrize("compute", [None, "bfloat16"])
def test_the_files_are_of_the_type_that_it_computes_in(pretend: type[PretendLLM], compute: str | None) -> None:
    """Half the bytes where that is 16 bits; the weights that train stay as they are."""
    policy = make_policy(engine=VLLM(), compute_dtype=compute)
    policy.sample(PROMPTS, seed=0, purpose="t")
    (llm,) = pretend.made
    name = compute or "float32"
    assert llm.dtypes == {name, f"torch.{name}"} and llm.given["dtype"] == name
    assert next(policy.parameters()).dtype == torch.float32


def test_it_sleeps_while_nothing_is_sampled(pretend: type[PretendLLM]) -> None:
    policy = make_policy(engine=VLLM())
    policy.sample(PROMPTS, seed=0, purpose="t")
    (llm,) = pretend.made
    assert llm.given["enable_sleep_mode"] and llm.asleep
    assert llm.calls == ["write", "write", "sleep"]  # the second is the check after the hand-over
    llm.calls.clear()
    perturb(policy)
    policy.sample(PROMPTS, seed=0, purpose="t")
    assert llm.calls == ["wake", "files", "reset", "write", "write", "sleep"]


def test_it_starts_in_all_the_memory_that_nobody_uses(
    pretend: type[PretendLLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What torch keeps for its next tensors was in the way of the share that it asks for."""
    running: list[int] = []
    monkeypatch.setattr(vllm.memory, "give_back", lambda: running.append(len(pretend.made)))
    make_policy(engine=VLLM()).sample(PROMPTS, seed=0, purpose="t")
    assert running == [0]


def test_it_does_not_sleep_where_it_is_told_not_to(pretend: type[PretendLLM]) -> None:
    make_policy(engine=VLLM(sleep=False)).sample(PROMPTS, seed=0, purpose="t")
    assert "enable_sleep_mode" not in pretend.made[0].given and "sleep" not in pretend.made[0].calls


@pytest.mark.parametrize("compute", [None, "bfloat16"])
def test_its_transfer_brings_new_weights_without_files(pretend: type[PretendLLM], compute: str | None) -> None:
    policy = make_policy(engine=VLLM(hand_over="ipc", sleep=False), compute_dtype=compute)
    before = policy.sample(PROMPTS * 3, seed=0, purpose="t")
    (llm,) = pretend.made
    assert llm.given["weight_transfer_config"] == WeightTransferConfig("ipc")
    assert llm.calls == [("init", {"packed": True}), "write", "write"]
    llm.calls.clear()
    perturb(policy)
    after = policy.sample(PROMPTS * 3, seed=0, purpose="t")
    assert llm.calls == ["start", "finish", "reset", "write", "write"] and rows(after) != rows(before)
    assert llm.dtypes == {f"torch.{compute or 'float32'}"}
    llm.calls.clear()
    policy.sample(PROMPTS, seed=0, purpose="t")
    assert llm.calls == ["write"]  # it has them


def test_a_tensor_larger_than_the_buffer_travels_whole(
    pretend: type[PretendLLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM refuses one; the embedding of Llama 3 at 8B is twice as large as the buffer was."""
    monkeypatch.setattr(transfer, "BUFFER_BYTES", 64)
    policy = make_policy(engine=VLLM(hand_over="ipc", sleep=False))
    policy.sample(PROMPTS, seed=0, purpose="t")
    perturb(policy)
    policy.sample(PROMPTS, seed=0, purpose="t")
    assert {"start", "finish"} <= {call for call in pretend.made[0].calls if isinstance(call, str)}


def test_adapters_are_merged_on_their_way(pretend: type[PretendLLM]) -> None:
    policy = make_policy(engine=VLLM(hand_over="ipc", sleep=False)).with_settings(
        lora={"rank": 2, "alpha": 4.0, "seed": 0}
    )
    policy.sample(PROMPTS, seed=0, purpose="t")
    perturb(policy, size=0.1)
    policy.sample(PROMPTS, seed=0, purpose="t")
    found, expected = pretend.made[0].policy.model.state_dict(), policy.with_settings(lora=None).model.state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor)


@pytest.mark.parametrize("way", ["ipc", "files"])
def test_adapters_are_merged_one_weight_at_a_time(
    pretend: type[PretendLLM], monkeypatch: pytest.MonkeyPatch, way: Any
) -> None:
    """All merged weights together were a second model on the device: 14 GB at 7B in 16 bits."""
    alive = counted(monkeypatch)
    policy = make_policy(engine=VLLM(hand_over=way, sleep=False), compute_dtype="bfloat16").with_settings(
        lora={"rank": 2, "alpha": 4.0, "seed": 0}
    )
    for seed in (1, 2):
        perturb(policy, seed, size=0.1)
        policy.sample(PROMPTS, seed=0, purpose="t")
    assert len(alive) == 2 * 14 and max(alive) <= 2  # that of the name before may still be packed


def test_where_there_is_no_transfer_it_says_so(pretend: type[PretendLLM], monkeypatch: pytest.MonkeyPatch) -> None:
    policy = make_policy(engine=VLLM(hand_over="ipc"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="weight transfer is for CUDA: leave `hand_over` at files"):
        policy.sample(PROMPTS, seed=0, purpose="t")
    monkeypatch.setitem(sys.modules, "vllm.distributed.weight_transfer", ModuleType("old"))
    with pytest.raises(UserError, match="update it, or leave `hand_over` at files"):
        policy.sample(PROMPTS, seed=0, purpose="t")
    with pytest.raises(ValueError, match="merged weights"):
        VLLM(hand_over="ipc", lora_rank=8)


# --- a server ---------------------------------------------------------------------------------------------------------


def test_a_server_is_given_files_of_the_type_that_is_computed_in(
    loopback: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[set[str]] = []
    reload = loopback.reload

    def watched(folder: Path) -> None:
        seen.append({str(t.dtype) for t in load_file(folder / "model.safetensors").values()})
        reload(folder)

    monkeypatch.setattr(loopback, "reload", watched)
    engine = Server(loopback.url)
    assert engine.parallel == 256
    make_policy(engine=engine, compute_dtype="bfloat16").sample(PROMPTS, seed=0, purpose="t")
    assert seen == [{"torch.bfloat16"}]


def test_this_machines_address_is_one_that_the_server_can_reach() -> None:
    host, port = transfer.own_address("http://127.0.0.1:8000")
    assert host == "127.0.0.1" and port > 1000


def test_a_server_is_sent_weights_over_nccl_by_vllms_own_client(
    loopback: Loopback, pretend: type[PretendLLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its workers connect to this machine, each of them and this process one of the group."""
    told, calls = list[dict[str, Any]](), list[str]()

    class Client:
        def __init__(self, root: str) -> None:
            assert root == loopback.url.removesuffix("/v1")

        def init_weight_transfer_engine(self, info: dict[str, Any]) -> None:
            calls.append("init")

        def start_weight_update(self) -> None:
            calls.append("start")

        def update_weights(self, sent: dict[str, torch.Tensor]) -> None:
            loopback.policy.model.load_state_dict(sent)

        def finish_weight_update(self, weight_version: str | None = None) -> None:
            calls.append("finish")

    def info(**given: Any) -> SimpleNamespace:
        told.append(given)
        return SimpleNamespace(**given)

    way = "vllm.distributed.weight_transfer"
    monkeypatch.setattr(sys.modules[way], "HTTPVLLMWeightSyncClient", Client, raising=False)
    monkeypatch.setitem(sys.modules, f"{way}.nccl_engine", SimpleNamespace(NCCLTrainerInitInfo=info))
    loopback.odd["/get_world_size"] = {"world_size": 2}
    policy = make_policy(engine=Server(loopback.url, hand_over="nccl"))
    for seed in (1, 2):
        perturb(policy, seed)
        samples = policy.sample(PROMPTS * 3, seed=0, purpose="t")
        assert largest_gap(policy, samples) < 1e-3
    assert calls == ["init", "start", "finish", "start", "finish"]
    (given,) = told
    assert (given["world_size"], given["rank"], given["master_address"]) == (3, 0, "127.0.0.1")
