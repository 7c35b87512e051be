"""The base model of the pocket world: a small Llama, trained from scratch on what the grammar writes.

Every document is a request and a response of a mediocre writer. The loss on text is over text tokens alone. Besides,
after every sentence and every topic word, and at the end of sequence, the model learns to say what the response is like
so far: for each aspect, the true verdict among that aspect's verdict tokens (farm.worlds.pocket.observations). Without
that a reward model of this size cannot find out from a few thousand comparisons what people value; with it, preferences
need only teach what is worth how much. Text and verdicts never compete for probability: a policy forbids the verdict
tokens, so its distributions are over text tokens too.

The trained model is kept under an address of its settings and of the code above; gold weights are no part of it.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, astuple, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from farm.base import progress, rng
from farm.base.arrays import Ints
from farm.hardware.models import load_causal_lm, save_causal_lm
from farm.policies.language_model import LanguageModelPolicy
from farm.storage import sealed
from farm.storage.store import address, home
from farm.worlds import from_scratch
from farm.worlds.pocket import grammar
from farm.worlds.pocket.grammar import Quality, Requests, Texts
from farm.worlds.pocket.observations import observe, verdicts
from farm.worlds.pocket.vocabulary import ANSWER, ASPECTS, BEGIN, BULLET, END, SPECIALS, pieces, surface, vocabulary
from farm.worlds.pocket.words import CONSTRAINTS, FORMS, STYLES, TOPICS

TEMPLATE = f"{BEGIN}{{prompt}}{ANSWER}"
CONTEXT = 128
LONGEST_RESPONSE = 72
"""tokens, end of sequence included; the longest response of the grammar has about as many"""
RELATED = 0.5
"""the share of the first embeddings' variance that a topic's name and its words have in common"""
ALIKE = 0.8
"""the share of the first key weights' variance that is that of the query weights"""

HARD = {"topic": 7.0, "strays": 7.0, "mention": 7.0, "opening": 4.0, "form": 4.0, "closing": 4.0, "constraint": 4.0}
"""Aspects that count more than once in the loss: to judge them, the response must be held against the request"""


@dataclass(frozen=True)
class Training:
    """How the base model is made."""

    documents: int = 14_000
    epochs: int = 2
    batch_size: int = 32
    learning_rate: float = 5e-3
    verdict_weight: float = 0.1
    """of the loss of one aspect's verdicts beside the loss on text"""
    hidden: int = 96
    layers: int = 3
    heads: int = 4
    feed_forward: int = 256


@dataclass(frozen=True)
class Documents:
    """n documents and the places in them where they are described."""

    ids: Ints
    """token ids, padded with 0 on the right [n, T]"""
    lengths: Ints
    """tokens of each [n]"""
    places: Ints
    """the described places of all documents, end to end [P]; positions in their document"""
    described: Ints
    """how many places each document has [n]"""
    verdicts: Ints
    """for each place and aspect, which of the aspect's verdicts is true [P, aspects]"""

    @cached_property
    def starts(self) -> Ints:
        """The first of each document's places [n]."""
        return np.cumsum(self.described) - self.described


def _ranges(starts: Ints, lengths: Ints) -> Ints:
    """start, start + 1, ..., for each of the ranges, end to end."""
    position: Ints = np.arange(int(lengths.sum()), dtype=np.int64)
    position += np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
    return position


def documents(requests: Requests, quality: Quality, n: int, seed: int) -> Documents:
    """n documents that answer requests drawn from the given ones."""
    v = vocabulary()
    chosen = requests.take(rng.generator(seed, "pocket requests").integers(0, len(requests), n))
    asked, said = grammar.request_texts(chosen), grammar.write(chosen, quality, seed, "pocket documents")
    lengths = asked.lengths + said.lengths + 3
    padded = np.zeros((n, int(lengths.max())), dtype=np.int64)
    padded[:, 0] = v.ids[BEGIN]
    rows = np.arange(n)
    padded[np.repeat(rows, asked.lengths), _ranges(np.ones(n, np.int64), asked.lengths)] = asked.ids
    padded[rows, asked.lengths + 1] = v.ids[ANSWER]
    padded[np.repeat(rows, said.lengths), _ranges(asked.lengths + 2, said.lengths)] = said.ids
    padded[rows, lengths - 1] = v.ids[END]

    # Where something has just been said: the response up to there is a text of its own.
    telling = np.array([token[-1] in ".!?" for token in v.tokens])
    telling[grammar.topic_words().ravel()] = True
    at = np.flatnonzero(telling[said.ids])
    start = np.cumsum(said.lengths) - said.lengths
    document = np.repeat(rows, said.lengths)[at]
    so_far = at - start[document] + 1
    # The whole response, at the end of sequence, is one more.
    document = np.r_[document, rows]
    so_far = np.r_[so_far, said.lengths]
    place = np.r_[so_far[: len(at)] + asked.lengths[document[: len(at)]] + 1, lengths - 1]
    order = np.argsort(document, kind="stable")
    document, so_far, place = document[order], so_far[order], place[order]
    partial = Texts(said.ids[_ranges(start[document], so_far)], so_far)
    truth = verdicts(observe(partial, chosen.take(document))) - _first_verdicts()
    return Documents(padded, lengths, place, np.bincount(document, minlength=n), truth)


def _first_verdicts() -> Ints:
    """The token id of each aspect's first verdict [aspects]."""
    sizes = [len(all_of) for all_of in ASPECTS.values()]
    return int(vocabulary().verdicts[0]) + np.cumsum([0, *sizes[:-1]])


def base_policy(requests: Requests, quality: Quality, training: Training, seed: int) -> LanguageModelPolicy:
    """The base model as a policy; trained now if it was not before."""
    folder = _place(requests, quality, training, seed)
    if not sealed.whole(folder):
        with progress.task("writing the pocket world's documents"):
            texts = documents(requests, quality, training.documents, seed)
        with sealed.written(folder) as new:
            save_causal_lm(train(texts, training, seed), vocabulary().tokenizer(), new)
    return _policy(*load_causal_lm(str(folder), device="cpu"))


def untrained_policy(
    requests: Requests, quality: Quality, training: Training, seed: int
) -> tuple[LanguageModelPolicy, int]:
    """A policy of the same size with random weights, and how many documents :func:`base_policy` has yet to train on."""
    trained = sealed.whole(_place(requests, quality, training, seed))
    policy = _policy(_new_model(training, seed).eval(), vocabulary().tokenizer())
    return policy, 0 if trained else training.documents * training.epochs


def _place(requests: Requests, quality: Quality, training: Training, seed: int) -> Path:
    """Where the base model is kept."""
    asked = hashlib.blake2b(np.stack(astuple(requests)).tobytes()).hexdigest()
    key = address(asdict(training), asdict(quality), seed, asked, _code()).hex()[:16]
    return home() / "worlds" / f"pocket-{key}"


def _policy(model: Any, tokenizer: Any) -> LanguageModelPolicy:
    return LanguageModelPolicy(
        model,
        tokenizer,
        template=TEMPLATE,
        forbidden_tokens=[i for i, token in enumerate(SPECIALS) if token != END] + vocabulary().verdicts.tolist(),
        max_new_tokens=LONGEST_RESPONSE,
        rows_at_once=512,
    )


def _code() -> str:
    """A digest of all code that determines the base model; what a text is worth is no part of it."""
    digest = hashlib.blake2b(Path(from_scratch.__file__).read_bytes(), digest_size=16)
    for name in ("words", "vocabulary", "grammar", "observations", "base_model"):
        digest.update(Path(__file__).with_name(f"{name}.py").read_bytes())
    return digest.hexdigest()


def train(texts: Documents, training: Training, seed: int) -> Any:
    """A model trained on these documents; it depends on the arguments alone."""
    model, batches = _new_model(training, seed), _batches(texts.lengths, training, seed)
    aspect_weights = training.verdict_weight * torch.tensor([HARD.get(aspect, 1.0) for aspect in ASPECTS])

    def loss(rows: Ints) -> torch.Tensor:
        language, description = losses(model, texts, rows)
        return language + description.mean(0) @ aspect_weights

    what = "the pocket world's base model"
    return from_scratch.trained(model, batches, len(batches), loss, training.learning_rate, what)


def _new_model(training: Training, seed: int) -> Any:
    """A model with random weights that can soon tell whether a word belongs to the topic asked for.

    To tell, attention must find the likes of a token, for which queries and keys have to agree; a small model left to
    itself does not get there in a thousand steps. So keys start out much like queries (compare Trockman and Kolter,
    "Mimetic initialization of self-attention layers", arXiv 2305.09828), and a topic's name and its words start out
    related, as in a model that has read more; likewise the pieces of a form, and a constraint and its style.
    """
    shape = (training.hidden, training.layers, training.heads, training.feed_forward)
    model = from_scratch.started(len(vocabulary()), *shape, CONTEXT, seed)
    with torch.no_grad():
        embedding = model.get_input_embeddings().weight
        for i, related in enumerate(_relatives()):
            draw = rng.generator(seed, "pocket relatives", i).normal(size=training.hidden)
            common = torch.from_numpy(draw).to(embedding) * from_scratch.INITIAL_DEVIATION
            embedding[related] = RELATED**0.5 * common + (1 - RELATED) ** 0.5 * embedding[related]
        for layer in model.model.layers:
            query, key = layer.self_attn.q_proj.weight, layer.self_attn.k_proj.weight
            key.mul_((1 - ALIKE) ** 0.5).add_(query, alpha=ALIKE**0.5)
    return model


def _relatives() -> list[list[int]]:
    """Groups of tokens with something in common: a topic, a form, or a constraint and the style it asks for."""
    ids = vocabulary().ids
    groups = [[ids[surface(t)], *words.tolist()] for t, words in zip(TOPICS, grammar.topic_words(), strict=True)]
    groups.extend(
        [ids[pieces(said)[0]] for said in (*form.requests, *form.openings, *form.heads, *form.closings)]
        for form in FORMS
    )
    for name, wordings in CONSTRAINTS.items():
        if name in STYLES:
            marks = [pieces(s)[0] for s in STYLES[name]] or [BULLET]
            groups.append([ids[piece] for piece in (*(pieces(w)[0] for w in wordings), *marks)])
    return groups


def _batches(lengths: Ints, training: Training, seed: int) -> list[Ints]:
    """Batches of documents of like length, so that hardly anything is padding, in an order drawn for each epoch."""
    out: list[Ints] = []
    size = training.batch_size
    for epoch in range(training.epochs):
        draw = rng.generator(seed, "pocket batches", epoch)
        order = draw.permutation(len(lengths))
        chunk = size * 32  # like lengths are sought among so many documents only, or every epoch has the same batches
        for part in np.split(order, np.arange(chunk, len(order), chunk)):
            part = part[np.argsort(lengths[part], kind="stable")]
            batches = part[: len(part) // size * size].reshape(-1, size)
            out.extend(batches[draw.permutation(len(batches))])
    return out


def losses(model: Any, texts: Documents, rows: Ints) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean next-token loss over text tokens, and the loss of every verdict [places, aspects], in nats."""
    longest = int(texts.lengths[rows].max())
    ids = torch.from_numpy(texts.ids[rows, :longest])
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
    embedding: torch.Tensor = model.lm_head.weight
    text_tokens = int(vocabulary().verdicts[0])
    logits = hidden[:, :-1] @ embedding[:text_tokens].T
    language = cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), ignore_index=0)

    which = _ranges(texts.starts[rows], texts.described[rows])
    row = np.repeat(np.arange(len(rows)), texts.described[rows])
    states = hidden[torch.from_numpy(row), torch.from_numpy(texts.places[which])]
    choices, missing = _choices()
    scores = (states @ embedding[text_tokens:].T)[:, torch.from_numpy(choices)]
    scores = scores.masked_fill(torch.from_numpy(missing), float("-inf")).log_softmax(-1)
    true = torch.from_numpy(texts.verdicts[which])
    return language, -scores.gather(2, true[..., None]).squeeze(-1)


def _choices() -> tuple[Ints, NDArray[np.bool_]]:
    """The verdict tokens of each aspect, counted from the first verdict [aspects, most]; and which are filling."""
    sizes = np.array([len(all_of) for all_of in ASPECTS.values()])
    column = np.arange(sizes.max())
    first = _first_verdicts() - int(vocabulary().verdicts[0])
    return first[:, None] + np.minimum(column, sizes[:, None] - 1), column >= sizes[:, None]
