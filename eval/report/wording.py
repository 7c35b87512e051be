"""Numbers and names as a reader expects them: percent, intervals, durations, money, and text that is data.

A missing number is an en dash. Texts that are data pass through :func:`farm.base.markup.visible`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

DASH = "–"
TOO_FEW = "too few"
"""in the place of an interval, where there are too few units to say anything"""
THIN = "\u202f"
"""the narrow space that does not break, between a number and its unit"""

ROLES = {
    "judge": "simulated judge",
    "humans": "humans",
    "gold": "gold annotator",
    "annotator": "training annotator",
    "gold_utility": "gold utility",
    "proxy": "proxy reward",
}


def known(value: object) -> bool:
    """Whether this is a finite number."""
    return isinstance(value, (int, float)) and abs(value) <= sys.float_info.max


def number(value: Any, digits: int = 2, signed: bool = False) -> str:
    """``-0.5`` as "−0.50", thousands parted by a thin space."""
    if not known(value):
        return DASH
    shown = f"{value:+,.{digits}f}" if signed else f"{value:,.{digits}f}"
    if not any(c in "123456789" for c in shown):
        shown = shown.lstrip("+-")  # no sign before a zero
    return shown.replace(",", THIN).replace("-", "−")


def count(value: Any) -> str:
    return number(value, 0)


def interval(low: Any, high: Any, digits: int = 2, signed: bool = False) -> str:
    """``[low, high]``, or nothing where there is none."""
    if not (known(low) and known(high)):
        return ""
    return f"[{number(low, digits, signed)}, {number(high, digits, signed)}]"


def estimate(value: Any, low: Any, high: Any, digits: int = 2, unit: str = "", signed: bool = False) -> str:
    """``value unit [low, high]`` for running text."""
    shown = number(value, digits, signed) + (THIN + unit if unit and known(value) else "")
    bounds = interval(low, high, digits, signed)
    return f"{shown} {bounds}" if bounds else shown


def duration(seconds: Any) -> str:
    """Seconds as a person would say them: "8.2 s", "3 min 05 s", "2 h 14 min"."""
    if not known(seconds):
        return DASH
    if seconds < 59.5:
        return f"{seconds:.1f}{THIN}s" if seconds < 9.95 else f"{seconds:.0f}{THIN}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{THIN}min {rest:02d}{THIN}s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours}{THIN}h {minutes:02d}{THIN}min"


def money(dollars: Any) -> str:
    """US dollars; cents where they matter."""
    if not known(dollars):
        return DASH
    digits = 0 if dollars == 0 or dollars >= 100 else 2 if dollars >= 0.01 else 4
    return "$" + number(dollars, digits)


def listing(words: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def plural(n: int, one: str, many: str = "") -> str:
    return f"{count(n)} {one if n == 1 else many or one + 's'}"


def spelt(n: int) -> str:
    """Small numbers as words, for the beginning of a sentence."""
    words = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
    return words[n] if 0 <= n < len(words) else count(n)


def role(name: str) -> str:
    return ROLES.get(name, name.replace("_", " "))


def class_name(spec: Any) -> str:
    """A described spec by its classes, from outside in: ``Flip · PersonaPool``."""
    if not isinstance(spec, dict):
        return DASH if spec is None else str(spec)
    names = [str(spec.get("class", "")).rpartition(".")[2]] if spec.get("class") else []
    for value in spec.values():
        inner = value if isinstance(value, list) else [value]
        found = list(dict.fromkeys(class_name(v) for v in inner if isinstance(v, dict) and "class" in v))
        names += [f"{len(inner)} × {found[0]}" if len(found) == 1 and len(inner) > 1 else " + ".join(found)] * bool(
            found
        )
    return " · ".join(names) or DASH
