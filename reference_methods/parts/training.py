"""The settings of a training: one set for every method, and the few that one's own samples add."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, Literal, cast

from farm.base.bounds import Bounded, Count, Natural, NotNegative, Positive, Share
from farm.base.errors import UserError
from farm.hardware import processes
from farm.roles.protocols import Learning, Policy, Scorer
from farm.roles.work import Texts
from reference_methods.parts.optimization import Schedule

Tune = Literal["full", "lora", "last_layers"]


@dataclass(frozen=True, kw_only=True)
class Training(Bounded):
    """What trains, how it is stepped, and how a long training survives. A :class:`~trainer.Trainer` reads them; methods
    inherit them and give their own defaults."""

    epochs: Count = 1
    """passes over the data, or over each batch of one's own samples"""
    learning_rate: NotNegative = 1e-5
    """the peak"""
    schedule: Schedule = "linear"
    warm_up: Share = 0.0125
    """share of the optimizer steps over which the learning rate rises"""
    max_gradient_norm: Positive = 1.0
    """to which the gradient is clipped; .inf clips nothing"""
    adam_epsilon: Positive = 1e-8
    micro_batch_tokens: Count | Literal["auto"] = "auto"
    """most tokens of one forward and backward pass, besides padding; changes memory and speed, not the result. ``auto``
    is what an accelerator's memory holds, and 4096 on a processor"""
    tune: Tune | None = None
    """``full``, ``lora`` (adapters on every linear layer; the SFT policy, which is the base without them, is not held
    twice) or ``last_layers`` (the last so many; twice as fast on a processor); left out, as the world's policy is"""
    last_layers: Count = 8
    """how many, with ``tune: last_layers``"""
    lora_rank: Count = 16
    lora_alpha: Positive = 32.0
    """the adapters' output is multiplied by this over the rank"""
    gradient_checkpointing: bool = False
    """compute each layer's activations a second time in the backward pass instead of keeping them: less memory, a third
    more computing"""
    shard: bool = False
    """of several processes each holds a part of what trains, with its gradients and moments (FSDP), and the whole model
    only to sample and score; a single process holds everything anyway"""
    checkpoint_minutes: NotNegative = 10.0
    """how often a long training leaves a checkpoint to go on from; 0 after every step"""

    def start(self, learning: Learning) -> Policy:
        """A copy of the SFT policy in which what is to be trained trains."""
        processes.start()
        policy: Any = learning.policy
        changed = self.changed(learning.seed)
        if not changed or (self.tune == "full" and not hasattr(policy, "with_settings")):
            return policy.copy()
        if not hasattr(policy, "with_settings"):
            raise UserError(f"tune: {self.tune} is for language models, not for a {type(policy).__name__}")
        return policy.with_settings(**changed)

    def start_scorer(self, learning: Learning, head: str | None = None) -> Scorer:
        """A new scalar model on a copy of the SFT policy's body, in which what is to be trained trains.

        ``head`` is what the score of a language model reads; as its settings say where None.
        """
        processes.start()
        policy: Any = self.start(learning) if self.changed(learning.seed) else learning.policy
        if head is None:
            return cast(Scorer, policy.scorer(learning.seed))
        if not hasattr(policy, "with_settings"):
            raise UserError(f"head: {head} is for language models, not for a {type(policy).__name__}")
        return cast(Scorer, policy.scorer(learning.seed, head))

    def shard_networks(self, networks: Iterable[Any]) -> None:
        """Spread these policies and scorers over the processes, if ``shard`` says so."""
        several = list(networks) if self.shard and processes.world_size() > 1 else []
        for network in several:
            if not hasattr(network, "shard"):
                what = "policies and reward models that are language models"
                raise UserError(f"shard: true is for {what}, not for a {type(network).__name__}")
        for network in several:
            network.shard()

    def gather(self, networks: Iterable[Any]) -> None:
        """Every process holds them whole again; all must ask at once."""
        for network in networks if self.shard and processes.world_size() > 1 else ():
            network.unshard()

    def facts(self) -> dict[str, Any]:
        """The plain settings, by which a checkpoint knows that it belongs to this training."""
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("checkpoint_minutes", "shard")}
        kinds = (str, int, float, bool, type(None))

        def is_plain(value: Any) -> bool:
            return all(map(is_plain, value)) if isinstance(value, list | tuple) else isinstance(value, kinds)

        return {"method": type(self).__name__, **{k: v for k, v in plain.items() if is_plain(v)}}

    def changed(self, seed: int) -> dict[str, Any]:
        """The policy settings that differ from what the world's policy says."""
        changed: dict[str, Any] = {"gradient_checkpointing": True} if self.gradient_checkpointing else {}
        if self.tune is not None:
            changed["train_layers"] = self.last_layers if self.tune == "last_layers" else None
            adapters = {"rank": self.lora_rank, "alpha": self.lora_alpha, "seed": seed}
            changed["lora"] = adapters if self.tune == "lora" else None
        return changed


@dataclass(frozen=True, kw_only=True)
class Offline(Training):
    """What training on rows that do not change adds."""

    batch_size: Count = 64
    """rows (responses or pairs) of one optimizer step"""
    schedule: Schedule = "cosine"
    warm_up: Share = 0.03

    def work(self, prompts: int, pairs: int) -> Texts | None:  # noqa: ARG002
        """Both responses of every pair in each epoch, and the reference's log-probabilities of them once."""
        return Texts(self.epochs * 2 * pairs, 2 * pairs) if pairs else None


@dataclass(frozen=True, kw_only=True)
class OnPolicy(Training):
    """What learning from one's own samples adds."""

    steps: Natural = 80
    """how often to sample a batch and learn from it"""
    samples_per_prompt: Count = 1
    temperature: Positive = 1.0
    """of the samples, and of every log-probability; greedy samples would be all the same"""
    max_new_tokens: Count | None = None
    """longest response; the policy's own limit where omitted"""
    minibatches: Count = 1
    """optimizer steps of one pass over a batch"""
