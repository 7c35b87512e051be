"""From an answer to a verdict: strict parsers that take the last verdict, and none of them guesses.

    label    the whole answer is 1 or 2 (or its log-probabilities say how likely each was)
    line     ``Verdict: 1``; of several pairs, ``Verdict 3: 1``; ``tie``, or a number between 1 and 2, is a soft verdict
    json     ``{"preferred": 1}``; of several pairs, ``{"verdicts": [{"pair": 3, "preferred": 1}]}``
    rating   ``Rating: 5``, or ``{"ratings": {"helpfulness": 5}}``
    ranking  ``Ranking: 2 > 1 > 3``
    rules    ``{"preferred": ["Select the response that ..."]}``, and what each of several selects:
             ``{"verdicts": {"1": "first", "2": "none"}}``

What cannot be read is None: the row is unparseable, never a coin toss or a tie. What may stand before a value is
defined by :func:`annotators.llm.guard.head`, which judged texts are kept free of.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from annotators.llm.guard import head
from annotators.llm.prompt import Form

_LABEL = re.compile(r"[\s\"'`*(\[]*(?:output[\s_]*)?[(\[]?([12])[\s\"'`*)\].]*", re.IGNORECASE)


def _behind(key: str, value: str) -> re.Pattern[str]:
    """A value behind the head of a verdict: the groups are the number in the head and the value."""
    return re.compile(rf"(?<![a-z]){head(key)}[ *_`\"'(\[]*{value}", re.IGNORECASE | re.ASCII)


_LINE = _behind("verdict", r"(tie\b|[12](?:\.\d+)?(?![\d.]*\d))")
_RATING = _behind("rating", r"(\d+(?:\.\d+)?)")
_RANKING = _behind("ranking", r"(\d+(?: *> *\d+)*)")
_DIGITS = 9
"""of the number of a pair or an output; Python reads no number of thousands of digits"""


def pairwise(text: str, form: Form, count: int) -> list[float | None]:
    """The verdict on each of ``count`` pairs, between 1 (the first) and 2; None where there is none."""
    if form == "json":
        found = _json_verdicts(text, count)
        if any(v is not None for v in found):
            return found
    if form == "label" and count == 1 and (whole := _LABEL.fullmatch(text)):
        return [float(whole.group(1))]
    return _line_verdicts(text, count)


def _line_verdicts(text: str, count: int) -> list[float | None]:
    found: dict[int, float] = {}
    numbered = False
    for number, value in _LINE.findall(text):
        verdict = _verdict(value)
        if verdict is not None and len(number) <= _DIGITS:
            found[int(number or 1)] = verdict
            numbered |= bool(number)
    if count > 1 and not numbered:  # one verdict for several pairs is no verdict on any of them
        return [None] * count
    return [found.get(k) for k in range(1, count + 1)]


def _json_verdicts(text: str, count: int) -> list[float | None]:
    found: dict[int, float] = {}
    for data in json_objects(text):
        entries = data.get("verdicts", [data])
        for entry in entries if isinstance(entries, list) else []:
            if not isinstance(entry, dict) or (verdict := _verdict(entry.get("preferred"))) is None:
                continue
            number = entry.get("pair", 1 if count == 1 else None)
            if isinstance(number, int):
                found[number if count > 1 else 1] = verdict
    return [found.get(k) for k in range(1, count + 1)]


def _verdict(value: object) -> float | None:
    if isinstance(value, bool) or value is None:
        return None
    if str(value).strip().lower() == "tie":
        return 1.5
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if 1 <= number <= 2 else None


def rating(text: str, low: int, high: int) -> float | None:
    """The last rating in the text, if it lies on the scale."""
    found = _RATING.findall(text)
    return _on_scale(float(found[-1][1]), low, high) if found else None


def without_rating(text: str) -> str:
    """The text before its last rating."""
    found = list(_RATING.finditer(text))
    return text[: found[-1].start()].rstrip(" \n*`\"'") if found else text.strip()


def ratings(text: str, aspects: Sequence[str], low: int, high: int) -> dict[str, float] | None:
    """The last ratings of all aspects; None unless every one is there and on the scale."""
    for data in reversed(list(json_objects(text))):
        given = data.get("ratings")
        if not isinstance(given, dict):
            continue
        out = {a: _on_scale(_number(given.get(a)), low, high) for a in aspects}
        if all(v is not None for v in out.values()):
            return {a: v for a, v in out.items() if v is not None}
        return None
    return None


def ranking(text: str, count: int) -> list[int] | None:
    """The last complete ranking, as output numbers from best to worst."""
    for _, found in reversed(_RANKING.findall(text)):
        places = [x.strip() for x in found.split(">")]
        order = [int(x) if len(x) <= _DIGITS else 0 for x in places]
        if sorted(order) == list(range(1, count + 1)):
            return order
    return None


def sentences(text: str, longest: int = 200) -> list[str]:
    """The rules in the last object that has any, each on one line; one that is longer than ``longest`` is no rule."""
    for data in reversed(list(json_objects(text))):
        if isinstance(given := data.get("preferred"), list):
            lines = [" ".join(rule.split()) for rule in given if isinstance(rule, str)]
            return [line for line in lines if 0 < len(line) <= longest]
    return []


_SELECTED = {"first": 1.0, "second": -1.0, "none": 0.0}


def selected(text: str, count: int) -> list[float]:
    """What each of ``count`` rules selects: 1 the first output, -1 the second, 0 none; NaN where it is not said."""
    for data in reversed(list(json_objects(text))):
        if isinstance(given := data.get("verdicts"), dict):
            said = [str(given.get(str(k))).strip().lower() for k in range(1, count + 1)]
            return [_SELECTED.get(word, float("nan")) for word in said]
    return [float("nan")] * count


def json_objects(text: str) -> list[dict[str, Any]]:
    """The outermost JSON objects in a text, in order; prose and code fences around them are skipped."""
    decoder = json.JSONDecoder()
    out, at = [], 0
    while (at := text.find("{", at)) >= 0:
        try:
            data, end = decoder.raw_decode(text, at)
        except ValueError:
            at += 1
            continue
        except RecursionError:  # nested too deep; every start inside it would be tried to that depth
            break
        if isinstance(data, dict):
            out.append(data)
        at = end
    return out


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _on_scale(value: float | None, low: int, high: int) -> float | None:
    return value if value is not None and low <= value <= high else None


def spoken(verdicts: Sequence[float]) -> str:
    """Verdicts as lines that :func:`pairwise` reads back, whatever the form."""
    if len(verdicts) == 1:
        return f"Verdict: {verdicts[0]:g}"
    return "\n".join(f"Verdict {k}: {v:g}" for k, v in enumerate(verdicts, start=1))


def schema(form: Form, count: int) -> dict[str, Any] | None:
    """The JSON schema of a pairwise verdict."""
    if form != "json":
        return None
    preferred = {"type": "integer", "enum": [1, 2]}
    reason = {"type": "string"}
    if count == 1:
        return _object({"reason": reason, "preferred": preferred})
    number = {"type": "integer", "enum": list(range(1, count + 1))}
    entry = _object({"pair": number, "reason": reason, "preferred": preferred})
    return _object({"verdicts": {"type": "array", "items": entry}})


def ratings_schema(aspects: Sequence[str], low: int, high: int) -> dict[str, Any]:
    """The JSON schema of ratings of several aspects."""
    score = {"type": "integer", "enum": list(range(low, high + 1))}
    return _object({"reason": {"type": "string"}, "ratings": _object(dict.fromkeys(aspects, score))})


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
