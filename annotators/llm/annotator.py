"""The annotator that asks a language model which of two outputs is better.

    pairs ─▶ order ─▶ prompts (one pair, or several) ─▶ session: store or server ─▶ verdicts ─▶ annotations

Where the server gives log-probabilities and the prompt asks for one token, p_first = P(1) / (P(1) + P(2)), at the
annotator's temperature: (P(1) / P(2))^(1/T). The label is then drawn with a key of its own, or is the likelier one at
temperature 0. Where P(1) + P(2), the column ``label_mass``, is below one half, the answer is no verdict. Without
log-probabilities the label is what the answer says.

Several pairs in one prompt are cheaper and judged less independently, as in AlpacaFarm (arXiv 2305.14387). Rows are
put together in an order drawn from their ids, before the store is asked, so that what was answered earlier does not
decide who sits in a prompt with whom. Only the rows whose verdict is missing from an answer are unparseable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from annotators.llm import backends, prompt, verdicts
from annotators.llm.completion import Completion, Request
from annotators.llm.labels import of_stored
from annotators.llm.prompt import Form
from annotators.llm.question import Answer, Question, status_of
from annotators.llm.session import current
from annotators.noise.both_orders import BothOrders
from farm.base import rng
from farm.base.bounds import Count, Natural, NotNegative, check
from farm.storage.store import Store
from farm.tables.records import PairIds, annotation_table, in_random_order, unannotated
from farm.tables.turns import prompts_of


@dataclass(frozen=True)
class LLMAnnotator:
    """A language model as an annotator of pairs.

    Raises:
        ValueError: for settings that do not fit together.
        UserError: when annotating, if no question can be answered (no key, no such model or template).
    """

    model: str
    """``provider/name`` (annotators/llm/backends)"""
    prompt: str = "plain"
    """a template by name (annotators/llm/prompts), or the path of a YAML file"""
    name: str = ""
    """stands in the column ``annotator``; by default model and prompt"""
    base_url: str | None = None
    """another server that speaks the provider's API"""
    key: str | None = None
    """the environment variable of that server's key; the provider's own key goes to the provider alone"""
    temperature: NotNegative | None = 0.0
    """None leaves it to the server; with log-probabilities it is applied here, to the verdict alone"""
    max_tokens: Count | None = None
    """of the answer; by default what the prompt's form of verdict needs"""
    thinking: Natural = 0
    """tokens of room for a model that thinks before it answers"""
    batch: Count = 1
    """pairs in one prompt"""
    order: Literal["given", "random", "both"] = "given"
    """given: the first output of a row is shown first (`farm annotate` and experiments put rows in random order
    themselves); random: an order drawn for each pair; both: asked in both, see BothOrders"""
    persona: str = ""
    """who the model is asked to be"""
    principles: tuple[str, ...] = ()
    """by which it is to judge, the most important first, where the prompt takes any (`constitution`)"""
    probabilities: bool = True
    """ask for log-probabilities of the labels where the prompt has labels"""
    structured: bool = True
    """ask for JSON of the verdict's schema where the prompt has JSON"""
    effort: str | None = None
    """reasoning effort, for models that reason (``none`` lets those of OpenAI take a temperature)"""
    extra: dict[str, Any] | None = field(default=None, hash=False)
    """further fields of the request, for what only this server knows (``chat_template_kwargs``, ``provider``)"""
    store: Store | None = field(default=None, compare=False, repr=False)
    """where answers are kept; by default the store in the program's home"""

    def __post_init__(self) -> None:
        check(self)
        provider, _ = backends.split(self.model)
        backends.check(provider, self.base_url, self.key, self.extra)
        template = prompt.load(self.prompt)
        if template.task != "pairwise":
            raise ValueError(f"prompt `{self.prompt}` is for {template.task}, not for pairs")
        if template.form == "label" and self.batch > 1:
            raise ValueError(f"prompt `{self.prompt}` is answered with one token, so batch must be 1")
        if "{persona}" in template.system and prompt.load(self.prompt).name == "persona" and not self.persona:
            raise ValueError("prompt `persona` needs a `persona`")
        if template.by_principles != bool(self.principles):
            takes = "needs `principles`" if template.by_principles else "takes no `principles`; `constitution` does"
            raise ValueError(f"prompt `{self.prompt}` {takes}")
        if not self.name:
            object.__setattr__(self, "name", f"{self.model} {template.name}")

    def description(self) -> dict[str, Any]:
        """What the verdicts depend on, as plain data."""
        provider, _ = backends.split(self.model)
        fields = {k: v for k, v in vars(self).items() if k not in ("store", "key") and (v or k != "extra")}
        return {**fields, "at": backends.where(provider, self.base_url), "version": prompt.load(self.prompt).version}

    def annotate(self, pairs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        pairs = unannotated(pairs)
        if self.order == "both":
            return BothOrders(replace(self, order="given")).annotate(pairs, seed=seed, replicate=replicate)
        if self.order == "random":
            given = replace(self, order="given")
            return in_random_order(lambda p: given.annotate(p, seed=seed, replicate=replicate), pairs, seed)
        ids = PairIds(pairs)
        groups = self._groups(ids, seed, replicate)
        answers = current().ask(self._questions(pairs, groups, seed, replicate), self.store)
        return self._table(pairs, ids, groups, answers, seed, replicate)

    def _groups(self, ids: PairIds, seed: int, replicate: int) -> list[NDArray[np.int64]]:
        """The rows of each prompt. Identical outputs are a tie without a question."""
        rows = np.flatnonzero(~ids.identical)
        if self.batch == 1:
            return [rows[i : i + 1] for i in range(len(rows))]
        shown = rng.combine(ids.pair[rows], ids.swapped[rows].astype(np.uint64), replicate)
        rows = rows[rng.permutation(shown, seed, "pairs in one prompt")]
        return [rows[i : i + self.batch] for i in range(0, len(rows), self.batch)]

    def _questions(
        self, pairs: pd.DataFrame, groups: Sequence[NDArray[np.int64]], seed: int, replicate: int
    ) -> list[Question]:
        provider, model = backends.split(self.model)
        template = prompt.load(self.prompt)
        instruction, (first, second) = prompts_of(pairs), (pairs[c].tolist() for c in ("output_1", "output_2"))
        labels = ("1", "2") if template.form == "label" and self.probabilities else ()
        out = []
        for rows in groups:
            items = [prompt.Item(instruction[i], (first[i], second[i])) for i in rows]
            system, user = template.render(items, self.persona, self.principles)
            request = Request(
                model=model,
                system=system,
                user=user,
                max_tokens=(self.max_tokens or _room(template.form, len(rows))) + self.thinking,
                temperature=self.temperature,
                labels=labels,
                schema=verdicts.schema(template.form, len(rows)) if self.structured else None,
                effort=self.effort,
                seed=seed,
                replicate=replicate,
                thinking=self.thinking,
                extra=self.extra,
            )
            out.append(Question(provider, self.base_url, request, rows=len(rows), key_from=self.key))
        return out

    def _table(
        self,
        pairs: pd.DataFrame,
        ids: PairIds,
        groups: Sequence[NDArray[np.int64]],
        answers: Sequence[Answer],
        seed: int,
        replicate: int,
    ) -> pd.DataFrame:
        n = len(pairs)
        label, p_first, mass = (np.full(n, np.nan) for _ in range(3))
        label[ids.identical], p_first[ids.identical] = 1.5, 0.5
        status = np.full(n, "ok", dtype=object)
        said, failure, model = (np.full(n, None, dtype=object) for _ in range(3))
        usage = {c: np.zeros(n) for c in ("input_tokens", "output_tokens", "price", "seconds")}
        cached = np.zeros(n, dtype=bool)
        draws = self._draws(ids, seed, replicate)
        form = prompt.load(self.prompt).form
        for rows, answer in zip(groups, answers, strict=True):
            found = self._read(answer.completion, form, [float(draws[i]) for i in rows], ids.swapped[rows])
            for row, (verdict, probability, likely) in zip(rows, found, strict=True):
                label[row], p_first[row], mass[row] = verdict, probability, likely
                status[row] = status_of(answer, not np.isnan(verdict))
                failure[row] = answer.failure or None
                cached[row] = answer.cached
                if answer.completion is not None:
                    said[row], model[row] = answer.completion.text, answer.completion.model
                    usage["input_tokens"][row] = answer.completion.input_tokens / len(rows)
                    usage["output_tokens"][row] = answer.completion.output_tokens / len(rows)
                usage["price"][row] = answer.price / len(rows) if answer.completion is not None else 0.0
                usage["seconds"][row] = answer.seconds / len(rows)
        table = annotation_table(
            pairs, self.name, label, p_first, seed=seed, replicate=replicate, status=status, **usage
        )
        return table.assign(label_mass=mass, answer=said, failure=failure, model=model, cached=cached)

    def _draws(self, ids: PairIds, seed: int, replicate: int) -> NDArray[np.float64]:
        """One uniform number a row, of the unordered pair."""
        return rng.uniform(seed, "label", rng.text_id(self.name), ids.pair, replicate)

    def _read(
        self,
        completion: Completion | None,
        form: Form,
        draws: Sequence[float],
        swapped: NDArray[np.bool_],
    ) -> list[tuple[float, float, float]]:
        """(preference, p_first, mass of the labels) of each row of one answer; NaN where there is none."""
        if completion is None or completion.finish in ("refusal", "unreadable"):
            return [(np.nan, np.nan, np.nan)] * len(draws)
        if (first := of_stored(completion.labels, completion.mass)) is not None:
            if not first.decide:
                return [(np.nan, np.nan, first.mass)]
            # the draw is of the canonical order, so that swapped rows with mirrored probabilities mirror the label
            draw = 1 - draws[0] if swapped[0] else draws[0]
            return [(*label_from(first.logs, self.temperature, draw), first.mass)]
        found = verdicts.pairwise(completion.text, form, len(draws))
        return [(np.nan if v is None else v, np.nan, np.nan) for v in found]


def label_from(labels: dict[str, float], temperature: float | None, draw: float) -> tuple[float, float]:
    """(preference, p_first) from the log-probabilities of "1" and "2"; equal ones are a tie at temperature 0."""
    difference = labels["1"] - labels["2"]
    heat = 1.0 if temperature is None else temperature
    p_first = 1 / (1 + np.exp(-np.clip(difference / (heat or 1.0), -700, 700)))
    if heat == 0:
        return (1.5 if difference == 0 else 1.0 if difference > 0 else 2.0), float(p_first)
    return (1.0 if draw < p_first else 2.0), float(p_first)


def _room(form: Form, pairs: int) -> int:
    """Tokens for an answer."""
    return {"label": 1, "line": 24 * pairs if pairs > 1 else 300, "json": 200 * pairs + 50, "text": 400}[form]
