"""What an HTTP error of a model server means for the run: stop, wait, pause, or give this question up.

3xx, 401, 403, 404        stop: no question will succeed; a redirect is not followed
402, spent quota or credit pause: nothing is wrong with the questions
408, 409, 425, 429, 5xx, lost connections, unreadable answers   try again, after Retry-After where it is given
other 4xx                 this question is refused for good
"""

from __future__ import annotations

import email.utils
import json
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from annotators.llm.completion import Failed, QuotaSpent, TryAgain, Unreadable, redacted
from farm.base.errors import UserError

_QUOTA = ("insufficient_quota", "billing", "credit balance", "exceeded your current quota", "insufficient credit")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait: ``retry-after-ms``, or ``retry-after`` in seconds or as a date.

    None where it asks for no wait that is one (0, a date that is over, NaN).
    """
    value = headers.get("retry-after", "")
    ways: tuple[Callable[[], float], ...] = (
        lambda: float(headers["retry-after-ms"]) / 1000,
        lambda: float(value),
        lambda: email.utils.parsedate_to_datetime(value).timestamp() - time.time(),
    )
    for read in ways:
        try:
            seconds = read()
        except (KeyError, TypeError, ValueError, OverflowError):
            continue
        if 0 < seconds < math.inf:
            return seconds
    return None


def failure(status: int, headers: Mapping[str, str], body: object, who: str, key: str) -> Exception:
    """The exception to raise for an error status.

    ``who`` names model and server, ``key`` the variable of the key that was sent, empty where none was.
    """
    said = redacted(message(body))
    about = f"{code(body)} {said}".lower()
    if status == 402 or (status in (400, 403, 429) and any(word in about for word in _QUOTA)):
        return QuotaSpent(f"{who}: the quota or credit is spent ({said})")
    if 300 <= status < 400:
        return UserError(
            f"{who} redirects (status {status}), which is not followed: set `base_url` to where it answers"
        )
    if status in (401, 403) and not key:
        return UserError(f"{who} wants a key (status {status}): name the environment variable that holds it as `key`")
    if status in (401, 403):  # such a message may repeat the key, so it is not shown
        return UserError(f"{who} refuses the key (status {status}): check the environment variable {key}")
    if status == 404:
        return UserError(f"{who}: not found (status 404): check the name of the model and the address ({said})")
    if status in (408, 409, 425, 429) or status >= 500:
        return TryAgain(f"{who}: status {status} ({said})", retry_after(headers), charged=status >= 500)
    return Failed(f"status {status}: {said}")


def message(body: object) -> str:
    """The message in the body of an error, whatever its shape; Gemini's is a list of one."""
    if isinstance(body, list) and body:
        return message(body[0])
    if isinstance(body, dict):
        inner = body.get("error", body)
        if isinstance(inner, dict):
            return str(inner.get("message") or inner.get("detail") or inner.get("type") or "")
        return str(inner)
    return str(body or "")


def code(body: object) -> str:
    """The codes in the body of an error."""
    if isinstance(body, list) and body:
        return code(body[0])
    inner: Any = body.get("error", body) if isinstance(body, dict) else {}
    return " ".join(str(inner.get(k) or "") for k in ("code", "type", "param")) if isinstance(inner, dict) else ""


def about(refusal: object) -> str:
    """What an error is about: its codes and its message, in lower case."""
    return f"{code(refusal)} {message(refusal)}".lower()


def decoded(content: bytes, who: str) -> dict[str, Any]:
    """The JSON object of an answer. Raises TryAgain for anything else, Unreadable where asking again is of no use."""
    try:
        data = json.loads(content)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise TryAgain(f"{who}: the answer is not JSON ({error})", charged=True) from None
    except RecursionError:
        raise Unreadable(f"{who}: the answer is JSON nested too deep to be read") from None
    except ValueError:  # Python reads no integer of more than 4,300 digits
        raise Unreadable(f"{who}: the answer holds a number of thousands of digits") from None
    if not isinstance(data, dict):
        raise TryAgain(f"{who}: the answer is not a JSON object", charged=True)
    return data
