"""Expert iteration: the best of n samples become the demonstrations of the next supervised fine-tuning.

    for each round:  y*(x) = argmax over i <= n of r(x, y_i), y_i ~ pi_k;   pi_{k+1} = SFT of pi_ref on {(x, y*(x))}

A perfect fit is the best-of-n distribution (see ``best_of_n``), without its cost at writing; after k rounds the best
of n^k. Also known as best-of-n distillation and, in one of its forms, RAFT (arXiv 2304.06767).

Paper: AlpacaFarm (arXiv 2305.14387), after Anthony et al. (arXiv 1705.08439): one round, best of 16 on the unlabelled
prompts at temperature 1, then SFT from the SFT policy with the settings of ``sft``, which are the defaults here.
"""

from __future__ import annotations

from dataclasses import dataclass

from farm.base.bounds import Count, Positive
from farm.base.errors import UserError
from farm.roles.protocols import Learning, Policy
from farm.roles.work import Texts
from farm.tables.turns import prompts_of
from reference_methods.imitation.sft import SFT
from reference_methods.parts.batches import prompt_stream, sampled, tokens_at_once
from reference_methods.parts.checkpoints import CurrentPolicy
from reference_methods.parts.rollouts import sample_metrics
from reference_methods.parts.scored import Scored
from reference_methods.parts.trainer import Trainer
from reference_methods.selection.best_of_n import BestOfNPolicy


@dataclass(frozen=True, kw_only=True)
class ExpertIteration(Scored, SFT):
    """Fine-tunes the policy on the best of its own samples for ``prompts``."""

    n: Count = 16
    """responses drawn for each one learnt from"""
    rounds: Count = 1
    prompts: Count | None = None
    """how many prompts of each round, drawn anew in each; all there are where omitted"""
    temperature: Positive = 1.0

    def work(self, prompts: int, pairs: int) -> Texts:  # noqa: ARG002
        kept = self.rounds * (self.prompts or prompts)
        return Texts(self.epochs * kept, self.n * kept, self.n * kept)

    def train(self, learning: Learning) -> Policy:
        if not len(learning.prompts):
            raise UserError("expert_iteration needs prompts to sample for: raise `sizes.prompts`")
        scorer = self.scorer(learning)
        instructions = prompts_of(learning.prompts)
        count = self.prompts or len(instructions)
        asked = list(prompt_stream(instructions, count, self.rounds, learning.seed, "expert_iteration/prompts"))
        lines = self.rounds * (1 + self.epochs * -(-count // self.batch_size))  # sampling is a line too
        tokens = tokens_at_once(self.micro_batch_tokens, scorer, training=False)
        current = CurrentPolicy(self.start(learning))
        with Trainer(self, learning, "expert_iteration", state={"policy": current}) as trainer:
            for k in trainer.steps(self.rounds, of=instructions, lines=lines):
                purpose = f"expert_iteration/round {k}"
                experts = BestOfNPolicy(current.policy, scorer, self.n, tokens)
                best = sampled(experts, asked[k], seed=learning.seed, purpose=purpose, temperature=self.temperature)
                trainer.log(**sample_metrics(best, learning))
                current.policy = self.start(learning)
                self.imitate(current.policy, best, trainer.part("sft"), purpose)
        return current.policy
