"""Who gives feedback: one protocol a kind; the kinds themselves are in farm/feedback.

Each verb takes a table and returns it, rows in their order, with the columns of its kind and, as every feedback has,
``annotator, status, seed, replicate`` and what it cost (``input_tokens, output_tokens, price, seconds``). An answer
depends on (seed, replicate, what the row shows) only; another ``replicate`` asks the same giver again. Simulated people
and language models have the same verbs.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import pandas as pd


@runtime_checkable
class Annotator(Protocol):
    """Someone, or something, who prefers one of two outputs. Noise models wrap an annotator and are one."""

    def annotate(self, pairs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        """An annotation table (:class:`farm.tables.records.Annotation`), rows in the order of ``pairs``.

        A verdict depends on (seed, replicate, the row's texts and generators) only. ``replicate`` asks the same
        annotator again: another draw for the same pair.
        """


@runtime_checkable
class Ranker(Protocol):
    """Puts the outputs to one instruction in order."""

    def rank(self, groups: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        """Of a table with ``instruction`` and ``outputs`` (lists): adds ``ranking``, positions from best to worst."""


@runtime_checkable
class Rater(Protocol):
    """Gives every output a score."""

    def rate(self, outputs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        """Adds ``score``, NaN where there is none, and a column for each aspect."""


@runtime_checkable
class Reactor(Protocol):
    """Likes an output or not, or says nothing."""

    def react(self, outputs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        """Adds ``liked`` (None where nothing was said), ``observed`` and ``propensity``."""


@runtime_checkable
class Critic(Protocol):
    """Says in words what is good and bad about an output."""

    def critique(self, outputs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        """Adds ``text``, ``polarity`` from -1 to 1, and ``marks`` where it points at parts."""


@runtime_checkable
class Corrector(Protocol):
    """Writes what an output should have been: an editor, a refiner."""

    def correct(self, outputs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        """Adds ``correction``, a text, None where there is none; equal to the output where nothing is to be mended."""


@runtime_checkable
class Checker(Protocol):
    """Says whether an output is right."""

    def check(self, outputs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        """Adds ``right``, None where it cannot be told."""


@runtime_checkable
class Matcher(Protocol):
    """Says which of two outputs is nearer to a third."""

    def match(self, triplets: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        """Of a table with ``anchor, output_1, output_2``: adds ``nearer``, 1, 2, 1.5 for a tie, NaN without an answer,
        and ``p_first``, the giver's own probability of saying 1, where it is known."""


@runtime_checkable
class Appraiser(Protocol):
    """Says what the outputs to one instruction are worth together."""

    def appraise(self, groups: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        """Of a table with ``instruction`` and ``outputs`` (lists): adds ``value``, NaN where there is none."""


class Giver(Protocol):
    """Who gives feedback of any kind: what a wrapper of several kinds wraps."""


GIVERS: tuple[type, ...] = (Giver, Annotator, Ranker, Rater, Reactor, Critic, Corrector, Checker, Matcher, Appraiser)
"""All of them; their YAML is among the annotators."""
