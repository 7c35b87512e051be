"""What each kind of server answers to a question for one token: as recorded from llama.cpp and vLLM, for which
`test_real_servers.py` asks the programs themselves, and as the documents and users of the others have it.

The texts are made up; the fields, and what is missing, are theirs. ``answer(name, body)`` is for a plan of FaultServer.
"""

from __future__ import annotations

import json
from typing import Any

from tests.annotators.llm.fault_server import Fault

RECIPES = ("vllm", "ollama", "llama_cpp", "lm_studio", "openrouter", "together", "gemini")
LISTED = {"2": -0.22, "1": -1.62, "The": -6.1}
_THOUGHTS = {"content": [{"token": "<think>", "logprob": 0.0, "bytes": None, "top_logprobs": []}]}


def answer(name: str, body: dict[str, Any]) -> Fault:
    """The answer of this kind of server to a request that asks for a verdict: "2", where it can say so."""
    return {
        "vllm": _vllm, "ollama": _ollama, "llama_cpp": _llama_cpp, "lm_studio": _lm_studio,
        "openrouter": _openrouter, "together": _together, "gemini": _gemini,
    }[name](body)  # fmt: skip


def _tokens(**each: Any) -> dict[str, Any]:
    """Log-probabilities in OpenAI's form."""
    top = [{"token": t, "logprob": p, "bytes": list(t.encode()), **each} for t, p in LISTED.items()]
    return {"content": [{**top[0], "top_logprobs": top}]}


def _said(body: dict[str, Any], message: dict[str, Any], **more: Any) -> Fault:
    usage = {"prompt_tokens": 152, "completion_tokens": 1, "total_tokens": 153, **more.pop("usage", {})}
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", **message}}
    choice |= more.pop("choice", {})
    whole = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1795000000, "model": body["model"]}
    return Fault(raw=json.dumps({**whole, "choices": [choice], "usage": usage, **more}).encode())


def _vllm(body: dict[str, Any]) -> Fault:
    """A thinking model with a reasoning parser: without the template's switch the one token goes to its thoughts."""
    empty = {"refusal": None, "annotations": None, "audio": None, "function_call": None, "tool_calls": []}
    if body.get("chat_template_kwargs") != {"enable_thinking": False}:
        message = {**empty, "content": None, "reasoning": "<think>"}
        return _said(body, message, choice={"finish_reason": "length", "stop_reason": None, "logprobs": _THOUGHTS})
    logprobs = _tokens() if body.get("logprobs") else None
    return _said(
        body, {**empty, "content": "2", "reasoning": None},
        choice={"finish_reason": "length", "stop_reason": None, "logprobs": logprobs},
        usage={"prompt_tokens_details": None}, service_tier=None, kv_transfer_params=None, prompt_logprobs=None,
    )  # fmt: skip


def _ollama(body: dict[str, Any]) -> Fault:
    thinks = body.get("reasoning_effort") != "none"
    message = {"content": "", "reasoning": "<think>"} if thinks else {"content": "2"}
    choice = {"finish_reason": "length", "logprobs": _THOUGHTS if thinks else _tokens()}
    return _said(body, message, choice=choice, system_fingerprint="fp_ollama")


def _llama_cpp(body: dict[str, Any]) -> Fault:
    """Of its version b11549; a thought that was not switched off begins in the text."""
    thinks = body.get("chat_template_kwargs") != {"enable_thinking": False}
    choice = {"finish_reason": "length", "logprobs": _THOUGHTS if thinks else _tokens(id=17)}
    timings = {"cache_n": 20, "prompt_n": 132, "prompt_ms": 61.2, "predicted_n": 1, "predicted_ms": 0.02}
    told = {"system_fingerprint": "b11549-abcdef", "timings": timings}
    usage = {"prompt_tokens_details": {"cached_tokens": 20}}
    return _said(body, {"content": "<think>" if thinks else "2"}, choice=choice, usage=usage, **told)


def _lm_studio(body: dict[str, Any]) -> Fault:
    """Asked for log-probabilities it gives none, and no error."""
    message = {"content": "2", "reasoning_content": "", "tool_calls": []}
    return _said(body, message, choice={"logprobs": None}, stats={}, system_fingerprint=body["model"])


def _openrouter(body: dict[str, Any]) -> Fault:
    """The provider that a request is sent to may ignore what it does not know, unless it must know all."""
    strict = body.get("provider", {}).get("require_parameters")
    choice = {"native_finish_reason": "stop", "logprobs": _tokens() if strict else None}
    message = {"content": "2", "refusal": None, "reasoning": None}
    return _said(body, message, choice=choice, usage={"cost": 2.1e-5}, provider="Strict" if strict else "Cheap")


def _together(body: dict[str, Any]) -> Fault:
    """The chosen tokens in a form of its own, without alternatives."""
    if body.get("logprobs"):
        chosen = {"tokens": ["2"], "token_logprobs": [-0.22], "token_ids": [17]}
        return _said(body, {"content": "2", "tool_calls": []}, choice={"logprobs": chosen, "seed": None}, prompt=[])
    return _said(body, {"content": "2", "tool_calls": []}, choice={"logprobs": None, "seed": None}, prompt=[])


def _gemini(body: dict[str, Any]) -> Fault:
    """Errors are a list of one, which names every field that is not known."""
    if unknown := [name for name in ("logprobs", "top_logprobs", "seed") if name in body]:
        said = "\n".join(f'Invalid JSON payload received. Unknown name "{n}": Cannot find field.' for n in unknown)
        error = {"code": 400, "message": said, "status": "INVALID_ARGUMENT", "details": []}
        return Fault(status=400, body=[{"error": error}])
    return _said(body, {"content": "2"})
