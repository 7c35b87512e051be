"""The roles of the loop. The ground is written against these; the wings and third parties implement them.

    instructions ─▶ Policy ─▶ responses ─▶ Annotator ─▶ feedback ─▶ Method ─▶ Policy′
                                                                       │
    report ◀─ Reporter ◀─ Evaluator ◀─ judge (an Annotator) ◀─ Policy′ answers the held-out instructions

A **Policy** writes, an **Annotator** prefers, a **Method** learns, and a judge is an annotator used for evaluation.
A **World** supplies instructions, a base policy and, where truth is known, the gold utility. Which class plays a role
is said in YAML (``class: reference_methods.pairs.dpo.DPO``) and bound by :func:`farm.roles.config.build`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from farm.base.errors import UserError, nearest
from farm.roles.givers import Annotator as Annotator
from farm.tables import turns
from farm.tables.turns import Prompt

if TYPE_CHECKING:
    import torch

    from farm.roles.users import User
    from farm.storage.store import Store

Tokens = NDArray[np.int32]
Draws = Sequence[int] | NDArray[np.uint64]
"""numbers of draws, 0 or more, one a row"""


@dataclass(frozen=True)
class Samples:
    """Responses as a policy wrote them: token ids in, token ids out, never tokenised again.

    All lists have one entry a response. ``response_tokens`` contain the end-of-sequence token exactly when the
    policy ended the response itself (``finish_reason`` "stop"); a response cut at the limit has "length".
    ``log_probabilities`` are those of the sampled tokens under the sampling policy at the sampling temperature;
    for text that no policy sampled they are zeros.
    """

    prompts: list[Prompt]
    outputs: list[str]
    prompt_tokens: list[Tokens]
    response_tokens: list[Tokens]
    log_probabilities: list[NDArray[np.float32]]
    finish_reason: list[str]

    def __len__(self) -> int:
        return len(self.outputs)

    def select(self, index: Sequence[int] | NDArray[Any]) -> Samples:
        """The responses at these positions (or where a boolean mask is true), in that order."""
        where = np.asarray(index)
        rows = np.flatnonzero(where) if where.dtype == bool else where
        return Samples(*([column[int(i)] for i in rows] for column in self._columns()))

    def lengths(self) -> NDArray[np.int64]:
        """Response tokens of each response, end of sequence included."""
        return np.array([len(t) for t in self.response_tokens], dtype=np.int64)

    def frame(self, generator: str) -> pd.DataFrame:
        """An output table (one row a response) that :meth:`from_frame` reads back without loss."""
        return pd.DataFrame(
            {
                **turns.columns(self.prompts),
                "output": self.outputs,
                "generator": generator,
                "finish_reason": self.finish_reason,
                "prompt_tokens": self.prompt_tokens,
                "response_tokens": self.response_tokens,
                "log_probabilities": self.log_probabilities,
            }
        )

    @classmethod
    def from_frame(cls, table: pd.DataFrame, suffix: str = "") -> Samples:
        """The responses of an output table; ``suffix`` selects one side of a pair table ("_1" or "_2")."""
        return cls(
            prompts=turns.prompts_of(table),
            outputs=table["output" + suffix].tolist(),
            prompt_tokens=[np.asarray(t, np.int32) for t in table["prompt_tokens"]],
            response_tokens=[np.asarray(t, np.int32) for t in table["response_tokens" + suffix]],
            log_probabilities=[np.asarray(t, np.float32) for t in table["log_probabilities" + suffix]],
            finish_reason=table["finish_reason" + suffix].tolist(),
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Samples]) -> Samples:
        return cls(
            *([x for part in column for x in part] for column in zip(*(p._columns() for p in parts), strict=True))
        )

    def _columns(self) -> tuple[list[Any], ...]:
        return (
            self.prompts,
            self.outputs,
            self.prompt_tokens,
            self.response_tokens,
            self.log_probabilities,
            self.finish_reason,
        )


@runtime_checkable
class Policy(Protocol):
    """Something that writes responses and says how likely they were: TabularPolicy, LanguageModelPolicy.

    A response is a sequence of T tokens; in the table T = 1 and the token is the response's index.
    """

    def sample(
        self,
        prompts: Sequence[Prompt],
        *,
        seed: int,
        purpose: str,
        temperature: float = 1.0,
        max_new_tokens: int | None = None,
        progress: Callable[[int], None] | None = None,
        draws: Draws | None = None,
    ) -> Samples:
        """One response to each prompt. Repeat a prompt for several: the k-th occurrence of a prompt in the call draws
        with the key (seed, purpose, prompt, k), so neither order nor batch size changes a draw. ``draws`` gives each
        row's k instead: rows of episodes keep their draw when the rows around them change. ``max_new_tokens`` defaults
        to the policy's own limit; ``progress`` is called with the number of responses finished since."""

    def log_probabilities(self, samples: Samples, temperature: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
        """Token log-probabilities of given responses, float32 [B, T] with gradient, and their mask, bool [B, T];
        T is the longest response of the batch, and masked places hold 0."""

    def distributions(self, samples: Samples, temperature: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities of every token at every response place, float32 [B, T, V], and the mask [B, T]."""

    def encode(self, prompts: Sequence[Prompt], outputs: Sequence[str]) -> Samples:
        """Given texts as responses that end themselves: tokenised once, end of sequence appended."""

    def scorer(self, seed: int) -> Scorer:
        """A new scalar model on a copy of this policy's body (for a reward or value model)."""

    def copy(self) -> Policy:
        """A policy of its own with the same parameters."""

    def parameters(self) -> Iterator[torch.nn.Parameter]: ...

    def save(self, folder: Path) -> None:
        """Write everything :func:`farm.policies.load` needs into ``folder`` (safetensors, never a pickle)."""


@runtime_checkable
class Scorer(Protocol):
    """A scalar for a response (a reward model), or for each of its places (a value model)."""

    def scores(self, samples: Samples) -> torch.Tensor:
        """float32 [B] with gradient, read at the last real token."""

    def values(self, samples: Samples) -> torch.Tensor:
        """float32 [B, T] with gradient: the value *before* each response token is written; 0 where masked."""

    def calibrate(self, mean: float, scale: float) -> None:
        """From now on return (score - mean) / scale."""

    def copy(self, zero_head: bool = False) -> Scorer: ...

    def parameters(self) -> Iterator[torch.nn.Parameter]: ...

    def save(self, folder: Path) -> None: ...


@dataclass(frozen=True)
class Request:
    """What a policy asks of an engine: one response to each of n prompts, drawn by its key. Tokens in, tokens out."""

    prompts: list[Tokens]
    """of each row; the same prompt is the same array"""
    prompt_ids: NDArray[np.uint64]
    """of each row, [n]; with ``occurrences`` [n], the seed and the purpose the key of its draws"""
    occurrences: NDArray[np.uint64]
    limits: NDArray[np.int64]
    """the most tokens of each row's response, [n]"""
    ends: frozenset[int]
    """tokens that end a response; one that did is its last token"""
    forbidden: tuple[int, ...]
    """tokens that are never written"""
    seed: int
    purpose: str
    temperature: float
    top_k: int | None = None
    top_p: float = 1.0
    progress: Callable[[int], None] | None = None
    """called with the number of responses finished since"""


@dataclass(frozen=True)
class Written:
    """What an engine wrote, one entry a row."""

    tokens: list[NDArray[np.int32]]
    log_probabilities: list[NDArray[np.float32]]
    """of the tokens under the distribution they were drawn from; zeros at temperature 0"""
    finish_reason: list[str]
    """"stop" or "length" """
    handed_over: bool = False
    """whether the engine was given new weights for this"""


class Writer(Protocol):
    """What an engine may use of the policy it writes for."""

    @property
    def model(self) -> Any:
        """The transformers model, perhaps with adapters, as it is now."""

    @property
    def compute_dtype(self) -> str | None:
        """The type of the matrix products, where it is not that of the weights."""

    def decoder(self) -> Any:
        """The policy's own token-by-token loop (:class:`farm.engines.sampling.Decoder`)."""


@runtime_checkable
class SamplingEngine(Protocol):
    """Something that writes for a policy. A draw depends on its key and the engine, not on the batch."""

    own: ClassVar[bool]
    """whether it computes with the policy's own weights in this process, so that nothing has to be handed over"""

    def write(self, writer: Writer, request: Request) -> Written:
        """Responses under the writer's weights as they are now, which are handed over first where they have changed."""

    def forget(self, writer: Writer) -> None:
        """Nothing is known of the weights that the engine holds: the next responses follow a hand-over."""


@runtime_checkable
class Features(Protocol):
    """What a programmatic annotator sees in a text: named numbers computed from instruction and output alone."""

    def __call__(self, instructions: Sequence[Prompt], outputs: Sequence[str]) -> pd.DataFrame:
        """One row a text; an instruction may be a conversation. The columns named in ``gold_weights`` are the terms of
        the utility (already concave where too much of a thing hurts); ``length`` (words) and ``lists`` (0 or 1) serve
        the biases."""

    @property
    def gold_weights(self) -> dict[str, float]:
        """The weight of each utility term in the gold utility; a plausible default where no truth is known."""


@runtime_checkable
class World(Protocol):
    """Instructions, a base policy, and what can be known of the truth."""

    features: Features
    truth_known: bool
    """whether ``features.gold_weights`` is the truth of this world, or only a stand-in"""

    def instructions(self, split: str, limit: int | None = None) -> pd.DataFrame:
        """The instruction table of "train", "validation" or "test", in a fixed order; at most ``limit`` rows."""

    def demonstrations(self, limit: int | None = None) -> pd.DataFrame | None:
        """Outputs of (mediocre) demonstrators to train instructions; None where the base policy is tuned already."""

    def base_policy(self) -> Policy: ...


@runtime_checkable
class Corpus(Protocol):
    """What a world has besides where a model can be pretrained in it."""

    def documents(self, number: int, seed: int) -> pd.DataFrame:
        """``instruction, output, sentences`` (the texts of the output's sentences, a list) and ``tokens`` (how many
        tokens of the blank policy each has, a list), one row a document, drawn by the seed."""

    def blank_policy(self, seed: int) -> Policy:
        """One that was never trained, with weights drawn from the seed."""


@runtime_checkable
class PreferenceModel(Protocol):
    """P(y > y' | x), antisymmetric: probability(first, second) + probability(second, first) = 1."""

    def logits(self, first: Samples, second: Samples) -> torch.Tensor:
        """log P / (1 - P) of first over second, float32 [B] with gradient; changes its sign when they are exchanged."""

    def save(self, folder: Path) -> None:
        """Write it to a folder that :func:`farm.policies.load` reads."""


class Asker(Protocol):
    """Whoever gives one kind of feedback to a method while it learns, and what was asked so far."""

    def ask(self, shown: pd.DataFrame, purpose: str) -> pd.DataFrame:
        """The feedback on what is shown (:meth:`Learning.ask`)."""

    def queries(self, purpose: str) -> int:
        """Rows asked about so far."""

    def unanswered(self, purpose: str) -> int:
        """Those of them without an answer."""

    def state_dict(self) -> dict[str, torch.Tensor]:
        """What was asked so far, for a checkpoint."""

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None: ...


@dataclass(frozen=True)
class Learning:
    """All that a method is given to learn from."""

    seed: int
    policy: Policy
    """where learning starts"""
    prompts: pd.DataFrame
    """unlabelled instructions the method may sample for"""
    feedback: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    """kind -> the feedback of that kind, "ok" rows only, with the token columns of the responses where there are any"""
    models: Mapping[str, Scorer | PreferenceModel] = field(default_factory=dict)
    """name -> a model that was fitted to the feedback"""
    asked: Mapping[str, Asker] = field(default_factory=dict)
    """kind -> who is asked for it, for methods that ask while they learn"""
    demonstrations: pd.DataFrame | None = None
    responses: pd.DataFrame | None = None
    """the responses that feedback was given on: an output table with ``draw, group, writer``"""
    user: User | None = None
    """who replies to the policy, for methods that learn from dialogues"""
    other_reference: Policy | None = None
    """the ``reference``, where it is not ``policy``"""
    gold: Callable[[Samples], NDArray[np.float64]] | None = None
    """the gold utility where it is known, for the learning curve only: never a training signal"""
    log: Callable[[dict[str, float]], None] = field(default=lambda metrics: None)
    """called once a step with the metrics of that step, ``step`` among them; names as in docs/metrics.md"""
    steps: Callable[[int], None] = field(default=lambda total: None)
    """called once with the number of steps ahead, for the progress display"""
    checkpoints: Path | None = None
    """a folder that outlives a kill: what a method leaves there it finds again when it is started once more with the
    same learning; None where nothing is to be kept"""

    @property
    def reference(self) -> Policy:
        """The fixed policy that every KL is taken to."""
        return self.other_reference or self.policy

    @property
    def preferences(self) -> pd.DataFrame | None:
        """Annotated pairs of responses."""
        return self.feedback.get("pairs")

    def scorer(self, name: str = "reward_model") -> Scorer:
        """The reward model of a name.

        Raises:
            UserError: there is none, or a model of that name scores no single responses.
        """
        return self._model(name, "scores", "reward")

    def preference_model(self, name: str = "preference_model") -> PreferenceModel:
        """The preference model of a name, as :meth:`scorer`."""
        return self._model(name, "logits", "preference")

    def _model(self, name: str, verb: str, what: str) -> Any:
        found = self.models.get(name)
        if found is None:
            raise UserError(
                f"a method needs the {what} model `{name}`, which is not there; {nearest(name, self.models)}"
            )
        if not hasattr(found, verb):
            raise UserError(f"the model `{name}` is a {type(found).__name__}, and a {what} model is needed")
        return found

    def ask(self, kind: str, shown: pd.DataFrame, *, purpose: str = "learning") -> pd.DataFrame:
        """Feedback of a kind on rows as its kind shows them, in their order.

        What is asked again, for the same ``purpose``, is asked under another replicate, so that the answer is a new
        draw. Of several processes the first asks, and all get the answers. Every process must ask.

        Raises:
            UserError: nobody is there to be asked for it: the kind is not among the method's ``asks``.
        """
        if kind not in self.asked:
            raise UserError(f"a method asks for {kind} and nobody is there to give them: its `asks` must name the kind")
        return self.asked[kind].ask(shown, purpose)


@runtime_checkable
class Method(Protocol):
    """A way to learn from feedback."""

    def train(self, learning: Learning) -> Policy | Scorer | PreferenceModel:
        """The learned policy; a method that fits a reward or preference model returns that."""

    @property
    def needs(self) -> frozenset[str]:
        """What it learns from: kinds of feedback ("pairs", "ratings", ...), "demonstrations", "responses", "user", and
        names of models ("reward_model", "preference_model", or one under `models` of the experiment).

        A method that asks for feedback while it learns says of which kinds in ``asks``, a set of the same form."""


def asks(method: Method) -> frozenset[str]:
    """The kinds of feedback that a method asks for while it learns."""
    return frozenset(getattr(method, "asks", ()))


@dataclass(frozen=True)
class Comparison:
    """What an evaluator is given: everything the experiment measured on the held-out instructions."""

    outputs: pd.DataFrame
    """output table of all methods, with ``method``, ``sample``, and ``gold`` and ``proxy`` where they are known"""
    annotations: dict[str, pd.DataFrame]
    """role ("judge", "humans", "gold") -> annotations; output_1 is the baseline's, output_2 the method's"""
    baseline: str
    """generator of the outputs that all methods are judged against (draws of the SFT policy that no method shares)"""
    seed: int
    dialogues: pd.DataFrame | None = None
    """the episodes of all methods with the held-out users, a row a turn (farm.roles.users), where there are any"""


@runtime_checkable
class Evaluator(Protocol):
    """Who wins, and how sure we are."""

    def evaluate(self, comparison: Comparison) -> dict[str, pd.DataFrame]:
        """Tables by name. "leaderboard" is required: one row a method, best first by the judge. "agreement", where
        several roles judged, has the rank correlations between them; "headlines", where there is one, has sentences
        (``headline``) that are shown below the leaderboard."""


@dataclass(frozen=True)
class Replication:
    """What an aggregator is given: several experiments that differ in settings, in their seed, or in both."""

    variants: pd.DataFrame
    """one row an experiment: ``variant`` (its name), ``seed``, and a column for each setting that differs"""
    folders: Sequence[Path]
    """the run folder of each, in the order of the rows; the models are not needed"""
    seed: int


@runtime_checkable
class Aggregator(Protocol):
    """What several experiments say together: a sweep, or replicates."""

    def aggregate(self, replication: Replication) -> dict[str, pd.DataFrame]:
        """Tables by name. "leaderboard" is one row for each method and setting; "headlines" as of an evaluator."""


@runtime_checkable
class Reporter(Protocol):
    """Turns a run folder into something to look at."""

    def write(self, run: Path) -> Path:
        """Write the report from the files of the run folder alone, and return its path."""


@runtime_checkable
class Measure(Protocol):
    """A number of one method in one run, made of the run's tables alone: what the claims of a paper compare.

    One that compares two variants of a run names the other in ``beside``, swept key -> value, and has
    ``values_beside(tables, others, method)`` for the tables of both."""

    @property
    def tables(self) -> Sequence[str]:
        """The tables that it reads: ``outputs``, ``metrics``, ``judge_<role>``, ..., or what a run computes."""

    def values(self, tables: Mapping[str, pd.DataFrame], method: str) -> pd.DataFrame:
        """``value``, of one seed, and ``instruction`` where a row is of one; a row without a value is left out.

        Raises:
            ValueError: where the tables do not have the numbers.
        """


@runtime_checkable
class Computation(Protocol):
    """What makes tables itself, in place of methods that are trained: for claims that are exact, or about no policy."""

    def tables(self, seed: int) -> dict[str, pd.DataFrame]:
        """Tables by name; one that measures read has a column ``method``, which says whose a row is. All that is
        random in them follows from the seed and the settings."""


@dataclass(frozen=True)
class Context:
    """What the builder hands to a class that asks for it by parameter name."""

    world: World | None = None
    features: Features | None = None
    store: Store | None = None
