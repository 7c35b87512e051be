"""Feedback other than pairs from a language model, of any kind but reactions and sets: the same store and limits.

Ratings go from 1 to 7, overall or for each aspect of the template (UltraFeedback's four, arXiv 2310.01377; the score
is then their mean). As an annotator of pairs a rater implies the preference for the output it rates higher; equal
ratings are a tie, which is where ratings and rankings disagree most (arXiv 2308.15812).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from annotators.feedback.answers import implied
from annotators.llm import backends, verdicts
from annotators.llm.completion import Request
from annotators.llm.prompt import Item, Task, load
from annotators.llm.question import Answer, Question, status_of
from annotators.llm.session import current
from farm.base.bounds import Count, NotNegative, check
from farm.feedback.designs import singles
from farm.storage.store import Store
from farm.tables.records import PairIds, annotation_table, unannotated
from farm.tables.turns import prompts_of

LOW, HIGH = 1, 7
_USAGE = ("input_tokens", "output_tokens", "price", "seconds")


@dataclass(frozen=True)
class Asker:
    """What puts questions about outputs to a language model."""

    model: str
    """``provider/name``"""
    prompt: str = ""
    name: str = ""
    base_url: str | None = None
    key: str | None = None
    """the environment variable of that server's key"""
    temperature: NotNegative | None = 0.0
    max_tokens: Count = 400
    persona: str = ""
    effort: str | None = None
    extra: dict[str, Any] | None = field(default=None, hash=False)
    """further fields of the request to a server"""
    store: Store | None = field(default=None, compare=False, repr=False)

    task: Task = field(default="rating", init=False, repr=False)

    def __post_init__(self) -> None:
        check(self)
        provider, _ = backends.split(self.model)
        backends.check(provider, self.base_url, self.key, self.extra)
        template = load(self.prompt)
        if template.task != self.task:
            raise ValueError(f"prompt `{self.prompt}` is for {template.task}, not for {self.task}")
        if not self.name:
            object.__setattr__(self, "name", f"{self.model} {template.name}")

    def description(self) -> dict[str, Any]:
        """What the feedback depends on, as plain data."""
        provider, _ = backends.split(self.model)
        fields = {k: v for k, v in vars(self).items() if k not in ("store", "key") and (v or k != "extra")}
        return {**fields, "at": backends.where(provider, self.base_url), "version": load(self.prompt).version}

    def _ask(self, items: Sequence[Item], seed: int, replicate: int, principles: Sequence[str] = ()) -> list[Answer]:
        provider, model = backends.split(self.model)
        template = load(self.prompt)
        schema = verdicts.ratings_schema(template.aspects, LOW, HIGH) if template.aspects else None
        questions = []
        for item in items:
            system, user = template.render([item], self.persona, principles)
            request = Request(
                model, system, user, self.max_tokens, self.temperature,
                schema=schema, effort=self.effort, seed=seed, replicate=replicate, extra=self.extra,
            )  # fmt: skip
            questions.append(Question(provider, self.base_url, request, key_from=self.key))
        return current().ask(questions, self.store)

    def _columns(
        self, answers: Sequence[Answer], readable: Sequence[bool], seed: int, replicate: int
    ) -> dict[str, Any]:
        said = [a.completion for a in answers]
        usage = {
            "input_tokens": [c.input_tokens if c else 0 for c in said],
            "output_tokens": [c.output_tokens if c else 0 for c in said],
            "price": [a.price if a.completion else 0.0 for a in answers],
            "seconds": [a.seconds for a in answers],
        }
        return {
            "annotator": self.name,
            "status": [status_of(a, ok) for a, ok in zip(answers, readable, strict=True)],
            "seed": seed,
            "replicate": replicate,
            **usage,
            "answer": [c.text if c else None for c in said],
            "failure": [a.failure or None for a in answers],
            "cached": [a.cached for a in answers],
        }


def text_of(answer: Answer) -> str:
    """The words of an answer; none where it is no answer."""
    return (
        answer.completion.text
        if answer.completion and answer.completion.finish not in ("refusal", "unreadable")
        else ""
    )


@dataclass(frozen=True)
class LLMRater(Asker):
    """Rates single outputs; with ``annotate`` an annotator of pairs."""

    prompt: str = "rating"
    task: Task = field(default="rating", init=False, repr=False)

    def rate(self, outputs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        """Ratings of an output table (``instruction, output``), in its order.

        Adds ``score`` (NaN where there is none), one column for each aspect of the template, and the columns of an
        annotation that say status, cost and the model's words.
        """
        items = [Item(i, (o,)) for i, o in zip(prompts_of(outputs), outputs["output"], strict=True)]
        answers = self._ask(items, seed, replicate)
        aspects = load(self.prompt).aspects
        scores: list[dict[str, float] | None] = []
        for answer in answers:
            if aspects:
                scores.append(verdicts.ratings(text_of(answer), aspects, LOW, HIGH))
            else:
                overall = verdicts.rating(text_of(answer), LOW, HIGH)
                scores.append(None if overall is None else {"overall": overall})
        nothing = [s is not None for s in scores]
        columns: dict[str, Any] = {a: [s[a] if s else np.nan for s in scores] for a in aspects}
        mean = [float(np.mean(list(s.values()))) if s else np.nan for s in scores]
        return outputs.assign(score=mean, **columns, **self._columns(answers, nothing, seed, replicate))

    def annotate(self, pairs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        """The preferences that the ratings of both outputs imply; equal ratings are a tie."""
        pairs = unannotated(pairs)
        rated = self.rate(singles(pairs), seed=seed, replicate=replicate)
        one, two = rated.iloc[: len(pairs)], rated.iloc[len(pairs) :]
        status = np.where(one["status"].to_numpy() == "ok", two["status"], one["status"]).astype(object)
        usage = {c: one[c].to_numpy(dtype=float) + two[c].to_numpy(dtype=float) for c in _USAGE}
        return annotation_table(
            pairs, self.name, implied(rated["score"], len(pairs)), np.full(len(pairs), np.nan),
            seed=seed, replicate=replicate, status=status, **usage,
        ).assign(
            score_1=one["score"].to_numpy(), score_2=two["score"].to_numpy(),
            cached=one["cached"].to_numpy() & two["cached"].to_numpy(),
        )  # fmt: skip


@dataclass(frozen=True)
class LLMRanker(Asker):
    """Ranks the outputs to one instruction."""

    prompt: str = "ranking"
    task: Task = field(default="ranking", init=False, repr=False)

    def rank(self, groups: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        """Rankings of a table with ``instruction`` and ``outputs`` (a list each), shown in the given order.

        Adds ``ranking``: positions in ``outputs`` from best to worst, None where there is none.
        """
        items = [Item(i, tuple(o)) for i, o in zip(prompts_of(groups), groups["outputs"], strict=True)]
        answers = self._ask(items, seed, replicate)
        orders = [verdicts.ranking(text_of(a), len(item.outputs)) for a, item in zip(answers, items, strict=True)]
        found = pd.Series([None if o is None else [k - 1 for k in o] for o in orders], index=groups.index, dtype=object)
        readable = [o is not None for o in orders]
        return groups.assign(ranking=found, **self._columns(answers, readable, seed, replicate))


@dataclass(frozen=True)
class LLMCritic(Asker):
    """Says in words what is good and bad about an output."""

    prompt: str = "critique"
    task: Task = field(default="critique", init=False, repr=False)

    def critique(self, outputs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        """Critiques of an output table: ``text``, and ``polarity`` from -1 to 1 by the rating at its end, else 0."""
        items = [Item(i, (o,)) for i, o in zip(prompts_of(outputs), outputs["output"], strict=True)]
        answers = self._ask(items, seed, replicate)
        rated = [verdicts.rating(text_of(a), LOW, HIGH) for a in answers]
        polarity = [0.0 if r is None else (2 * r - LOW - HIGH) / (HIGH - LOW) for r in rated]
        text = [verdicts.without_rating(text_of(a)) for a in answers]
        readable = [bool(t) for t in text]
        return outputs.assign(text=text, polarity=polarity, **self._columns(answers, readable, seed, replicate))


@dataclass(frozen=True)
class LLMEditor(Asker):
    """Writes an output as it should have been."""

    prompt: str = "correction"
    max_tokens: int = 1000
    task: Task = field(default="correction", init=False, repr=False)

    def correct(self, outputs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        """Corrections of an output table: ``correction``, None where there is none or it was cut off."""
        items = [Item(i, (o,)) for i, o in zip(prompts_of(outputs), outputs["output"], strict=True)]
        answers = self._ask(items, seed, replicate)
        whole = [a.completion is not None and a.completion.finish != "length" for a in answers]
        texts = [(text_of(a).strip() or None) if ok else None for a, ok in zip(answers, whole, strict=True)]
        found = pd.Series(texts, index=outputs.index, dtype=object)
        readable = [text is not None for text in texts]
        return outputs.assign(correction=found, **self._columns(answers, readable, seed, replicate))


@dataclass(frozen=True)
class LLMChecker(Asker):
    """Says whether an output is right."""

    prompt: str = "check"
    task: Task = field(default="check", init=False, repr=False)

    def check(self, outputs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        """Checks of an output table: ``right``, None where the answer has no verdict."""
        items = [Item(i, (o,)) for i, o in zip(prompts_of(outputs), outputs["output"], strict=True)]
        answers = self._ask(items, seed, replicate)
        said = [verdicts.pairwise(text_of(a), "line", 1)[0] for a in answers]
        right = pd.Series([{1.0: True, 2.0: False}.get(v or 0.0) for v in said], index=outputs.index, dtype=object)
        return outputs.assign(right=right, **self._columns(answers, right.notna().tolist(), seed, replicate))


@dataclass(frozen=True)
class LLMMatcher(Asker):
    """Says which of two outputs is more like a third."""

    prompt: str = "match"
    task: Task = field(default="match", init=False, repr=False)

    def match(self, triplets: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        """Of a table with ``anchor, output_1, output_2``: ``nearer``, the side that the verdict leans to, 1.5 for a tie
        (always of equal outputs), NaN without a verdict; ``p_first`` is not known."""
        texts = zip(prompts_of(triplets), triplets["output_1"], triplets["output_2"], triplets["anchor"], strict=True)
        answers = self._ask([Item(asked, (one, two), anchor) for asked, one, two, anchor in texts], seed, replicate)
        said = np.array([verdicts.pairwise(text_of(a), "line", 1)[0] for a in answers], dtype=np.float64)
        nearer = np.where(PairIds(triplets).identical & ~np.isnan(said), 1.5, 1.5 + 0.5 * np.sign(said - 1.5))
        readable = (~np.isnan(said)).tolist()
        return triplets.assign(nearer=nearer, p_first=np.nan, **self._columns(answers, readable, seed, replicate))
