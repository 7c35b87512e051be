"""The quiz of :mod:`farm.worlds.quiz_table` for a language model: a small Llama, trained from scratch on episodes.

A document is an episode up to one of its answers. What happened comes first and the question last, so that a model of
this size has learned in seconds to look both up:

    <bos> answer 5 AGAIN answer 5 AGAIN topic 2 : train question 7 <answer> answer 1 <eos>

The first answer is drawn from the belief of the topic, p_k ~ 1 / k^s; each later one is, with probability ``stubborn``,
the last one again, and else drawn from the belief in those that were not tried. So the model's episodes are known, but
for what it learned badly. With K = 8, s = 1/2, stubborn = .65 and five turns, exactly:

    success within           one turn    five turns    the second answer repeats the first
    base                     .142        .332          .65
    best for one turn        .229        .229          1
    best (never repeats)     .229        .739          0

Users say AGAIN, which is one token; what else they say the model does not know. The trained model is kept under an
address of its settings and of this code.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from farm.base import rng
from farm.base.arrays import Ints
from farm.base.bounds import Count, NotNegative, Share, bounded
from farm.hardware.device import Device
from farm.hardware.models import load_causal_lm, save_causal_lm
from farm.policies.language_model import LanguageModelPolicy
from farm.roles.protocols import Policy
from farm.storage import sealed
from farm.storage.store import address, home
from farm.worlds import from_scratch
from farm.worlds.pocket.vocabulary import ANSWER, BEGIN, END, PAD, SPECIALS, UNKNOWN
from farm.worlds.quiz_table import QuizTableWorld

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


AGAIN = "Incorrect. Please think again."
"""what the user ``try_again`` says"""
TRIED = 4
"""the most earlier answers in a document"""
CONTEXT = 64
"""tokens: room for 28 turns"""
HIDDEN, LAYERS, HEADS, FEED_FORWARD = 64, 2, 4, 192
BATCH, LEARNING_RATE = 64, 5e-3
TEMPLATE = (  # what happened first, the question last
    f"{BEGIN}{{% for m in messages[1:] %}}{{{{ m.content }}}} {{% endfor %}}{{{{ messages[0].content }}}}{ANSWER}"
)


class QuizWorld(QuizTableWorld):
    """Topics with beliefs over the same answers, questions of each topic, and a language model that answers them.

    Args:
        topics: how many.
        answers: K, how many answers each question may have.
        exponent: s, how unequal the belief is; 0 is uniform.
        stubborn: how often the base model gives its last answer again.
        questions: of each topic, in each split.
        documents: that the base model is trained on.
        seed: of the orders of the answers, the documents and the base model.
    """

    device: ClassVar[Device] = "cpu"
    """where a model of a tenth of a million parameters is faster"""

    @bounded
    def __init__(
        self,
        topics: Count = 4,
        answers: Count = 8,
        exponent: NotNegative = 0.5,
        stubborn: Share = 0.65,
        questions: Count = 50,
        documents: Count = 40_000,
        seed: int = 0,
    ) -> None:
        super().__init__(topics, answers, exponent, None, questions, seed)
        self.stubborn, self.documents, self.seed = float(stubborn), documents, seed

    def base_policy(self) -> Policy:
        settings = self.beliefs.tolist(), self.stubborn, self.questions, self.documents, self.seed
        code = hashlib.blake2b(Path(__file__).read_bytes() + Path(from_scratch.__file__).read_bytes()).hexdigest()
        folder = home() / "worlds" / f"quiz-{address(*settings, code).hex()[:16]}"
        if not sealed.whole(folder):
            with sealed.written(folder) as new:
                save_causal_lm(self._trained(), self.tokenizer(), new)
        model, tokenizer = load_causal_lm(str(folder), device="cpu")
        never = [i for i, token in enumerate(SPECIALS) if token != END]
        return LanguageModelPolicy(model, tokenizer, forbidden_tokens=never, max_new_tokens=2)

    # --- the model --------------------------------------------------------------------------------------------------

    @property
    def _tokens(self) -> list[str]:
        words = [AGAIN, ":", "train", "validation", "test", "question", *map(str, range(1, self.questions + 1))]
        return [*SPECIALS, *self.topics, *self.answers, *words]

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """A token for each topic, answer, word of a question, and AGAIN; all else is unknown."""
        from tokenizers import Regex, Tokenizer, models, pre_tokenizers
        from transformers import PreTrainedTokenizerFast

        inner = Tokenizer(models.WordLevel({token: i for i, token in enumerate(self._tokens)}, unk_token=UNKNOWN))
        whole = "|".join(re.escape(text) + r"(?!\w)" for text in (AGAIN, *self.topics, *self.answers))
        inner.pre_tokenizer = pre_tokenizers.Split(Regex(rf"{whole}|\w+|[^\w\s]"), behavior="removed", invert=True)
        names = {"pad_token": PAD, "bos_token": BEGIN, "eos_token": END, "unk_token": UNKNOWN}
        return PreTrainedTokenizerFast(
            tokenizer_object=inner,
            clean_up_tokenization_spaces=False,
            padding_side="left",
            additional_special_tokens=[ANSWER],
            chat_template=TEMPLATE,
            **names,
        )

    def _episodes(self, draw: np.random.Generator, topic: Ints, tried: int) -> Ints:
        """The answers of episodes, [n, tried + 1]."""
        n, answers = len(topic), np.zeros((len(topic), tried + 1), dtype=np.int64)
        left = self.beliefs[topic].copy()
        for turn in range(tried + 1):
            total = left.sum(1, keepdims=True)
            shares = left / np.where(total > 0, total, 1)
            new = np.minimum((shares.cumsum(1) <= draw.random(n)[:, None]).sum(1), left.shape[1] - 1)
            again = (draw.random(n) < self.stubborn) | (total[:, 0] <= 0) if turn else np.zeros(n, dtype=bool)
            answers[:, turn] = np.where(again, answers[:, turn - 1], new)
            left[np.arange(n), answers[:, turn]] = 0.0
        return answers

    def _batches(self) -> Iterator[torch.Tensor]:
        """Token ids of documents, [batch, T]; those of a batch have as many earlier answers."""
        same = {token: np.full(BATCH, place) for place, token in enumerate(self._tokens)}
        topics, answers, numbers, splits = (same[token] for token in ("topic 1", "answer 1", "1", "train"))
        for step in range(self.steps):
            draw = rng.generator(self.seed, "quiz documents", step)
            topic, question = draw.integers(0, len(self.topics), BATCH), draw.integers(0, self.questions, BATCH)
            split = draw.integers(0, 3, BATCH)
            *tried, last = self._episodes(draw, topic, step % (TRIED + 1)).T
            history = [column for answer in tried for column in (answers + answer, same[AGAIN])]
            asked = [topics + topic, same[":"], splits + split, same["question"], numbers + question, same[ANSWER]]
            columns = [same[BEGIN], *history, *asked, answers + last, same[END]]
            yield torch.from_numpy(np.stack(columns, axis=1))

    @property
    def steps(self) -> int:
        """Of the base model's training."""
        return -(-self.documents // BATCH)

    def _trained(self) -> Any:
        """The base model; the loss is on the answer that a document ends with alone."""
        shape = (HIDDEN, LAYERS, HEADS, FEED_FORWARD, CONTEXT)
        model = from_scratch.started(len(self._tokens), *shape, self.seed)

        def loss(ids: torch.Tensor) -> torch.Tensor:
            hidden = model.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state[:, -2:]
            return cross_entropy(model.lm_head(hidden).flatten(0, 1), ids[:, -2:].flatten())

        return from_scratch.trained(model, self._batches(), self.steps, loss, LEARNING_RATE, "the quiz's base model")
