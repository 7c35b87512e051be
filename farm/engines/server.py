"""A server with the completions interface of OpenAI, extended by token ids as vLLM's server is.

    engine: {use: server, url: "http://127.0.0.1:8000/v1"}

It must take a prompt as token ids and return ``token_ids`` (``return_token_ids``) and the log-probabilities of the
tokens, of the distribution that was sampled from: vLLM's does with ``--logprobs-mode processed_logprobs``. Weights
reach it through a folder that both machines see (``folder``):

    reload     vLLM's ``reload_weights``; the server runs in development mode (VLLM_SERVER_DEV_MODE=1)
    adapter    adapters alone; the server runs with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=1. Weights that
               are not its own, as a saved policy's with the adapters merged, need development mode besides
    nccl       vLLM's weight transfer (farm/engines/transfer.py), without files and of one process: vLLM is installed
               here too, and the server has accelerators of its own and runs in development mode with
               --weight-transfer-config '{"backend": "nccl"}'
    none       never: for a policy that is sampled and not trained

What a server holds is noted for all processes of this user, which take turns where they need different weights.
"""

from __future__ import annotations

import atexit
import contextlib
import http.client
import json
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from farm.base import addresses
from farm.base.bounds import Count, Positive, check
from farm.base.errors import UserError, shown
from farm.engines.transfer import Transfer, to_server
from farm.engines.vllm import check_whole, seeds
from farm.engines.weights import Folder, Held, Stamp, base_parameters, fingerprint, size_of, type_of, write_model
from farm.hardware import adapters, processes
from farm.roles.protocols import Request, Writer, Written

ATTEMPTS = 4
LARGEST = 16 * 2**20
"""bytes of one answer: several times what 32,000 tokens with all that is said of them have"""


@dataclass(frozen=True)
class Server:
    """See :class:`farm.roles.protocols.SamplingEngine`.

    Args:
        url: of the interface, usually ending in /v1.
        model: the name it serves the model under; the only one it lists if omitted.
        key: the environment variable that holds the key, where one is asked for, and none of a provider's.
        hand_over: how new weights reach it, see above.
        folder: where weights are left for it; by default this machine's memory, which a server here can read.
        parallel: requests under way at a time.
        timeout: seconds to wait for an answer.
    """

    own: ClassVar[bool] = False
    url: str
    model: str | None = None
    key: str | None = None
    hand_over: Literal["reload", "adapter", "nccl", "none"] = "reload"
    folder: str | None = None
    parallel: Count = 256
    timeout: Positive = 600.0

    def __post_init__(self) -> None:
        check(self)
        addresses.checked(self.url, "url")
        if self.key is not None:
            addresses.check_key(self.key, self.url)

    def write(self, writer: Writer, request: Request) -> Written:
        """As :meth:`farm.roles.protocols.SamplingEngine.write`.

        Raises:
            UserError: the server cannot be reached, refuses, does not give token ids, or cannot take new weights.
        """
        if not request.prompts:
            return Written([], [], [])
        return _connection_for(self).write(writer, request)

    def forget(self, writer: Writer) -> None:  # noqa: ARG002
        """Weights are handed over before the next responses, whatever the server is thought to hold."""
        connection = _CONNECTIONS.pop(json.dumps(asdict(self), sort_keys=True), None)
        if connection is not None:
            connection.close()


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The key and the weights' place are for the address that was named, and for no other."""

    def redirect_request(self, *_: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)


def _line(text: str) -> str:
    """A server's words as one line without control characters, which a terminal would obey."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


class _Refused(UserError):
    """The server answers with an error of HTTP, or (0) not at all."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class _Connection:
    """One server with what it was last given."""

    def __init__(self, settings: Server) -> None:
        self._settings = settings
        self._root = settings.url.rstrip("/").removesuffix("/v1")
        self._api = settings.url.rstrip("/")
        self._served = settings.model or self._only_model()
        self._name = self._served
        self._held = Held(self._root)
        self._first: str | None = None  # the fingerprint of the weights that it was first sampled with
        self._adapter_stamp, self._adapters = Stamp(), 0
        self._adapter: str | None = None  # the one that the server was given last
        self._known = False  # what it holds
        self._renewed = False  # new weights were handed over, and nothing was written since
        self._folder: Folder | None = None
        self._transfer: Transfer | None = None
        self._sent: Any = None  # the model that it sends

    def _only_model(self) -> str:
        listed = self._ask(f"{self._api}/models")
        try:
            names = [str(model["id"]) for model in listed["data"] if not model.get("parent")]  # adapters have one
        except (TypeError, KeyError, AttributeError) as error:
            raise UserError(f"{self._api}/models does not answer with a list of models; name one as `model`") from error
        if len(names) != 1:
            raise UserError(
                f"{self._api} serves {len(names)} models ({_line(', '.join(names)[:200])}); name one as `model`"
            )
        return names[0]

    def write(self, writer: Writer, request: Request) -> Written:
        """Responses under the model's weights as they are now."""
        with self._with_weights(writer.model, type_of(writer)):
            found = self._write(request)
            renewed, self._renewed = self._renewed, False
        return Written(*found, handed_over=renewed)

    @contextlib.contextmanager
    def _with_weights(self, model: Any, dtype: torch.dtype) -> Iterator[None]:
        """Within, the server writes for this model."""
        how = self._settings.hand_over
        alone = how == "adapter"
        weights = fingerprint(base_parameters(model) if alone else list(model.parameters()))
        if how == "none":
            self._take_as_they_are(weights)
            yield
            return
        with self._held.using(weights, not self._known, lambda: self._hand_over(model, weights, dtype)) as handed_over:
            self._known = True
            self._renewed |= handed_over
            if alone:
                self._hand_over_adapter(model)
            yield

    def _hand_over(self, model: Any, weights: str, dtype: torch.dtype) -> None:
        alone = self._settings.hand_over == "adapter"
        if alone and not self._takes_weights():
            self._take_as_they_are(weights)
            return
        if self._settings.hand_over == "nccl":
            if processes.world_size() > 1:
                raise UserError("engine server: `hand_over: nccl` is for one process; use `reload` for several")
            self._sent = model
            if self._transfer is None:
                workers = int((self._ask(f"{self._root}/get_world_size") or {}).get("world_size", 1))
                self._transfer = to_server(self._root, workers, lambda: self._sent, dtype)
            self._transfer.send()
        else:
            self._reload(model, dtype, merge=not alone)
        self._adapter_stamp = Stamp()  # the server may have dropped it
        self._reset_prefix_cache()

    def _reload(self, model: Any, dtype: torch.dtype, merge: bool) -> None:
        folder = self._path(size_of(model, dtype)) / "model"
        write_model(model, folder, merge, dtype)
        try:
            self._post("/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}})
        finally:
            shutil.rmtree(folder, ignore_errors=True)  # it has been read, and its memory is dear

    def _takes_weights(self) -> bool:
        """Whether the server is in development mode."""
        try:
            self._reset_prefix_cache()
        except _Refused as error:
            if error.code == 404:
                return False
            raise
        return True

    def _take_as_they_are(self, weights: str) -> None:
        """Of a server whose weights cannot be changed the first ones asked for are taken for its own, and checked as
        after a hand-over."""
        if self._first is None:
            self._first, self._renewed = weights, True
        if self._first != weights:
            raise UserError(
                f"engine server: these are not the weights that {self._root} was first sampled with, and it cannot be "
                f"given others (a saved policy has its adapters merged). With `hand_over: {self._settings.hand_over}` "
                "it takes "
                + ("none" if self._settings.hand_over == "none" else "adapters alone")
                + "; use `reload`, or "
                "start it with VLLM_SERVER_DEV_MODE=1 besides"
            )

    def _reset_prefix_cache(self) -> None:
        """Empty the prompt cache of the old weights; a server that is busy with requests refuses."""
        for attempt in range(ATTEMPTS):
            answer = self._ask(f"{self._root}/reset_prefix_cache", {})
            emptied = answer.get("success", True) if isinstance(answer, dict) else True if answer is None else answer
            if emptied is True:
                return
            if emptied is not False:
                raise UserError(
                    f"engine server: {self._root}/reset_prefix_cache does not say whether the prompt cache of the old "
                    f"weights was emptied ({shown(emptied)}); vLLM's server does"
                )
            if attempt < ATTEMPTS - 1:
                time.sleep(0.2 * 4**attempt)
        raise UserError(
            f"engine server: {self._root} is busy with requests of others and cannot empty its prompt cache of the "
            "old weights; let no other program use it during training"
        )

    def _hand_over_adapter(self, model: Any) -> None:
        if not adapters.inside(model):
            self._renewed |= self._name != self._served
            self._name = self._served
            return
        own = adapters.parameters(model)
        if self._adapter is not None and self._adapter_stamp.is_current(own):
            self._renewed |= self._name != self._adapter
            self._name = self._adapter
            return
        self._adapters += 1
        path = self._path() / f"adapter-{self._adapters % 2}"
        # The folder's name is drawn, so no other run that the server knows has an adapter of this name.
        name = f"{self._path().name}-{self._adapters}"
        adapters.save(model, path)
        self._post("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(path)})
        before, self._adapter, self._name, self._renewed = self._adapter, name, name, True
        self._adapter_stamp.put(own)
        if before is not None:
            self._post("/v1/unload_lora_adapter", {"lora_name": before})

    def close(self) -> None:
        """Take what was given back: the adapter, and the folder."""
        if self._adapter is not None:
            with contextlib.suppress(UserError):  # the server may have gone before
                self._ask(f"{self._root}/v1/unload_lora_adapter", {"lora_name": self._adapter}, False, last=True)
            self._adapter = None
        if self._folder is not None:
            self._folder.close()
            self._folder = None

    def _write(self, request: Request) -> tuple[list[Any], list[Any], list[str]]:
        rows = zip(request.prompts, request.limits, seeds(request), strict=True)
        # Whatever is not said here is as the model's own generation_config.json has it.
        shared = {
            "model": self._name,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "top_k": request.top_k or -1,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
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
            check_whole(found[0], found[2], body["max_tokens"], request.ends, f"engine server: {self._api}")
            if request.progress:
                request.progress(1)
            return found

        with ThreadPoolExecutor(self._settings.parallel) as threads:
            rows_back = list(threads.map(one, bodies))
        return [r[0] for r in rows_back], [r[1] for r in rows_back], [r[2] for r in rows_back]

    def _path(self, room: int = 0) -> Path:
        if self._folder is None:
            self._folder = Folder(Path(self._settings.folder) if self._settings.folder else None, room)
        return self._folder.path

    def _post(self, path: str, body: dict[str, Any]) -> None:
        """Tell the server something; what it says to that may be a sentence."""
        self._ask(self._root + path, body, read=False)

    def _ask(self, url: str, body: dict[str, Any] | None = None, read: bool = True, last: bool = False) -> Any:
        """The JSON answer; a connection that fails, or a server that is busy, is asked again after a while, but for the
        ``last`` thing that is asked of it."""
        attempts, timeout = (1, 5.0) if last else (ATTEMPTS, self._settings.timeout)
        headers = {"Content-Type": "application/json"}
        if self._settings.key is not None:
            headers["Authorization"] = f"Bearer {addresses.key_of(self._settings.key, self._settings.url)}"
        data = None if body is None else json.dumps(body).encode()
        for attempt in range(attempts):
            try:
                asked = urllib.request.Request(url, data, headers)  # noqa: S310 (http or https, checked above)
                with _OPENER.open(asked, timeout=timeout) as answer:
                    text = answer.read(LARGEST + 1)
                    if len(text) > LARGEST:
                        raise _Refused(f"engine server: {url} answers with more than {LARGEST:,} bytes", 200)
                    if answer.length:
                        raise http.client.IncompleteRead(text, answer.length)
                return json.loads(text) if read and text else None
            except urllib.error.HTTPError as error:
                code = error.code
                reason = f"{code} {_line(error.read(300).decode(errors='replace'))}"
                if 300 <= code < 400:
                    reason = f"{code}, a redirect, which is not followed: set `url` to where it answers"
                again = code in (408, 409, 429) or code >= 500
            except (ValueError, RecursionError) as error:  # not JSON
                code, reason, again = 200, f"no JSON ({error})", False
            except (OSError, http.client.HTTPException) as error:  # the second where an answer breaks off
                code, reason, again = 0, str(error) or type(error).__name__, True
            if not again or attempt == attempts - 1:
                raise _Refused(f"engine server: {url} does not answer as it should: {reason}", code)
            time.sleep(0.2 * 4**attempt)
        raise AssertionError


def _read(answer: Any, url: str, greedy: bool) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], str]:
    """Tokens, their log-probabilities and the reason for the end, from one answer."""
    try:
        choice = answer["choices"][0]
        if any(type(token) is not int for token in choice["token_ids"]):
            raise ValueError("a token id is no whole number")
        tokens = np.asarray(choice["token_ids"], np.int32)
        chosen = np.asarray(choice["logprobs"]["token_logprobs"], np.float32)
        if tokens.ndim != 1 or chosen.shape != tokens.shape:
            raise ValueError("as many log-probabilities as tokens are needed")
        if not np.isfinite(chosen).all():  # null among them
            raise ValueError("a log-probability is no number")
    except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
        raise UserError(
            f"engine server: {url} does not return token ids with their log-probabilities ({error}); vLLM's server does"
        ) from error
    return tokens, np.zeros_like(chosen) if greedy else chosen, str(choice.get("finish_reason"))


_CONNECTIONS: dict[str, _Connection] = {}


def _connection_for(settings: Server) -> _Connection:
    key = json.dumps(asdict(settings), sort_keys=True)
    if key not in _CONNECTIONS:
        if not _CONNECTIONS:
            atexit.register(disconnect)
        _CONNECTIONS[key] = _Connection(settings)
    return _CONNECTIONS[key]


def disconnect() -> None:
    """Forget every server, and take back what it was given."""
    for connection in _CONNECTIONS.values():
        connection.close()
    _CONNECTIONS.clear()
