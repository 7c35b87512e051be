"""Playing a preference game with any policy: the loop of the plain games.

A step is: sample n responses to each of some prompts, let them duel (one another, or an opponent's responses), turn
the verdicts into a loss of their log-probabilities, and take gradient steps. The methods differ in the loss and in the
opponent; those that take an extragradient have a loop of their own (``egpo``).

The same losses are proven in the table with exact expectations (``games.table``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torch import Tensor

from farm.roles.protocols import Learning, Policy
from reference_methods.parts.batches import Batch, index
from reference_methods.parts.games.duels import Group
from reference_methods.parts.games.losses import Play
from reference_methods.parts.games.settings import GameSettings
from reference_methods.parts.games.trainer import GameTrainer


@dataclass(frozen=True, kw_only=True)
class Game(GameSettings):
    """The loop of the game methods, which give their own defaults, a loss, and an opponent."""

    def train(self, learning: Learning) -> Policy:
        policy = self.start(learning)
        opponent = self.opponent(policy, learning.reference)
        with GameTrainer(self, learning, policy, opponent=opponent) as trainer:
            for group in trainer.groups():
                self.improve(trainer, group, trainer.duels(group, opponent.policy()))
                opponent.update()
        return policy

    def improve(self, trainer: GameTrainer, group: Group, play: Play) -> None:
        """Gradient steps on what the duels said."""
        for batch in trainer.minibatches(group.training_rows()):
            trainer.update(batch, partial(self.group_loss, trainer, group, play))

    def group_loss(
        self, trainer: GameTrainer, group: Group, play: Play, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        log_probabilities = trainer.log_likelihoods(group, batch)
        part = play.select(index(batch.rows, log_probabilities))
        return batch.mean(self.loss(log_probabilities, part)), {
            "win_rate": batch.mean(part.weights * part.wins),
            "drift": batch.mean((log_probabilities.detach() - part.start).abs().mean(1)),
        }
