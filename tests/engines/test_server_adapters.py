"""`hand_over: adapter` against a server of the test's own that answers as vLLM's does and reads adapters with peft."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import torch

from farm.base.errors import UserError
from farm.engines import server as module
from farm.engines.server import Server, disconnect
from farm.policies import load
from farm.policies.language_model import LanguageModelPolicy
from tests.engines.conftest import Loopback, largest_gap, make_policy, perturb
from tests.policies.conftest import PROMPTS

peft = pytest.importorskip("peft")


class AdapterServer(Loopback):
    """Holds the base model and adapters by name; loads and unloads are answered in a sentence, not in JSON."""

    def __init__(self) -> None:
        super().__init__()
        self.base, self.adapters, self.folders = self.policy, {}, []
        self.development = False
        self.refuses = ""
        outer = self

        class Handler(self.server.RequestHandlerClass):  # type: ignore[name-defined, misc]
            def do_POST(self) -> None:
                if self.path not in ("/v1/load_lora_adapter", "/v1/unload_lora_adapter"):
                    super().do_POST()
                    return
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked.append((self.path, body))
                code, sentence = outer.load(body) if "unload" not in self.path else outer.unload(body)
                text = sentence.encode()
                self.send_response(code)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

        assert issubclass(Handler, BaseHTTPRequestHandler)
        self.server.RequestHandlerClass = Handler

    def load(self, body: dict[str, Any]) -> tuple[int, str]:
        assert set(body) == {"lora_name", "lora_path"}
        name, folder = body["lora_name"], Path(body["lora_path"])
        if self.refuses:
            return 400, self.refuses
        if name in self.adapters:
            return 400, f"The lora adapter '{name}' has already been loaded."
        assert {"adapter_config.json", "adapter_model.safetensors"} <= {p.name for p in folder.iterdir()}
        self.folders.append(folder)
        found = peft.PeftModel.from_pretrained(self.base.copy().model, str(folder))
        self.adapters[name] = LanguageModelPolicy(found.merge_and_unload(), self.base.tokenizer, **self.base.settings)
        self.models.append({"id": name, "parent": "tiny"})
        return 200, f"Success: LoRA adapter '{name}' added successfully."

    def reload(self, folder: Path) -> None:
        self.policy = self.base
        super().reload(folder)

    def unload(self, body: dict[str, Any]) -> tuple[int, str]:
        if self.adapters.pop(body["lora_name"], None) is None:
            return 404, f"The lora adapter '{body['lora_name']}' cannot be found."
        self.models = [model for model in self.models if model["id"] != body["lora_name"]]
        return 200, f"Success: LoRA adapter '{body['lora_name']}' removed successfully."

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        with self.lock:  # an unknown name is refused by vLLM, too
            self.policy = self.base if body["model"] == "tiny" else self.adapters[body["model"]]
        return super().complete(body)

    def told(self, path: str) -> list[dict[str, Any]]:
        return [body for asked, body in self.asked if asked == path]


@pytest.fixture
def loopback() -> Iterator[AdapterServer]:
    server = AdapterServer()
    yield server
    disconnect()
    server.server.shutdown()


def rows(samples: Any) -> list[list[int]]:
    return [tokens.tolist() for tokens in samples.response_tokens]


def tuned(loopback: AdapterServer, **settings: Any) -> LanguageModelPolicy:
    engine = Server(loopback.url, parallel=1, hand_over="adapter", **settings)
    return make_policy().with_settings(lora={"rank": 4, "alpha": 8.0, "seed": 0}, engine=engine)


def test_an_adapter_is_saved_loaded_under_a_new_name_and_used(loopback: AdapterServer, tmp_path: Path) -> None:
    policy = tuned(loopback, folder=str(tmp_path / "shared"))
    before = policy.sample(PROMPTS * 3, seed=0, purpose="t")
    assert largest_gap(policy, before) < 1e-4
    for seed in (1, 2, 3):
        perturb(policy, seed)
        after = policy.sample(PROMPTS * 3, seed=0, purpose="t")
        assert rows(after) != rows(before)
        assert largest_gap(policy, after) < 1e-4
        before = after
    names = [body["lora_name"] for body in loopback.told("/v1/load_lora_adapter")]
    assert len(set(names)) == 4
    assert all(folder.is_relative_to(tmp_path / "shared") for folder in loopback.folders)
    assert [body["lora_name"] for body in loopback.told("/v1/unload_lora_adapter")] == names[:3]
    assert list(loopback.adapters) == names[3:]  # the server keeps no more than one of them
    assert loopback.told("/v1/completions")[-1]["model"] == names[3]
    assert not loopback.told("/collective_rpc")  # the base model stays where it is


def test_an_adapter_that_has_not_changed_is_not_handed_over_again(loopback: AdapterServer) -> None:
    policy = tuned(loopback)
    first = policy.sample(PROMPTS, seed=0, purpose="t")
    assert rows(policy.sample(PROMPTS, seed=0, purpose="t")) == rows(first)
    assert len(loopback.told("/v1/load_lora_adapter")) == 1
    plain = make_policy().with_settings(engine=policy.engine)
    disconnect()
    assert largest_gap(plain, plain.sample(PROMPTS, seed=0, purpose="t")) < 1e-4
    assert loopback.told("/v1/completions")[-1]["model"] == "tiny"


def test_the_sft_policy_in_between_leaves_the_adapter_where_it_is(loopback: AdapterServer) -> None:
    policy = tuned(loopback)
    plain = make_policy().with_settings(engine=policy.engine)
    for seed in (1, 2, 3):
        perturb(policy, seed)
        for _ in range(2):
            assert largest_gap(policy, policy.sample(PROMPTS, seed=0, purpose="t")) < 1e-4
            assert largest_gap(plain, plain.sample(PROMPTS, seed=0, purpose="t")) < 1e-4
    assert len(loopback.told("/v1/load_lora_adapter")) == 3
    assert len(loopback.adapters) == 1
    disconnect()
    assert not loopback.adapters


def test_two_runs_at_one_server_do_not_meet(loopback: AdapterServer) -> None:
    tuned(loopback).sample(PROMPTS, seed=0, purpose="t")
    module._CONNECTIONS.clear()  # as another process would begin, the first one killed, its adapter still there
    policy = tuned(loopback)
    perturb(policy)
    assert largest_gap(policy, policy.sample(PROMPTS, seed=0, purpose="t")) < 1e-4
    assert len(loopback.adapters) == 2


def test_a_refusal_is_said_and_a_later_attempt_hands_over(
    loopback: AdapterServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    policy = tuned(loopback)
    policy.sample(PROMPTS, seed=0, purpose="t")
    perturb(policy)
    loopback.refuses = "LoRA rank 4 is greater than max_lora_rank 2"
    with pytest.raises(UserError, match="load_lora_adapter does not answer as it should: 400 LoRA rank 4 is greater"):
        policy.sample(PROMPTS, seed=0, purpose="t")
    loopback.refuses = ""
    assert largest_gap(policy, policy.sample(PROMPTS, seed=0, purpose="t")) < 1e-4


def test_a_base_model_that_changes_cannot_follow_as_an_adapter(loopback: AdapterServer) -> None:
    policy = tuned(loopback)
    policy.sample(PROMPTS, seed=0, purpose="t")
    with torch.no_grad():
        policy.model.get_input_embeddings().weight.mul_(2)
    with pytest.raises(UserError, match="VLLM_SERVER_DEV_MODE=1 besides"):
        policy.sample(PROMPTS, seed=0, purpose="t")


def test_a_saved_policy_is_sampled_by_a_server_in_development_mode(loopback: AdapterServer, tmp_path: Path) -> None:
    """An experiment trains adapters and answers with the saved policy, which has them merged."""
    loopback.development = True
    policy = tuned(loopback)
    perturb(policy)
    assert largest_gap(policy, policy.sample(PROMPTS, seed=0, purpose="t")) < 1e-4
    policy.save(tmp_path / "saved")
    saved = load(tmp_path / "saved")
    for one in (saved, policy, saved, make_policy().with_settings(engine=policy.engine)):
        assert largest_gap(one, one.sample(PROMPTS, seed=0, purpose="t")) < 1e-4  # type: ignore[arg-type]


def test_the_same_weights_read_once_more_are_the_same(loopback: AdapterServer) -> None:
    """Every stage of an experiment reads the SFT policy from its files."""
    for seed in (0, 1):
        policy = tuned(loopback)
        perturb(policy, seed)
        assert largest_gap(policy, policy.sample(PROMPTS, seed=0, purpose="t")) < 1e-4
