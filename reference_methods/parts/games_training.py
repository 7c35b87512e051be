"""Playing a preference game with any policy: the settings and the loop of every game method.

A step is: sample n responses to each of some prompts, let them duel (one another, or an opponent's responses), turn
the verdicts into a loss of their log-probabilities, and take gradient steps. The methods differ in the loss, in the
opponent, and in whether the step is an extragradient; each says so in its own file.

The same losses are proven in the table with exact expectations (``games_table``).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from farm.errors import UserError
from farm.protocols import Learning, Method, Policy, PreferenceModel, Samples
from reference_methods.parts.batches import in_parts, index, prompt_stream, sampled
from reference_methods.parts.checkpoints import Checkpoints, Together
from reference_methods.parts.games_duels import Batch, Turn
from reference_methods.parts.games_feedback import AnnotatorFeedback, Feedback, ModelFeedback
from reference_methods.parts.games_gap import GapProbe
from reference_methods.parts.games_losses import Play
from reference_methods.parts.games_opponents import Live, Opponent, RestorableOptimizer, extragradient
from reference_methods.parts.optimization import Metrics, Schedule
from reference_methods.parts.rollouts import sample_metrics
from reference_methods.parts.sampler import keeps_likelihoods


@dataclass(frozen=True, kw_only=True)
class Game:
    """Settings of every game method. Methods inherit them, give their own defaults, and say what they minimise."""

    plays_regularised: ClassVar[bool] = True
    """whether the method seeks the equilibrium of the game with the KL; else that of the plain game"""
    table_update: ClassVar[Literal["natural gradient", "argmin"]] = "natural gradient"
    """what an exact update in the table is: a natural-gradient step on the loss, or its minimiser"""
    is_extragradient: ClassVar[bool] = False
    table_step: ClassVar[float] = 2.0
    """the step size of the table where none is given"""
    learns_from_pairs: ClassVar[bool] = False
    """whether the loss takes ``Play.preferences``, verdicts on pairs, instead of win rates"""
    uses_scores: ClassVar[bool] = False
    """whether ``Play.wins`` holds scores, log-odds of a preference model, instead of probabilities"""
    reference_samples: ClassVar[bool] = False
    """whether half of each group are samples of the reference"""

    beta: float = 0.1
    """strength of the KL to the SFT policy"""
    steps: int = 40
    """how often to sample a batch and learn from it"""
    prompts_per_step: int = 48
    samples_per_prompt: int = 4
    duels: int = 1
    """queries for each response, a step"""
    temperature: float = 1.0
    """of the samples, and of every log-probability"""
    max_new_tokens: int | None = None
    """longest response; the policy's own limit where omitted"""
    soft_labels: bool = False
    """whether to learn from the annotator's own probability, where it gives one, instead of its verdict"""
    preference_model: Method | None = None
    """what gives the preference model that then decides the duels, not the annotator: a method that fits one to the
    annotated pairs, ``shared_preference`` for the experiment's own, or ``reward_preference``"""
    cut_responses_lose: bool = False
    """whether a response that did not end by itself loses its duels with those that did, without being asked for"""
    gap_every: int = 0
    """steps between two measurements of the gap to the best answer (``games_gap``), on the annotator; 0 for none"""
    gap_prompts: int = 32
    """prompts of one such measurement"""
    epochs: int = 1
    """passes over each batch"""
    minibatches: int = 1
    """optimizer steps of one pass"""
    learning_rate: float = 1e-5
    """the peak"""
    schedule: Schedule = "linear"
    warm_up: float = 0.05
    """share of the optimizer steps over which the learning rate rises"""
    max_gradient_norm: float = 1.0
    micro_batch_tokens: int = 4096
    """most tokens, padding included, of one forward and backward pass; changes memory and speed, not the result"""
    checkpoint_minutes: float = 10.0
    """how often a long training leaves a checkpoint to go on from; 0 after every step"""

    def __post_init__(self) -> None:
        if self.beta < 0:
            raise ValueError(f"beta is the strength of a KL and cannot be {self.beta}")
        if self.samples_per_prompt < 2:
            raise ValueError("samples_per_prompt must be at least 2: the responses to a prompt are compared")
        if self.reference_samples and self.samples_per_prompt % 2:
            raise ValueError("samples_per_prompt must be even: half of them come from the reference")
        if not 1 <= self.duels < self.samples_per_prompt:
            raise ValueError(f"duels must be at least 1 and below samples_per_prompt ({self.samples_per_prompt})")
        if self.cut_responses_lose and self.uses_scores:
            raise ValueError("cut_responses_lose is for verdicts; this method learns from scores")
        if self.temperature <= 0:
            raise ValueError("the temperature must be positive: a method that learns from samples needs chance")
        if min(self.prompts_per_step, self.minibatches, self.epochs) < 1:
            raise ValueError("prompts_per_step, minibatches and epochs must be at least 1")
        if self.prompts_per_step % self.minibatches:
            raise ValueError("prompts_per_step must be a multiple of minibatches")

    # --- what a method says -------------------------------------------------------------------------------------------

    def loss(self, log_probabilities: Tensor, play: Play) -> Tensor:
        """The loss of each prompt from log pi(y_i) of its responses: [S, n] -> [S]."""
        raise NotImplementedError

    def opponent(self, learner: Policy, reference: Policy) -> Opponent:  # noqa: ARG002 (others need the reference)
        """Whom the learner plays against; itself unless a method says otherwise."""
        return Live(learner)

    @property
    def gradient_unit(self) -> float:
        """The natural gradient of the loss is this times one in the unit of a preference (the table's step size)."""
        return 1.0

    def in_table(self, step_size: float | None, iteration: int) -> tuple[Game, float]:  # noqa: ARG002
        """The method as it plays in the table, and the size of its step, in units of a preference."""
        if hasattr(self, "step_size"):
            size = self.step_size if step_size is None else step_size
            return (self if size == self.step_size else replace(self, step_size=size)), size  # type: ignore[call-arg]
        most = 1 / self.beta if self.beta else math.inf  # beyond it a step would overshoot the reference
        return self, min(self.table_step, most) if step_size is None else step_size

    @property
    def one_pass(self) -> bool:
        """Whether a step is one update on its whole batch: before it, the learner is the policy that sampled."""
        return self.epochs * self.minibatches == 1

    # --- the loop -----------------------------------------------------------------------------------------------------

    @property
    def needs(self) -> frozenset[str]:
        asked = {"annotator"} if self.preference_model is None else self.preference_model.needs
        return frozenset(asked | ({"annotator"} if self.gap_every else set()))

    def feedback(self, learning: Learning) -> Feedback:
        """Who decides the duels."""
        if self.preference_model is not None:
            # Its own training is logged where it is a stage of its own; here its steps are none of the game's.
            model = self.preference_model.train(replace(learning, log=lambda metrics: None, steps=lambda total: None))
            if not isinstance(model, PreferenceModel):
                raise UserError(f"preference_model: {type(self.preference_model).__name__} fits no preference model")
            return ModelFeedback(model, self.micro_batch_tokens, self.uses_scores)
        if learning.annotator is None:
            raise UserError(f"{type(self).__name__}: the annotator of the training feedback is missing")
        if self.uses_scores:
            raise UserError(f"{type(self).__name__}: it learns from a model's scores; give it a preference_model")
        return AnnotatorFeedback(learning.annotator, learning.seed, self.soft_labels)

    def train(self, learning: Learning) -> Policy:
        if not len(learning.prompts):
            raise UserError(f"{type(self).__name__}: there are no prompts to sample for")
        purpose = type(self).__name__
        feedback = self.feedback(learning)
        policy = learning.policy.copy()
        optimizer = RestorableOptimizer(
            [(policy.parameters(), self.learning_rate)],
            steps=self.steps * self.epochs * self.minibatches,
            schedule=self.schedule,
            warm_up=self.warm_up,
            max_gradient_norm=self.max_gradient_norm,
            purpose=purpose,
        )
        opponent = self.opponent(policy, learning.policy)
        learning.steps(self.steps)
        probe = self._probe(learning)
        kept = Together(opponent=opponent, feedback=feedback, probe=probe.feedback if probe else None)
        facts = self._facts(), learning.prompts["instruction"].tolist()
        checkpoints = Checkpoints(learning, purpose, optimizer, self.checkpoint_minutes, facts, kept)
        first = checkpoints.restore()
        for step, batch in enumerate(self._batches(policy, learning, purpose, first), start=first):
            started = time.perf_counter()
            measured = {"gap": probe(policy, step)} if probe and step % self.gap_every == 0 else {}
            turn = Turn(self, policy, batch, feedback, optimizer, learning.seed, f"{purpose}/step {step}")
            if self.is_extragradient:
                metrics = extragradient(policy, opponent.policy(), turn, optimizer)
            else:
                metrics = turn(opponent.policy())
            opponent.update()
            told = self._metrics(batch, feedback, learning, started)
            checkpoints.log({"step": step, **metrics, **measured, **told})
            checkpoints.after(step)
        return policy

    def _facts(self) -> dict[str, Any]:
        """The settings, by which a checkpoint knows that it belongs to this training."""
        model: Any = self.preference_model
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        plain["preference_model"] = model.facts() if hasattr(model, "facts") else type(model).__name__
        return {"method": type(self).__name__, **{k: v for k, v in plain.items() if k != "checkpoint_minutes"}}

    def _probe(self, learning: Learning) -> GapProbe | None:
        if not self.gap_every:
            return None
        if learning.annotator is None:
            raise UserError(f"{type(self).__name__}: gap_every asks the annotator, and there is none")
        return GapProbe(
            learning.annotator,
            learning.policy,
            learning.prompts["instruction"].tolist()[: self.gap_prompts],
            learning.seed,
            temperature=self.temperature,
            max_new_tokens=self.max_new_tokens,
        )

    def _batches(self, policy: Policy, learning: Learning, purpose: str, first: int = 0) -> Iterator[Batch]:
        """What the learner, and where asked the reference, write to the prompts of each step from the ``first``."""
        instructions = learning.prompts["instruction"].tolist()
        theirs = self.samples_per_prompt // 2 if self.reference_samples else 0
        stream = prompt_stream(instructions, self.prompts_per_step, self.steps, learning.seed, purpose)
        for step, prompts in enumerate(stream):
            if step < first:
                continue
            key, started = f"{purpose}/step {step}", time.perf_counter()
            parts = [self._sample(policy, prompts, self.samples_per_prompt - theirs, learning.seed, key)]
            if theirs:
                parts.append(self._sample(learning.policy, prompts, theirs, learning.seed, f"{key}/reference"))
            samples = _interleave(parts, len(prompts))
            is_theirs = np.arange(len(samples)) % self.samples_per_prompt >= self.samples_per_prompt - theirs
            if self.one_pass:  # which then has them, and costs no pass of its own
                start = torch.zeros(len(samples), device=next(policy.parameters()).device)
            else:
                start = self._likelihoods(policy, samples, ~is_theirs)
            reference = self._likelihoods(learning.policy, samples, is_theirs)
            shape = len(prompts), self.samples_per_prompt
            yield Batch(prompts, samples, start.view(shape), reference.view(shape), theirs, started)

    def _sample(self, policy: Policy, prompts: list[str], n: int, seed: int, purpose: str) -> Samples:
        return sampled(
            policy,
            [prompt for prompt in prompts for _ in range(n)],
            seed=seed,
            purpose=purpose,
            temperature=self.temperature,
            max_new_tokens=self.max_new_tokens,
        )

    def _likelihoods(self, policy: Policy, samples: Samples, own: NDArray[np.bool_]) -> Tensor:
        """log pi(y|x), [B]. What the policy drew itself (``own``, [B]) came with it; a pass computes the others."""
        if not keeps_likelihoods(policy):
            own = np.zeros_like(own)
        found = torch.zeros(len(samples))
        if own.any():
            drawn = [values.sum(dtype=np.float64) for values in samples.select(own).log_probabilities]
            found[torch.from_numpy(own)] = torch.tensor(drawn).to(found)
        if own.all():
            return found.to(next(policy.parameters()).device)

        def compute(part: Samples) -> Tensor:
            return policy.log_probabilities(part, self.temperature)[0].sum(1)

        others = in_parts(compute, samples.select(~own), self.micro_batch_tokens, together=True)
        found = found.to(others)
        found[index(np.flatnonzero(~own), found)] = others
        return found

    def _metrics(self, batch: Batch, feedback: Feedback, learning: Learning, started: float) -> Metrics:
        own = np.arange(len(batch.samples)) % batch.n < batch.n - batch.from_reference
        mine = slice(0, batch.n - batch.from_reference)
        written = batch.samples.select(own)
        tokens = max(1.0, float(written.lengths().sum()))
        metrics = {
            "kl": float((batch.start - batch.reference)[:, mine].mean()),
            "entropy": -float(batch.start[:, mine].sum()) / tokens,
            "queries": float(feedback.queries),
            "seconds": time.perf_counter() - started,
            "tokens_per_second": tokens / (time.perf_counter() - batch.started),
            **sample_metrics(written, learning),
        }
        if isinstance(feedback, AnnotatorFeedback):
            metrics["unanswered"] = float(feedback.unanswered)
        return metrics


def _interleave(parts: list[Samples], prompts: int) -> Samples:
    """Samples grouped by prompt in each part, regrouped so that all of a prompt stand together."""
    if len(parts) == 1:
        return parts[0]
    together, offset, places = Samples.concatenate(parts), 0, []
    for part in parts:
        each = len(part) // prompts
        places.append(offset + np.arange(prompts)[:, None] * each + np.arange(each))
        offset += len(part)
    return together.select(np.concatenate(places, axis=1).reshape(-1))
