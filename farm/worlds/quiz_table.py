"""Questions whose answer is hidden, as a table: a user can be asked again and again, and every success rate is known.

A question belongs to a topic. Of a topic it is believed how often each of K answers is the right one, p_k ~ 1 / k^s in
an order of its own, and the right answer of an episode is drawn from that belief. The base policy answers by the belief
and forgets what it tried; it is a softmax with logits b_a of the topic (b = log p) and one logit w for all topics of
answers that the conversation already has (w = 0). With K = 8, s = 1 and five turns, exactly:

    success within           one turn                five turns
    base                     sum p^2 = .207          sum p (1 - (1 - p)^5) = .604
    best for one turn        max p = .368            .368: it repeats its answer
    blind to history         .207 to .368            at most .618
    best (never repeats)     .368                    sum of the five largest p = .840

That the second row loses what the base had holds for *shared* logits: with logits of their own for each history, what
was never tried while learning stays as it was. So topics are few, questions many, and the table is keyed by the topic.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from farm.base import rng
from farm.base.arrays import Floats
from farm.base.bounds import Count, NotNegative, bounded
from farm.base.errors import UserError, brief, nearest
from farm.hardware.device import Device
from farm.policies.tabular import TabularPolicy
from farm.roles.protocols import Features, Policy
from farm.tables.turns import Prompt, prompts_of, turns_of


class Beliefs:
    """How probable it is that an answer is right, given what the conversation has shown to be wrong."""

    gold_weights: ClassVar[dict[str, float]] = {"right": 1.0}

    def __init__(self, topics: Sequence[str], answers: Sequence[str], beliefs: Floats) -> None:
        self.topic = {topic: row for row, topic in enumerate(topics)}
        self.answer = {answer: column for column, answer in enumerate(answers)}
        self.beliefs = beliefs

    def __call__(self, instructions: Sequence[Prompt], outputs: Sequence[str]) -> pd.DataFrame:
        right = [self.right(prompt, output) for prompt, output in zip(instructions, outputs, strict=True)]
        return pd.DataFrame({"right": right, "length": 1, "lists": 0})

    def row(self, prompt: Prompt) -> int:
        """Of the topic that stands before the colon of a question. Raises UserError for one that there is not."""
        question = turns_of(prompt)[0]
        topic = question.split(":")[0]
        if topic not in self.topic:
            hint = nearest(topic, self.topic)
            raise UserError(f"the quiz: the question {brief(question, 60)!r} is of no topic that it knows; {hint}")
        return self.topic[topic]

    def right(self, prompt: Prompt, output: str) -> float:
        """P(the answer is right | those in the conversation are wrong); 0 of one that is no answer."""
        _, *history = turns_of(prompt)
        belief, column = self.beliefs[self.row(prompt)], self.answer.get(output)
        tried = {self.answer[text] for text in history[::2] if text in self.answer}
        if column is None or column in tried:
            return 0.0
        return float(belief[column] / (1 - sum(belief[k] for k in tried)))


class QuizTableWorld:
    """Topics with beliefs over the same answers, and questions of each topic.

    Args:
        topics: how many.
        answers: K, how many answers each question may have.
        exponent: s, how unequal the belief is; 0 is uniform.
        again: w at the start: below 0 a policy that avoids what it tried, above 0 one that repeats it. null: a policy
            that cannot see what it tried, for controls.
        questions: of each topic, in each split.
        seed: of the orders of the answers.
    """

    device: ClassVar[Device] = "cpu"
    """where its tables stay"""
    features: Features
    truth_known: bool

    @bounded
    def __init__(
        self,
        topics: Count = 4,
        answers: Count = 8,
        exponent: NotNegative = 1.0,
        again: float | None = 0.0,
        questions: Count = 50,
        seed: int = 0,
    ) -> None:
        self.topics = [f"topic {t + 1}" for t in range(topics)]
        self.answers = [f"answer {k + 1}" for k in range(answers)]
        self.again, self.questions = again, questions
        share = np.arange(1, answers + 1) ** -float(exponent)
        ids = np.arange(answers, dtype=np.uint64)
        orders = [rng.permutation(ids, seed, f"answers of {topic}") for topic in self.topics]
        self.beliefs = np.stack([(share / share.sum())[np.argsort(order)] for order in orders])
        self.truth_known = True
        self.features = self._beliefs = Beliefs(self.topics, self.answers, self.beliefs)

    def instructions(self, split: str, limit: int | None = None) -> pd.DataFrame:
        """Each split has questions of its own; those of all topics in turn."""
        asked = [f"{topic}: {split} question {n + 1}" for n in range(self.questions) for topic in self.topics]
        return pd.DataFrame({"instruction": asked, "split": split, "dataset": "quiz"})[:limit]

    def demonstrations(self, limit: int | None = None) -> pd.DataFrame | None:  # noqa: ARG002
        """None: the base policy answers already."""
        return None

    def base_policy(self) -> Policy:
        return TabularPolicy(self.topics, self.answers, np.log(self.beliefs), state="topic", again=self.again)

    def hidden(self, prompts: Sequence[Prompt], episodes: rng.Ids, seed: int) -> NDArray[np.int64]:
        """The column of the right answer of each episode, [n]."""
        first = [turns_of(prompt)[0] for prompt in prompts]
        rows = self.beliefs[[self._beliefs.row(text) for text in first]].cumsum(1)
        draws = rng.uniform(seed, "the right answer", rng.text_ids(first), episodes)
        return np.minimum((rows <= draws[:, None]).sum(1), len(self.answers) - 1).astype(np.int64)

    def right(self, episodes: pd.DataFrame, *, seed: int) -> NDArray[np.bool_]:
        """As :meth:`farm.roles.users.Verifier.right`."""
        ids = episodes["episode"].to_numpy(np.uint64)
        said = [self._beliefs.answer.get(text, -1) for text in episodes["output"]]
        return np.asarray(self.hidden(prompts_of(episodes), ids, seed) == np.array(said, dtype=np.int64))
