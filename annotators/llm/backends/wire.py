"""How a question travels: through the provider's SDK, or straight to a server on this machine.

Both ways raise the same failures, so the backends know nothing of HTTP. Neither follows a redirect, which would take
texts and the key elsewhere, nor reads an answer that is longer than any can be. An address that is not the provider's
gets none of the headers that the SDK has from the environment (organization, project, custom ones).
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable
from typing import Any

from annotators.llm.backends.http_failures import decoded, failure
from annotators.llm.backends.lean_http import LARGEST, Broken, LeanHTTP, TooLarge, Unreached
from annotators.llm.completion import TryAgain, Unreadable, redacted
from farm.base.addresses import local
from farm.base.errors import UserError

TIMEOUT = 600.0
"""seconds; the session's own limit is shorter"""
LEAN = True
"""whether plain ``http`` servers on this machine are asked without the SDK's transport"""
_HEADERS = ("authorization", "x-api-key", "anthropic-version", "user-agent")
"""the headers that every server gets; the provider's own server gets the next two as well"""
_OWN_HEADERS = ("openai-organization", "openai-project")
_TRANSPORT = ("host", "accept", "accept-encoding", "connection", "content-type", "content-length", "transfer-encoding")


class Unacceptable(Exception):
    """The server refuses the request as such (status 400 or 422): a parameter may be unknown to it."""

    def __init__(self, status: int, headers: Any, body: object) -> None:
        super().__init__(f"status {status}")
        self.status, self.headers, self.body = status, headers, body


class Gone(Exception):
    """What was asked for by its id is not there (any more)."""


class Wire:
    """Sends JSON to one server and returns the JSON object it answers with."""

    def __init__(self, sdk: Any, client: Any, url: str, who: str, key: str, own: bool) -> None:
        """``client`` is an asynchronous client of the module ``sdk``; ``key`` the variable that its key is from, empty
        where none is sent; ``own``: the address is the provider's."""
        import httpx2

        self._sdk, self.client, self.response = sdk, client, httpx2.Response
        self._who, self._key = who, key
        self._lean = None
        if LEAN and url.startswith("http://") and local(url):
            wanted = (*_HEADERS, *(_OWN_HEADERS if own else ()))
            known = {**client.default_headers, **client.auth_headers}
            given = {k: v for k, v in known.items() if k.lower() in wanted and isinstance(v, str)}
            headers = {"Content-Type": "application/json", "Accept": "application/json", **given}
            self._lean = LeanHTTP(url, headers)

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to ``body`` at ``path``.

        Raises:
            Unacceptable: for status 400 and 422.
            Unreadable: for what is no answer, and would be none the next time.
            TryAgain, QuotaSpent, Failed, UserError: what any other failure means (http_failures.py).
        """
        content = await (self._straight(path, body) if self._lean else self._through_sdk(path, body))
        return decoded(content, self._who)

    def mean(self, error: Unacceptable) -> Exception:
        """What an unacceptable request means when nothing can be left out of it."""
        return failure(error.status, error.headers, error.body, self._who, self._key)

    async def close(self) -> None:
        """Close all connections."""
        if self._lean:
            await self._lean.close()
        await self.client.close()

    async def _straight(self, path: str, body: dict[str, Any]) -> bytes:
        assert self._lean is not None
        sent = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
        try:
            status, headers, content = await self._lean.post(path, sent)
        except Unreached as error:
            raise TryAgain(f"{self._who}: {error}", connected=False) from None
        except Broken as error:
            raise TryAgain(f"{self._who}: {error}", charged=True) from None
        except TooLarge as error:
            raise Unreadable(f"{self._who}: {error}") from None
        if not 200 <= status < 300:
            raise self._refusal(status, headers, _body(content))
        return content

    async def _through_sdk(self, path: str, body: dict[str, Any]) -> bytes:
        answer = await self.sdk(self.client.post(path, body=body, cast_to=self.response))
        content: bytes = answer.content
        return content

    async def batch(self, call: Awaitable[Any], results: bool = False) -> Any:
        """The result of a call about batches. Raises Gone for ``results`` of status 404, failures for all others."""
        try:
            return await self.sdk(call, by_id=True)
        except Gone:
            if results:
                raise
            raise UserError(
                f"{self._who}: takes no batches, or no longer knows one that was submitted (status 404); "
                "leave out the batches"
            ) from None
        except Unacceptable as refusal:
            raise self.mean(refusal) from None

    async def sdk(self, call: Awaitable[Any], by_id: bool = False) -> Any:
        """The result of a call of the SDK, its failures as ours."""
        try:
            return await call
        except self._sdk.APIStatusError as error:
            if by_id and error.status_code == 404:
                raise Gone from None
            raise self._refusal(error.status_code, error.response.headers, error.body) from None
        except TooLarge as error:  # from one SDK as it is, from the other as the cause of an error below
            raise Unreadable(f"{self._who}: {error}") from None
        except self._sdk.APITimeoutError:
            raise TryAgain(f"{self._who}: no answer in time", charged=True) from None
        except self._sdk.APIConnectionError as error:
            if isinstance(error.__cause__, TooLarge):
                raise Unreadable(f"{self._who}: {error.__cause__}") from None
            unreached = type(error.__cause__).__name__ in ("ConnectError", "ConnectTimeout")
            reason = redacted(str(error.__cause__ or error))
            raise TryAgain(f"{self._who}: {reason}", charged=not unreached, connected=not unreached) from None

    def _refusal(self, status: int, headers: Any, body: object) -> Exception:
        if status in (400, 422):
            return Unacceptable(status, headers, body)
        return failure(status, headers, body, self._who, self._key)


def _body(content: bytes) -> object:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return content.decode("utf-8", "replace")


def http_client(default: type[Any], own: bool) -> Any:
    """The SDK's own HTTP client, with room for many questions at once, and with what the module's text says."""
    import httpx2

    class Bounded(httpx2.AsyncByteStream):
        """The bytes of an answer, up to the largest that is read."""

        def __init__(self, inner: Any) -> None:
            self._inner = inner

        async def __aiter__(self) -> AsyncIterator[bytes]:
            read = 0
            async for part in self._inner:
                read += len(part)
                if read > LARGEST:
                    raise TooLarge
                yield part

        async def aclose(self) -> None:
            await self._inner.aclose()

    async def sent(request: Any) -> None:
        if not own:
            for name in set(request.headers) - {*_HEADERS, *_TRANSPORT}:
                del request.headers[name]
        if request.method == "POST":  # a small compressed answer may be a large one
            request.headers["accept-encoding"] = "identity"

    async def answered(response: Any) -> None:
        if response.request.method != "POST":  # the results of a batch, which are many answers
            return
        if response.headers.get("content-encoding", "identity") != "identity":
            raise httpx2.DecodingError("the answer is compressed, which was not asked for", request=response.request)
        response.stream = Bounded(response.stream)

    return default(
        timeout=TIMEOUT,
        limits=httpx2.Limits(max_connections=1000, max_keepalive_connections=200),
        follow_redirects=False,
        event_hooks={"request": [sent], "response": [answered]},
    )
