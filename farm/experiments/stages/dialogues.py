"""A policy talks to held-out users: the episodes in which success by turn is counted.

All methods meet the same users (what is hidden of an episode follows from the seed, the instruction and the episode)
and draw with the same random numbers. Each turn is kept as soon as it is over, so a stage that was killed goes on with
the next one, and comes to the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from farm.asking.replies import kept, replies
from farm.base import files, rng
from farm.experiments import making
from farm.experiments.setting import SFT, Setting
from farm.experiments.stages.answers import Answers
from farm.experiments.stages.method import MethodStage
from farm.experiments.stages.sft import Sft, sft_policy
from farm.experiments.stages.stage import Facts, Size, Stage, StageContext
from farm.roles.users import dialogues, episode_numbers
from farm.roles.work import Texts
from farm.tables.turns import Prompt, prompts_of, turns_of


@dataclass(frozen=True)
class Dialogues:
    """``dialogues.parquet``: one row a turn of an episode (farm.roles.users)."""

    setting: Setting
    of: str
    """a method, or SFT"""
    kind: ClassVar[str] = "dialogues"
    trains: ClassVar[bool] = False

    @property
    def method(self) -> str | None:
        return None if self.of == SFT else self.of

    def label(self) -> str:
        return f"{self.of} dialogues"

    def writer(self) -> Sft | MethodStage | None:
        """The stage that made the policy; None of the base policy."""
        return Answers(self.setting, self.of).writer()

    def reads(self) -> Sequence[Stage]:
        return tuple(stage for stage in (self.writer(),) if stage is not None)

    def describe(self) -> dict[str, Any]:
        e = self.setting.experiment
        asked = {"n": e.sizes.evaluation, "samples": e.sizes.samples, "split": e.split, "t": e.answer_temperature}
        user = {"user": self.setting.description["user"], "turns": e.turns}
        return {**self.setting.start, "asked": asked, **user, "seed": e.seed}

    def size(self) -> Size:
        e = self.setting.experiment
        n = e.sizes.evaluation * e.sizes.samples * e.turns  # at most
        paid = not self.setting.user_is_free
        return Size(n, like=self.setting.description["user"], texts=Texts(written=n), asks_while_learning=paid)

    def make(self, at: StageContext) -> Facts | None:
        s, e = self.setting, self.setting.experiment
        user = kept(s.user(e.split), at.place.checkpoints / "replies")
        writer = self.writer()
        policy = sft_policy(s, at) if self.method is None or writer is None else s.policy(at.folder(writer))
        held_out = prompts_of(s.world.instructions(e.split, e.sizes.evaluation))
        prompts = [prompt for prompt in held_out for _ in range(e.sizes.samples)]
        sample = np.tile(np.arange(e.sizes.samples, dtype=np.uint64), len(held_out))
        episode = episode_numbers(prompts)
        seed = rng.torch_seed(s.seed, "held-out users")

        def take(turn: int, going: list[Prompt], rows: rng.Ids) -> pd.DataFrame:
            done = at.place.checkpoints / f"turn {turn}.parquet"
            if done.exists():
                return pd.read_parquet(done)
            shown, t = f"{self.of} talks, turn {turn + 1} of {e.turns}", e.answer_temperature
            samples = making.sample(
                s, policy, going, f"dialogues/turn {turn}", t, shown, at.place.progress, draws=sample[rows]
            )
            written = samples.frame(self.of)
            asked = written[["instruction", "output", "finish_reason"]].assign(
                turns=[list(turns_of(prompt)[1:]) for prompt in going], episode=episode[rows], turn=turn
            )
            table = replies(user, asked, seed=seed)
            with files.replacing(done) as new:
                table.to_parquet(new, index=False)
            return pd.read_parquet(done)  # as a stage that goes on from here would find it

        parts = list(dialogues(take, prompts, np.arange(len(prompts), dtype=np.uint64), e.turns))
        table = pd.concat(parts, ignore_index=True)
        table.insert(0, "method", self.of)
        table.to_parquet(at.place.folder / "dialogues.parquet", index=False)
        return {"replies": len(table), "price": float(table["price"].sum())}
