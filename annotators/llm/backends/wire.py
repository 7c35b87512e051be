"""How a question travels: through the provider's SDK, or straight to a server on this machine.

Both ways raise the same failures, so the backends know nothing of HTTP. Keys come from the SDK's client, which has
them from the environment.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable
from typing import Any

from annotators.llm.backends.http_failures import decoded, failure
from annotators.llm.backends.lean_http import Broken, LeanHTTP, Unreached
from annotators.llm.completion import TryAgain, redacted
from annotators.llm.prices import local

TIMEOUT = 600.0
"""seconds; the session's own limit is shorter"""
LEAN = True
"""whether plain ``http`` servers on this machine are asked without the SDK's transport"""


class Unacceptable(Exception):
    """The server refuses the request as such (status 400 or 422): a parameter may be unknown to it."""

    def __init__(self, status: int, headers: Any, body: object) -> None:
        super().__init__(f"status {status}")
        self.status, self.headers, self.body = status, headers, body


class Wire:
    """Sends JSON to one server and returns the JSON object it answers with."""

    def __init__(self, sdk: Any, client: Any, url: str, who: str, key: str) -> None:
        """``client`` is an asynchronous client of the module ``sdk``; ``key`` the variable that its key is from."""
        import httpx2

        self._sdk, self.client, self._response = sdk, client, httpx2.Response
        self._who, self._key = who, key
        self._lean = None
        if LEAN and url.startswith("http://") and local(url):
            wanted = ("authorization", "x-api-key", "anthropic-version", "user-agent", "openai-organization")
            known = {**client.default_headers, **client.auth_headers}
            given = {k: v for k, v in known.items() if k.lower() in wanted and isinstance(v, str)}
            headers = {"Content-Type": "application/json", "Accept": "application/json", **given}
            self._lean = LeanHTTP(url, headers)

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to ``body`` at ``path``.

        Raises:
            Unacceptable: for status 400 and 422.
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
        if status >= 400:
            raise self._refusal(status, headers, _body(content))
        return content

    async def _through_sdk(self, path: str, body: dict[str, Any]) -> bytes:
        answer = await self.sdk(self.client.post(path, body=body, cast_to=self._response))
        content: bytes = answer.content
        return content

    async def sdk(self, call: Awaitable[Any]) -> Any:
        """The result of a call of the SDK, its failures as ours."""
        try:
            return await call
        except self._sdk.APIStatusError as error:
            raise self._refusal(error.status_code, error.response.headers, error.body) from None
        except self._sdk.APITimeoutError:
            raise TryAgain(f"{self._who}: no answer in time", charged=True) from None
        except self._sdk.APIConnectionError as error:
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
    except ValueError:
        return content.decode("utf-8", "replace")


def http_client(default: type[Any]) -> Any:
    """The SDK's own HTTP client, with room for many questions at once."""
    import httpx2

    limits = httpx2.Limits(max_connections=1000, max_keepalive_connections=200)
    return default(timeout=TIMEOUT, limits=limits)
