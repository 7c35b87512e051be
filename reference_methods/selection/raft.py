"""RAFT, reward-ranked fine-tuning: again and again, imitate the best of a few samples, from where one stands.

    for each stage:  y*(x) = argmax over i <= n of r(x, y_i), y_i ~ pi_k, for a batch of prompts
                     pi_{k+1} = a few steps of SFT of pi_k on {(x, y*(x))}

Expert iteration in small steps: that begins each round again at the SFT policy and fits it on all prompts; this goes on
from the policy it has. Fitted perfectly, stage k has the best of n^k samples.

Paper: Dong et al. (arXiv 2304.06767), algorithm 1: batches of 2048 prompts, n 8 to 32, learning rate 2e-5, and its
acceptance ratio 1/n per prompt. Defaults here: 8 stages of 256 prompts, n 8, one epoch each. ``beta`` adds the paper's
penalty to the ranking, r(x, y) - beta (log pi_k(y|x) - log pi_ref(y|x)) (its section 5); 0 by default.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from torch import Tensor

from farm.base.bounds import Count, NotNegative, Positive, Share
from farm.base.errors import UserError
from farm.roles.protocols import Learning, Policy, Samples
from farm.roles.work import Texts
from farm.tables.turns import prompts_of
from reference_methods.imitation.sft import SFT
from reference_methods.parts.batches import prompt_stream, sampled
from reference_methods.parts.checkpoints import CurrentPolicy
from reference_methods.parts.optimization import Schedule
from reference_methods.parts.rollouts import sample_metrics
from reference_methods.parts.scored import Scored
from reference_methods.parts.trainer import Trainer


@dataclass(frozen=True, kw_only=True)
class RAFT(Scored, SFT):
    """Fine-tunes the policy on the best of its own samples, stage by stage."""

    n: Count = 8
    """responses drawn for each one learnt from"""
    stages: Count = 8
    prompts: Count = 256
    """of each stage"""
    beta: NotNegative = 0.0
    """the weight of the log ratio to the SFT policy in the ranking"""
    temperature: Positive = 1.0
    """of the samples, and of the log-probabilities in their log ratio; what is imitated is learnt at 1"""
    epochs: Count = 1
    batch_size: Count = 64
    schedule: Schedule = "constant"
    warm_up: Share = 0.0

    def work(self, prompts: int, pairs: int) -> Texts:  # noqa: ARG002
        kept = self.stages * self.prompts
        return Texts(self.epochs * kept, 2 * self.n * kept, self.n * kept)

    def train(self, learning: Learning) -> Policy:
        if not len(learning.prompts):
            raise UserError("raft needs prompts to sample for: raise `sizes.prompts`")
        instructions, reward_model = prompts_of(learning.prompts), self.scorer(learning)
        asked = list(prompt_stream(instructions, self.prompts, self.stages, learning.seed, "raft"))
        lines = self.stages * (1 + self.epochs * -(-self.prompts // self.batch_size))  # sampling is a line too
        policy = self.start(learning)
        with Trainer(self, learning, "raft", state={"policy": CurrentPolicy(policy)}) as trainer:
            for k in trainer.steps(self.stages, of=instructions, lines=lines):
                purpose = f"raft/stage {k}"
                samples = sampled(
                    policy,
                    [prompt for prompt in asked[k] for _ in range(self.n)],
                    seed=learning.seed,
                    purpose=purpose,
                    temperature=self.temperature,
                )
                scores = trainer.compute(reward_model.scores, samples)
                ratio = self.log_ratio(trainer, policy, learning.reference, samples)
                metrics = sample_metrics(samples, learning)
                trainer.log(reward=float(scores.mean()), kl=float(ratio.mean()), **metrics)
                best = (scores - self.beta * ratio).view(-1, self.n).argmax(1).cpu().numpy()
                chosen = samples.select(np.arange(len(best)) * self.n + best)
                self.imitate(policy, chosen, trainer.part("sft"), purpose)
        return policy

    def log_ratio(self, trainer: Trainer, policy: Policy, reference: Policy, samples: Samples) -> Tensor:
        """log policy - log reference of whole responses at the temperature of the samples, [B]."""

        def compute(writer: Policy, part: Samples) -> Tensor:
            return writer.log_probabilities(part, self.temperature)[0].sum(1)

        ours, theirs = (trainer.compute(partial(compute, writer), samples) for writer in (policy, reference))
        return ours - theirs
