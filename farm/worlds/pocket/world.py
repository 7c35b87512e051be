"""The pocket world as a :class:`farm.roles.protocols.World`.

Requests are six forms x 48 topics x seven constraints in four wordings. Combinations are held out whole, 200 for
validation and 200 for the test (one wording each), so that no method has seen a held-out request in any wording.
"""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

import numpy as np
import pandas as pd

from farm.base import rng
from farm.base.bounds import Count, Natural, bounded
from farm.hardware.device import Device
from farm.roles.protocols import Features, Policy
from farm.worlds.pocket import grammar
from farm.worlds.pocket.base_model import Training, base_policy, untrained_policy
from farm.worlds.pocket.gold import PocketFeatures
from farm.worlds.pocket.grammar import Quality, Requests
from farm.worlds.pocket.observations import request_columns
from farm.worlds.pocket.vocabulary import vocabulary

PRETRAINING = Quality(right_form=0.65, on_topic=0.85, constraint=0.7, closing=0.5)
DEMONSTRATIONS = Quality(right_form=0.75, on_topic=0.75, constraint=0.5, closing=0.6)
"""Mediocre on purpose: there must be room above SFT"""


class PocketWorld:
    """A universe of text small enough to learn in a minute, with a gold utility computed from the text alone.

    Args:
        seed: of the split, the base model and the demonstrations.
        held_out: combinations in validation, and as many in the test.
        weights: of terms of the gold utility, where they shall differ from the world's own.
        documents, epochs: of the base model's training.
    """

    device: ClassVar[Device] = "cpu"
    """where a model of a million parameters is faster: an accelerator would wait for the next of its small orders"""
    features: Features
    truth_known: bool

    @bounded
    def __init__(
        self,
        seed: int = 0,
        held_out: Natural = 200,
        weights: dict[str, float] | None = None,
        documents: Natural = 14_000,
        epochs: Count = 2,
    ) -> None:
        self.seed, self.held_out = seed, held_out
        self.training = Training(documents=documents, epochs=epochs)
        self.features, self.truth_known = PocketFeatures(weights or {}), True

    @cached_property
    def _requests(self) -> dict[str, Requests]:
        """The requests of each split, in an order drawn for them."""
        everything = grammar.all_requests()
        combination = (everything.form * len(grammar.TOPIC_NAMES) + everything.topic) * len(
            grammar.CONSTRAINT_NAMES
        ) + everything.constraint
        shuffled = rng.permutation(np.unique(combination).astype(np.uint64), self.seed, "pocket split")
        place = np.empty_like(shuffled)
        place[shuffled] = np.arange(len(shuffled))
        place = place[combination]
        rows = np.arange(len(everything))
        order = rng.permutation(rows.astype(np.uint64), self.seed, "pocket order")
        wording = rng.integers(grammar.WORDINGS, self.seed, "pocket wording", combination.astype(np.uint64))
        asked_so = everything.wording == wording
        where = {
            "validation": (place < self.held_out) & asked_so,
            "test": (place >= self.held_out) & (place < 2 * self.held_out) & asked_so,
            "train": place >= 2 * self.held_out,
        }
        return {split: everything.take(order[chosen[order]]) for split, chosen in where.items()}

    def instructions(self, split: str, limit: int | None = None) -> pd.DataFrame:
        requests = self._requests[split]
        table = {"instruction": grammar.request_texts(requests).strings(), "split": split, "dataset": "pocket"}
        return pd.DataFrame({**table, **request_columns(requests)})[:limit]

    def demonstrations(self, limit: int | None = None) -> pd.DataFrame | None:
        requests = self._requests["train"]
        requests = requests.take(np.arange(len(requests) if limit is None else min(limit, len(requests))))
        said = grammar.write(requests, DEMONSTRATIONS, self.seed, "pocket demonstrations").strings()
        return pd.DataFrame({"instruction": grammar.request_texts(requests).strings(), "output": said})

    def documents(self, number: int, seed: int) -> pd.DataFrame:
        """As :class:`farm.roles.protocols.Corpus`: what the base model's writer answers to requests to train on. A
        sentence ends where its token ends in a full stop, an exclamation mark or a question mark."""
        chosen = rng.generator(seed, "pocket corpus requests").integers(0, len(self._requests["train"]), number)
        requests = self._requests["train"].take(chosen)
        said, v = grammar.write(requests, PRETRAINING, seed, "pocket corpus"), vocabulary()
        ending = np.array([token[-1] in ".!?" for token in v.tokens])
        counts = [np.diff(np.unique([0, *(np.flatnonzero(ending[ids]) + 1), len(ids)])) for ids in said.split()]
        sentences = [
            [v.decode(part) for part in np.split(ids, np.cumsum(lengths)[:-1])]
            for ids, lengths in zip(said.split(), counts, strict=True)
        ]
        table = {"instruction": grammar.request_texts(requests).strings(), "output": said.strings()}
        return pd.DataFrame({**table, "sentences": sentences, "tokens": [row.tolist() for row in counts]})

    def blank_policy(self, seed: int) -> Policy:
        """As :class:`farm.roles.protocols.Corpus`."""
        return untrained_policy(self._requests["train"], PRETRAINING, self.training, seed)[0]

    def base_policy(self) -> Policy:
        return base_policy(self._requests["train"], PRETRAINING, self.training, self.seed)

    def untrained_policy(self) -> tuple[Policy, int]:
        """As :class:`farm.forecasts.measured_speed.Benchmarkable`."""
        return untrained_policy(self._requests["train"], PRETRAINING, self.training, self.seed)
