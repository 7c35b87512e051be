"""A local language model as a likelihood judge: it cannot say which answer is better, but it knows which fits.

Utility of an output y to an instruction x under a model p, over the first ``response_tokens`` tokens of y:

    pmi     log p(y|x) - log p(y)        pointwise mutual information: how much x explains y
    mean    log p(y|x) / |y|             mean log-probability of a token

log p(y) is the same with an empty instruction. The utility enters an ordinary logit annotator, so that temperature and
biases mean what they mean there. Follow-up likelihood (arXiv 2409.13948) is a relative of this score.

A 135M model is useless as a verbal judge (it names the same label in both orders) and tells an answer from an off-topic
or a gibberish one in nine pairs of ten and more. On 60 answers to AlpacaEval's instructions, the first 64 tokens of
each, pmi was right in 60 (off-topic) and 59 (words shuffled), mean in 54 and 60.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from annotators.people.logit import LogitAnnotator
from farm.base import progress
from farm.base.bounds import Count, Positive, check
from farm.hardware.device import Device
from farm.roles.protocols import Features
from farm.storage.store import Entry, Store, address
from farm.tables.turns import Prompt

if TYPE_CHECKING:
    from farm.policies.language_model import LanguageModelPolicy

Score = Literal["pmi", "mean"]

_TEMPERATURE = {"pmi": 5.0, "mean": 0.3}

SAVED_TOGETHER = 32
"""Texts read between two entries in the store: what an interruption can lose."""


@dataclass(frozen=True)
class LikelihoodAnnotator:
    """Prefers the output that the model finds likelier; for any text.

    Raises:
        UserError: the model could not be loaded.
    """

    model: str = "HuggingFaceTB/SmolLM2-135M-Instruct"
    """hub id or local folder of a causal language model"""
    score: Score = "pmi"
    temperature: Positive | None = None
    """score that makes one unit of logit; by default 5 nats for pmi, .3 nats a token for mean"""
    greedy: bool = False
    position_bias: float = 0.0
    length_bias: float = 0.0
    """needs ``features``"""
    length_scale: Positive = 15.0
    list_bias: float = 0.0
    """needs ``features``"""
    name: str = "likelihood"
    response_tokens: Count = 512
    """tokens of an output that are read"""
    dtype: str = "float32"
    """of the weights; "bfloat16" is faster and coarser"""
    device: Device | None = None
    """"cpu" keeps the model off an accelerator"""
    features: Features | None = None
    """where length and lists come from"""
    store: Store | None = None
    """keeps the likelihoods of each distinct text"""

    def __post_init__(self) -> None:
        check(self)
        _ = self.logit_annotator

    def annotate(self, pairs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        return self.logit_annotator.annotate(pairs, seed=seed, replicate=replicate)

    def description(self) -> dict[str, Any]:
        """What the verdicts depend on: the weights of the model, not only its name."""
        fields = {k: v for k, v in vars(self.logit_annotator).items() if k != "features"}
        beside = self.features if self.length_bias or self.list_bias else None
        return {**fields, "score": self.score, "model": self.likelihood, "features": beside}

    @cached_property
    def likelihood(self) -> Likelihood:
        return Likelihood(self.model, self.response_tokens, self.dtype, self.store, self.device)

    @cached_property
    def logit_annotator(self) -> LogitAnnotator:
        """The logit annotator whose utility is the score."""
        return LogitAnnotator(
            LikelihoodFeatures(self.likelihood, self.score, self.features),
            name=self.name,
            temperature=_TEMPERATURE[self.score] if self.temperature is None else self.temperature,
            greedy=self.greedy,
            position_bias=self.position_bias,
            length_bias=self.length_bias,
            length_scale=self.length_scale,
            list_bias=self.list_bias,
        )


@dataclass(frozen=True)
class LikelihoodFeatures:
    """The score of a text as the utility term ``likelihood``, beside the features that biases ask for."""

    likelihood: Likelihood
    score: Score = "pmi"
    beside: Features | None = None

    def __call__(self, instructions: Sequence[Prompt], outputs: Sequence[str]) -> pd.DataFrame:
        nats, tokens = self.likelihood(instructions, outputs)
        if self.score == "pmi":
            score = nats - self.likelihood([""] * len(outputs), outputs)[0]
        else:
            score = nats / tokens
        table = pd.DataFrame(index=range(len(score))) if self.beside is None else self.beside(instructions, outputs)
        return table.reset_index(drop=True).assign(likelihood=score)

    @property
    def gold_weights(self) -> dict[str, float]:
        return {"likelihood": 1.0}


@dataclass(frozen=True)
class Likelihood:
    """Log-likelihoods of texts under a local model; each distinct text is read once, and kept in the store."""

    model: str
    response_tokens: int = 512
    dtype: str = "float32"
    store: Store | None = None
    device: Device | None = None

    def __call__(
        self, instructions: Sequence[Prompt], outputs: Sequence[str]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """log p(output | instruction) in nats, and the tokens that were read, float64 [n] each.

        The end of sequence counts as a token where it lies within ``response_tokens``.
        """
        texts = list(zip(instructions, outputs, strict=True))
        keys = {t: address("likelihood", self.fingerprint, self.response_tokens, *t) for t in dict.fromkeys(texts)}
        stored = self.store.get(list(keys.values())) if self.store is not None else {}
        known = {t: stored[key] for t, key in keys.items() if key in stored}
        unread = [t for t in keys if t not in known]
        for start in range(0, len(unread), SAVED_TOGETHER):
            part = unread[start : start + SAVED_TOGETHER]
            read = dict(zip(part, self._read(part), strict=True))
            known.update(read)
            progress.step(f"{start + len(part):,} of {len(unread):,} texts read")
            if self.store is not None:
                self.store.put("likelihood", [Entry(keys[t], value) for t, value in read.items()])
        values = np.array([known[t] for t in texts], dtype=np.float64).reshape(-1, 2)
        return values[:, 0], values[:, 1]

    def _read(self, texts: list[tuple[Prompt, str]]) -> list[tuple[float, int]]:
        import torch

        policy = _policy(self.model, self.dtype, self.device)
        whole = policy.encode([prompt for prompt, _ in texts], [output for _, output in texts])
        cut = [tokens[: self.response_tokens] for tokens in whole.response_tokens]
        samples = replace(whole, response_tokens=cut)
        alone = (samples.select([i]) for i in range(len(texts)))  # so that a score does not depend on the batch
        with torch.inference_mode():
            nats = [float(policy.log_probabilities(one)[0].double().sum()) for one in alone]
        return list(zip(nats, map(len, cut), strict=True))

    @cached_property
    def fingerprint(self) -> str:
        """A digest of the model's revision: the same name can stand for other weights another day.

        Of a folder or a model in the hub's cache the files tell it, so that texts read before need no model in memory;
        of any other model (that of a package) a sample of the weights does.
        """
        from farm.hardware.models import model_revision

        revision = model_revision(self.model)
        digest = hashlib.blake2b(f"{self.dtype} {revision}".encode(), digest_size=16)
        if revision == self.model:
            for name, weight in sorted(_policy(self.model, self.dtype, self.device).model.state_dict().items()):
                some = weight.flatten()[:: max(1, weight.numel() // 256)]
                digest.update(f"{name}{tuple(weight.shape)}".encode() + some.float().cpu().numpy().tobytes())
        return digest.hexdigest()

    def description(self) -> dict[str, Any]:
        return {"weights": self.fingerprint, "response_tokens": self.response_tokens}


@lru_cache(maxsize=2)
def _policy(model: str, dtype: str, device: Device | None) -> LanguageModelPolicy:
    from farm.hardware.models import load_causal_lm
    from farm.policies.language_model import LanguageModelPolicy

    return LanguageModelPolicy(*load_causal_lm(model, dtype, device))
