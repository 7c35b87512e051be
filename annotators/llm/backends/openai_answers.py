"""What OpenAI's chat API and servers that resemble it answer, read leniently: completions, refusals, result files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from annotators.llm.backends.batches import Ended, Lost
from annotators.llm.backends.http_failures import about, code, decoded, message
from annotators.llm.completion import UNKNOWN, Completion, Finish, TryAgain, Unreadable, printable, redacted, tokens
from annotators.llm.labels import of_listed

_OPENS = re.compile(r"<think(?:ing)?>(?!.*</think)", re.DOTALL)
"""a thought that has no end"""


def filtered(refusal: object) -> bool:
    """Whether a filter before the model (Azure's) refused the question, which is no error of ours."""
    return "content_filter" in code(refusal) or "responsibleaipolicyviolation" in str(refusal).lower()


def of_filter(refusal: object, input_tokens: int) -> Completion:
    """The refusal of such a filter. It names no usage, and Azure charges for the reading."""
    return Completion(redacted(message(refusal)), input_tokens=input_tokens, finish="refusal")


def lines(content: bytes, who: str) -> Iterator[tuple[str, Completion | Lost]]:
    """The question of each line of a result file, and its completion or the failure. Unreadable lines are left out."""
    for line in content.splitlines():
        try:
            data = decoded(line, who)
        except (TryAgain, Unreadable):
            continue
        yield str(data.get("custom_id")), _of_line(data, who)


def _of_line(data: dict[str, Any], who: str) -> Completion | Lost:
    try:
        response = data.get("response") or {}
        status, body = response.get("status_code"), response.get("body") or {}
        if data.get("error") or status != 200:
            refusal = data.get("error") or body
            if status in (400, 422) and filtered(refusal):
                return of_filter(refusal, UNKNOWN)
            why = redacted(message(refusal) or f"status {status}")
            return Lost(why, redacted(about(refusal)) if status in (400, 422) else "")
        return completion(body, ("1", "2") if body.get("choices", [{}])[0].get("logprobs") else (), who)
    except TryAgain as error:
        return Lost(str(error))
    except (AttributeError, TypeError, IndexError, KeyError):
        return Lost("a line of the results has another form")


def ended(out: dict[str, Completion | Lost], status: str, errors: Sequence[Any]) -> Ended:
    """The end of a batch, with the reason for what is missing. A full queue counts as no failure of a question."""
    said = redacted("; ".join(f"{e.code}: {e.message}" for e in errors))
    why = f"the batch ended as {status} without an answer" + (f" ({said})" if said else "")
    if "token_limit_exceeded" not in said and "enqueued token limit" not in said.lower():
        return Ended(out, why)
    limit = re.search(r"limit: ([\d,]+)", said, re.IGNORECASE)
    return Ended(out, why, again=True, free=True, queue=int(limit[1].replace(",", "")) if limit else None)


def completion(data: dict[str, Any], labels: tuple[str, ...], who: str) -> Completion:
    """A chat completion as plain data, read leniently: only the text is required."""
    try:
        choice = data["choices"][0]
        said = choice.get("message") or {}
        usage = data.get("usage") or {}
        parts = usage.get("prompt_tokens_details") or {}
        text = said.get("content")
        refused = bool(said.get("refusal")) or choice.get("finish_reason") == "content_filter"
        if text is None and not refused and choice.get("finish_reason") != "length":
            raise KeyError("content")
        finish: Finish = "refusal" if refused else "length" if choice.get("finish_reason") == "length" else "stop"
        first = of_listed(listed_tokens(choice.get("logprobs")), labels) if labels else None
        return Completion(
            text=printable(str(text or said.get("refusal") or "")),
            labels=first.logs if first else None,
            mass=first.mass if first else None,
            input_tokens=tokens(usage.get("prompt_tokens")),
            output_tokens=tokens(usage.get("completion_tokens")),
            finish=finish,
            model=printable(str(data.get("model") or ""))[:200],
            cached_tokens=tokens(parts.get("cached_tokens") or 0),
            written_tokens=tokens(parts.get("cache_write_tokens") or 0),
        )
    except (KeyError, IndexError, TypeError, AttributeError, ValueError):
        raise TryAgain(f"{who}: the answer has no text in choices[0].message.content", charged=True) from None


def lacking(data: dict[str, Any], logprobs: bool) -> str:
    """What an answer lacks though it was asked for (``logprobs``) or had no room for, as a predicate; else empty."""
    choice = data["choices"][0]
    said = choice.get("message") or {}
    text = str(said.get("content") or "").strip()
    thought = said.get("reasoning") or said.get("reasoning_content")
    # A server that was not told how this model thinks has its thoughts in the text.
    if ((thought and not text) or _OPENS.match(text)) and choice.get("finish_reason") == "length":
        return (
            "thinks, and the answer has no room left: switch it off (`effort: none`, or in `extra` what the server "
            "knows), or give it room by `thinking` with `probabilities: false`"
        )
    if logprobs and text and len(listed_tokens(choice.get("logprobs"))) < 2:
        return "gives no log-probabilities though they are asked for: verdicts are read from the text"
    return ""


def listed_tokens(logprobs: Any) -> dict[str, float]:
    """The tokens that could have been the first, with their log-probabilities; none where they cannot be read."""
    try:
        first = logprobs["content"][0]
        alternatives = [*(first.get("top_logprobs") or []), first]
        return {str(alternative["token"]): float(alternative["logprob"]) for alternative in alternatives}
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, OverflowError):
        return {}
