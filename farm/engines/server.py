"""A server with the completions interface of OpenAI, extended by token ids as vLLM's server is.

    engine: {use: server, url: "http://127.0.0.1:8000/v1"}

It must take a prompt as token ids and return ``token_ids`` (``return_token_ids``) and the log-probabilities of the
tokens, of the distribution that was sampled from: vLLM's does with ``--logprobs-mode processed_logprobs``. Weights
reach it through a folder that both machines see (``folder``):

    reload     vLLM's ``reload_weights``; the server runs in development mode (VLLM_SERVER_DEV_MODE=1)
    adapter    adapters alone; the server runs with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=1
    none       never: for a policy that is sampled and not trained
"""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from farm import adapters
from farm.engines.vllm import seeds
from farm.engines.weights import Folder, Stamp, base_parameters, write_model
from farm.errors import UserError
from farm.protocols import Request, Writer, Written

ATTEMPTS = 4


@dataclass(frozen=True)
class Server:
    """See :class:`farm.protocols.Engine`.

    Args:
        url: of the interface, usually ending in /v1.
        model: the name it serves the model under; the only one it lists if omitted.
        key: the environment variable that holds the key, where one is asked for.
        hand_over: how new weights reach it, see above.
        folder: where weights are left for it; by default this machine's memory, which a server here can read.
        parallel: requests under way at a time.
        timeout: seconds to wait for an answer.
    """

    own: ClassVar[bool] = False
    url: str
    model: str | None = None
    key: str | None = None
    hand_over: Literal["reload", "adapter", "none"] = "reload"
    folder: str | None = None
    parallel: int = 32
    timeout: float = 600.0

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"url must begin with http:// or https://, not {self.url!r}")
        if self.parallel < 1:
            raise ValueError("parallel must be at least 1")

    def write(self, writer: Writer, request: Request) -> Written:
        """As :meth:`farm.protocols.Engine.write`.

        Raises:
            UserError: the server cannot be reached, refuses, does not give token ids, or cannot take new weights.
        """
        if not request.prompts:
            return Written([], [], [])
        connection = _connection_for(self)
        handed_over = connection.bring_up_to_date(writer.model)
        return connection.write(request, handed_over)


class _Connection:
    """One server with what it was last given."""

    def __init__(self, settings: Server) -> None:
        self._settings = settings
        self._root = settings.url.rstrip("/").removesuffix("/v1")
        self._api = settings.url.rstrip("/")
        self._served = settings.model or self._only_model()
        self._name = self._served
        self._stamp, self._adapter_stamp, self._adapters = Stamp(), Stamp(), 0
        self._given = False
        self._folder: Folder | None = None

    def _only_model(self) -> str:
        names = [str(model["id"]) for model in self._ask(f"{self._api}/models")["data"]]
        if len(names) != 1:
            raise UserError(f"{self._api} serves {len(names)} models ({', '.join(names)[:200]}); name one as `model`")
        return names[0]

    def bring_up_to_date(self, model: Any) -> bool:
        how = self._settings.hand_over
        base = base_parameters(model) if how == "adapter" else list(model.parameters())
        changed = not self._stamp.is_current(base)
        if changed and self._given and how != "reload":
            raise UserError(
                f"engine server: the weights have changed and `hand_over: {how}` cannot follow; use `hand_over: reload`"
            )
        if changed and how == "reload":
            folder = self._path() / "model"
            write_model(model, folder, merge=True)
            self._post("/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}})
            self._post("/reset_prefix_cache", None)
        if changed:
            self._stamp.put(base)
        self._given = True
        return (how == "adapter" and self._hand_over_adapter(model)) or changed

    def _hand_over_adapter(self, model: Any) -> bool:
        if not adapters.inside(model):
            changed, self._name = self._name != self._served, self._served
            return changed
        own = adapters.parameters(model)
        if self._name != self._served and self._adapter_stamp.is_current(own):
            return False
        before = self._name
        self._adapters += 1
        path = self._path() / f"adapter-{self._adapters % 2}"
        # The folder's name is drawn, so no other run that the server knows has an adapter of this name.
        self._name = f"{self._path().name}-{self._adapters}"
        adapters.save(model, path)
        try:
            self._post("/v1/load_lora_adapter", {"lora_name": self._name, "lora_path": str(path)})
        except UserError:
            self._name = before  # the next attempt hands it over again
            raise
        if before != self._served:
            self._post("/v1/unload_lora_adapter", {"lora_name": before})
        self._adapter_stamp.put(own)
        return True

    def _path(self) -> Path:
        if self._folder is None:
            self._folder = Folder(Path(self._settings.folder) if self._settings.folder else None)
        return self._folder.path

    def write(self, request: Request, handed_over: bool) -> Written:
        rows = zip(request.prompts, request.limits, seeds(request), strict=True)
        shared = {
            "model": self._name,
            "temperature": request.temperature,
            "top_p": request.top_p,
            **({"top_k": request.top_k} if request.top_k else {}),
            "logprobs": 0,
            "n": 1,
            "stop_token_ids": sorted(request.ends),
            "ignore_eos": True,
            "return_token_ids": True,
            "add_special_tokens": False,
            **({"logit_bias": {str(token): -100 for token in request.forbidden}} if request.forbidden else {}),
        }
        bodies = [{**shared, "prompt": p.tolist(), "max_tokens": int(m), "seed": int(s)} for p, m, s in rows]

        def one(body: dict[str, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], str]:
            answer = self._ask(f"{self._api}/completions", body)
            found = _read(answer, self._api, request.temperature == 0)
            if request.progress:
                request.progress(1)
            return found

        with ThreadPoolExecutor(self._settings.parallel) as threads:
            rows_back = list(threads.map(one, bodies))
        return Written([r[0] for r in rows_back], [r[1] for r in rows_back], [r[2] for r in rows_back], handed_over)

    def _post(self, path: str, body: dict[str, Any] | None) -> None:
        """Tell the server something; what it says to that may be a sentence."""
        self._ask(self._root + path, body or {}, read=False)

    def _ask(self, url: str, body: dict[str, Any] | None = None, read: bool = True) -> Any:
        """The JSON answer; a connection that fails, or a server that is busy, is asked again after a while."""
        headers = {"Content-Type": "application/json"}
        if self._settings.key is not None:
            if self._settings.key not in os.environ:
                raise UserError(f"engine server: the environment variable {self._settings.key} is not set")
            headers["Authorization"] = f"Bearer {os.environ[self._settings.key]}"
        data = None if body is None else json.dumps(body).encode()
        for attempt in range(ATTEMPTS):
            try:
                asked = urllib.request.Request(url, data, headers)  # noqa: S310 (http or https, checked above)
                with urllib.request.urlopen(asked, timeout=self._settings.timeout) as answer:  # noqa: S310
                    text = answer.read()
                return json.loads(text) if read else None
            except urllib.error.HTTPError as error:
                reason = f"{error.code} {error.read()[:300].decode(errors='replace')}"
                again = error.code in (408, 409, 429) or error.code >= 500
            except ValueError as error:  # not JSON
                reason, again = f"no JSON ({error})", False
            except OSError as error:
                reason, again = str(error), True
            if not again or attempt == ATTEMPTS - 1:
                raise UserError(f"engine server: {url} does not answer as it should: {reason}")
            time.sleep(0.2 * 4**attempt)
        raise AssertionError


def _read(answer: Any, url: str, greedy: bool) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], str]:
    """Tokens, their log-probabilities and the reason for the end, from one answer."""
    try:
        choice = answer["choices"][0]
        tokens = np.asarray(choice["token_ids"], np.int32)
        chosen = np.asarray(choice["logprobs"]["token_logprobs"], np.float32)
        if tokens.ndim != 1 or chosen.shape != tokens.shape:
            raise ValueError("as many log-probabilities as tokens are needed")
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise UserError(
            f"engine server: {url} does not return token ids with their log-probabilities ({error}); vLLM's server does"
        ) from error
    reason = "stop" if choice.get("finish_reason") == "stop" else "length"
    return tokens, np.zeros_like(chosen) if greedy else chosen, reason


_CONNECTIONS: dict[str, _Connection] = {}


def _connection_for(settings: Server) -> _Connection:
    key = json.dumps(asdict(settings), sort_keys=True)
    if key not in _CONNECTIONS:
        _CONNECTIONS[key] = _Connection(settings)
    return _CONNECTIONS[key]


def disconnect() -> None:
    """Forget every server and what it was given."""
    _CONNECTIONS.clear()
