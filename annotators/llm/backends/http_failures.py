"""What an HTTP error of a model server means for the run: stop, wait, pause, or give this question up.

401, 403, 404             stop: no question will succeed
402, spent quota or credit pause: nothing is wrong with the questions
408, 409, 425, 429, 5xx, lost connections, unreadable answers   try again, after Retry-After where it is given
other 4xx                 this question is refused for good
"""

from __future__ import annotations

import email.utils
import json
import time
from collections.abc import Mapping
from typing import Any

from annotators.llm.completion import Failed, QuotaSpent, TryAgain, redacted
from farm.errors import UserError

_QUOTA = ("insufficient_quota", "billing", "credit balance", "exceeded your current quota", "insufficient credit")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait: ``retry-after-ms``, or ``retry-after`` in seconds or as a date."""
    try:
        return float(headers["retry-after-ms"]) / 1000
    except (KeyError, ValueError):
        pass
    value = headers.get("retry-after", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


def failure(status: int, headers: Mapping[str, str], body: object, who: str, key: str) -> Exception:
    """The exception to raise for an error status. ``who`` names model and server, ``key`` the variable of its key."""
    said = redacted(message(body))
    about = f"{code(body)} {said}".lower()
    if status == 402 or (status in (400, 403, 429) and any(word in about for word in _QUOTA)):
        return QuotaSpent(f"{who}: the quota or credit is spent ({said})")
    if status in (401, 403):  # such a message may repeat the key, so it is not shown
        return UserError(f"{who} refuses the key (status {status}): check the environment variable {key}")
    if status == 404:
        return UserError(f"{who}: not found (status 404): check the name of the model and the address ({said})")
    if status in (408, 409, 425, 429) or status >= 500:
        return TryAgain(f"{who}: status {status} ({said})", retry_after(headers), charged=status >= 500)
    return Failed(f"status {status}: {said}")


def message(body: object) -> str:
    """The message in the body of an error, whatever its shape."""
    if isinstance(body, dict):
        inner = body.get("error", body)
        if isinstance(inner, dict):
            return str(inner.get("message") or inner.get("type") or "")
        return str(inner)
    return str(body or "")


def code(body: object) -> str:
    """The codes in the body of an error."""
    inner: Any = body.get("error", body) if isinstance(body, dict) else {}
    return " ".join(str(inner.get(k) or "") for k in ("code", "type", "param")) if isinstance(inner, dict) else ""


def decoded(content: bytes, who: str) -> dict[str, Any]:
    """The JSON object of an answer. Raises TryAgain for anything else."""
    try:
        data = json.loads(content)
    except ValueError as error:
        raise TryAgain(f"{who}: the answer is not JSON ({error})", charged=True) from None
    if not isinstance(data, dict):
        raise TryAgain(f"{who}: the answer is not a JSON object", charged=True)
    return data
