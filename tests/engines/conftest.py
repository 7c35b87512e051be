"""A model of a few ten thousand parameters that is far from uniform, and a server of completions on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from farm.hardware.models import load_causal_lm, tiny_llama
from farm.policies.language_model import LanguageModelPolicy
from farm.roles.protocols import Request
from tests.policies.conftest import word_tokenizer

TEMPLATE = "{prompt}"


def sharp_model(seed: int = 0) -> Any:
    model = tiny_llama(46, 64, 2, 2, 128, 128, seed)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(8)
        for layer in model.model.layers:
            for p in layer.parameters():
                if p.dim() == 2:
                    p.mul_(8)
    return model


def make_policy(device: str = "cpu", **settings: Any) -> LanguageModelPolicy:
    given = {"template": TEMPLATE, "max_new_tokens": 12, "extra_eos": ["w3"], **settings}
    return LanguageModelPolicy(sharp_model().to(device), word_tokenizer(), **given)


def perturb(policy: LanguageModelPolicy, seed: int = 1, size: float = 0.5) -> None:
    with torch.no_grad():
        for p in policy.parameters():
            noise = torch.randn(p.shape, generator=torch.Generator().manual_seed(seed))
            p.add_(noise.to(p.device) * size)


def largest_gap(policy: LanguageModelPolicy, samples: Any, temperature: float = 1.0) -> float:
    """The largest difference between the engine's log-probabilities and the trainer's."""
    chosen, mask = policy.log_probabilities(samples, temperature)
    drawn = torch.from_numpy(np.concatenate(samples.log_probabilities))
    return float((chosen[mask].detach().cpu() - drawn).abs().max())


class Loopback:
    """A server that holds a model of its own and answers as vLLM's does, one prompt at a time."""

    def __init__(self, deaf: bool = False) -> None:
        self.policy, self.asked, self.deaf = make_policy(), [], deaf
        self.busy = 0  # so many answers are "try again"
        self.plain = False  # without token ids
        self.development = True
        self.broken = 0  # so many answers break off
        self.cut = 0  # so many tokens are missing from each answer
        self.held = False  # the prompt cache cannot be emptied
        self.models: list[dict[str, Any]] = [{"id": "tiny", "parent": None}]
        self.odd: dict[str, Any] = {}  # what is answered at these paths instead
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                self._answer(outer.odd.get(self.path, {"data": outer.models}))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked.append((self.path, body))
                if outer.busy > 0:
                    outer.busy -= 1
                    self.send_error(503)
                    return
                if self.path in outer.odd:
                    self._answer(outer.odd[self.path])
                elif not (self.path.startswith("/v1/") or outer.development):
                    self.send_error(404)
                elif self.path == "/v1/completions":
                    self._answer(outer.complete(body))
                elif self.path == "/collective_rpc" and body["method"] == "reload_weights" and not outer.deaf:
                    outer.reload(Path(body["kwargs"]["weights_path"]))
                    self._answer({})
                elif self.path == "/reset_prefix_cache":
                    self._answer({"success": not outer.held})
                elif self.path == "/collective_rpc":
                    self._answer({})
                else:
                    self.send_error(404)

            def _answer(self, data: Any) -> None:
                text = json.dumps(data).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                if outer.broken > 0:
                    outer.broken -= 1
                    text = text[: len(text) // 2]
                self.wfile.write(text)

        self.lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def reload(self, folder: Path) -> None:
        from safetensors.torch import load_file

        assert json.loads((folder / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]
        self.policy.model.load_state_dict(load_file(folder / "model.safetensors"))

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        request = Request(
            prompts=[np.array(body["prompt"], np.int32)],
            prompt_ids=np.array([body["seed"]], np.uint64),
            occurrences=np.zeros(1, np.uint64),
            limits=np.array([body["max_tokens"]]),
            ends=frozenset(body["stop_token_ids"]),
            forbidden=tuple(int(t) for t in body.get("logit_bias", {})),
            seed=0,
            purpose="server",
            temperature=body["temperature"],
        )
        with self.lock:
            policy = self.policy.with_settings(forbidden_tokens=request.forbidden) if request.forbidden else self.policy
            written = policy.engine.write(policy, request)
        choice: dict[str, Any] = {"text": "", "finish_reason": written.finish_reason[0]}
        if not self.plain:
            left = len(written.tokens[0]) - self.cut
            choice["token_ids"] = written.tokens[0][:left].tolist()
            choice["logprobs"] = {"token_logprobs": written.log_probabilities[0][:left].astype(float).tolist()}
        return {"choices": [choice]}


@pytest.fixture
def loopback() -> Iterator[Loopback]:
    from farm.engines.server import disconnect

    server = Loopback()
    yield server
    disconnect()
    server.server.shutdown()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A folder in Hugging Face format with the tiny model and its tokenizer."""
    make_policy().save(tmp_path / "tiny")
    assert load_causal_lm(str(tmp_path / "tiny"))
    return tmp_path / "tiny"
