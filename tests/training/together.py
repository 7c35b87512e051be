"""Run by ``test_processes`` under torchrun: train, and leave what was learned and logged in a folder.

python together.py FOLDER METHOD MICRO_BATCH_TOKENS [SETTING=VALUE ...]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import save_file

from farm.base.errors import UserError
from farm.experiments.asker import FeedbackAsker
from farm.feedback.kind import kind
from farm.hardware import processes
from farm.policies import trees
from farm.policies.language_model import LanguageModelPolicy
from farm.policies.trees import KEY
from farm.tables.records import USAGE_COLUMNS
from reference_methods.games.sppo import SPPO
from reference_methods.imitation.sft import SFT
from reference_methods.online.ppo import PPO
from reference_methods.online.rloo import RLOO
from reference_methods.online.ufo import UFO
from reference_methods.pairs.dpo import DPO
from reference_methods.parts.batches import in_parts, log_likelihoods, sampled
from reference_methods.parts.games.feedback import AskedFeedback
from tests.policies.conftest import PROMPTS, small_model, word_tokenizer
from tests.training.conftest import everything, numbers


def methods(micro_batch_tokens: int, **more: Any) -> dict[str, Any]:
    online = {"steps": 2, "rollouts": 12, "minibatches": 2, "learning_rate": 1e-4, "missing_eos_reward": None}
    shared = {"micro_batch_tokens": micro_batch_tokens, "max_gradient_norm": 0.5, **more}
    return {
        "sft": SFT(epochs=1, batch_size=8, learning_rate=1e-3, **shared),
        "dpo": DPO(epochs=1, batch_size=8, learning_rate=1e-3, **shared),
        "rloo": RLOO(**online, **shared),
        "ppo": PPO(value_learning_rate=1e-3, **online, **shared),
        "ufo": UFO(value_learning_rate=1e-3, max_turn=2, samples_per_prompt=2, kept_share=0.5, **online, **shared),
        **({} if more else {"sppo": SPPO(steps=2, prompts_per_step=6, learning_rate=1e-4, **shared)}),
    }


class Even:
    """A user who is content with an even number of words, and counts how often it was asked."""

    def __init__(self) -> None:
        self.replies = 0

    def reply(self, episodes: pd.DataFrame, *, seed: int) -> pd.DataFrame:
        self.replies += len(episodes)
        right = (episodes["output"].str.split().str.len() % 2 == 0).to_numpy()
        free = dict.fromkeys(USAGE_COLUMNS, 0.0)
        return episodes.assign(reply="w3", reward=right.astype(float), done=right, status="ok", **free)


def main(folder: Path, names: list[str], micro_batch_tokens: int, share_prompts: bool = False, **more: Any) -> None:
    """``share_prompts``: responses to one prompt are branches of one sequence, though the model is narrow."""
    torch.set_num_threads(1)
    trees.KEY = 0.0 if share_prompts else KEY
    processes.start()
    policy = LanguageModelPolicy(small_model().double(), word_tokenizer(), template="{prompt}", max_new_tokens=12)
    given, user = everything(policy), Even()
    given = replace(given, user=user)
    for name in names:
        lines: list[dict[str, float]] = []
        learned = methods(micro_batch_tokens, **more)[name].train(replace(given, log=lines.append))
        out = folder / f"rank{processes.rank()}"
        out.mkdir(parents=True, exist_ok=True)
        save_file({"parameters": numbers(learned)}, out / f"{name}.safetensors")
        (out / f"{name}.json").write_text(json.dumps(lines))
        samples = learned.sample(PROMPTS, seed=0, purpose="after", temperature=0)
        (out / f"{name}.txt").write_text("\n".join(samples.outputs))
    (folder / f"rank{processes.rank()}" / "replies.txt").write_text(str(user.replies))
    stopped(given, folder)
    mistaken(given, folder)
    asked(given, folder)
    processes.wait()


def stopped(given: Any, folder: Path) -> None:
    """An alarm in the log of the first process ends the training in every process."""

    def log(metrics: dict[str, float]) -> None:
        if metrics["step"] == 1:
            raise UserError("an alarm")

    try:
        methods(10**6)["sft"].train(replace(given, log=log))
    except UserError as error:
        (folder / f"rank{processes.rank()}" / "stopped.txt").write_text(str(error))


def mistaken(given: Any, folder: Path) -> None:
    """A text or a prompt that does not fit, which one process alone looks at, is told by every process."""
    policy, long = given.policy, " ".join(["w1"] * 100)
    texts = policy.encode([*PROMPTS[:3], "w2"], ["w3", "w4", "w5", long])
    demonstrations = pd.concat([given.demonstrations, pd.DataFrame({"instruction": ["w2"], "output": [long]})])
    asked: dict[str, Callable[[], Any]] = {
        "sampled": lambda: sampled(policy, [long, *PROMPTS[:3]], seed=0, purpose="t"),
        "in parts": lambda: in_parts(lambda part: log_likelihoods(policy, part), texts, 10, together=True),
        "trained": lambda: methods(40)["sft"].train(replace(given, demonstrations=demonstrations)),
    }
    told = {}
    for name, ask in asked.items():
        try:
            ask()
        except UserError as error:
            told[name] = str(error)
    (folder / f"rank{processes.rank()}" / "mistaken.json").write_text(json.dumps(told))


class Counts:
    """An annotator that counts its rows, and refuses the third question."""

    def __init__(self, annotator: Any) -> None:
        self.annotator, self.rows, self.questions = annotator, 0, 0

    def annotate(self, pairs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        self.rows, self.questions = self.rows + len(pairs), self.questions + 1
        if self.questions == 3:
            raise UserError("the budget is spent")
        return self.annotator.annotate(pairs, seed=seed, replicate=replicate)  # type: ignore[no-any-return]


def asked(given: Any, folder: Path) -> None:
    """Duels are asked about by one process, and every process gets the verdicts, or hears why there are none."""
    counts = Counts(given.asked["pairs"].giver)
    feedback = AskedFeedback(replace(given, asked={"pairs": FeedbackAsker(kind("pairs"), counts, 0)}))
    first, second = (
        given.policy.encode(PROMPTS[:3], texts) for texts in (["w1", "w2 w3", "w4"], ["w5 w6", "w7", "w8"])
    )
    verdicts = [feedback(first, second).tolist(), feedback(second, first).tolist()]
    try:
        feedback(first, second)
        told = ""
    except UserError as error:
        told = str(error)
    found = {"rows": counts.rows, "queries": feedback.queries, "verdicts": verdicts, "told": told}
    (folder / f"rank{processes.rank()}" / "asked.json").write_text(json.dumps(found))


if __name__ == "__main__":
    settings = {name: json.loads(value) for name, value in (text.split("=") for text in sys.argv[4:])}
    main(Path(sys.argv[1]), sys.argv[2].split(","), int(sys.argv[3]), **settings)
