"""Sentences for the user in the middle of a run, each said once."""

from __future__ import annotations

import sys

from farm import progress

_said: set[str] = set()


def say(sentence: str) -> None:
    """Print a sentence on the error stream, unless it was said before or progress is silenced."""
    if sentence not in _said and not progress._quiet:
        _said.add(sentence)
        print(f"farm: {sentence}", file=sys.stderr, flush=True)
