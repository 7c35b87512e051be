"""A policy that is a transformers causal language model.

Log-probabilities are float32, of the response's tokens alone, at the sampling temperature in every place
(dividing the logits in one place and not in another is a common mistake); the end of sequence is a token like any
other. Texts become tokens once, in :mod:`farm.policies.conversation`; what was sampled is trained on as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from farm.engines.auto import Auto
from farm.engines.llama import LlamaDecoder, is_plain_llama
from farm.engines.sampling import NEVER, Decoder, TransformersDecoder
from farm.engines.transformers import Transformers
from farm.hardware import adapters
from farm.hardware.models import load_causal_lm, save_causal_lm
from farm.policies import engine_of_loading, read_descriptor, write_descriptor
from farm.policies.batches import check_lengths, response_ids, response_mask, unflatten
from farm.policies.body import COMPUTE, Body
from farm.policies.conversation import Conversation
from farm.policies.likelihoods import chosen
from farm.policies.scorer import Head, LanguageModelScorer
from farm.policies.tabular import occurrences
from farm.roles.protocols import Draws, Request, Samples, SamplingEngine
from farm.tables.turns import Prompt, prompt_ids


class LanguageModelPolicy:
    """Any transformers causal language model as a policy.

    Args:
        model: the model, in evaluation mode from now on; used as it is, not copied.
        tokenizer: its tokenizer. A chat template it has is applied to the whole conversation.
        template: a plain text with ``{prompt}`` in it, instead of the chat template or the default instruction format.
        extra_eos: further tokens (ids or texts such as ``<|im_end|>``) that end a response.
        control_texts: what may stand at the start of a prompt as more than data, such as a quantile token; see
            :class:`farm.policies.conversation.Conversation`.
        forbidden_tokens: ids that are never sampled and have no part in any normaliser.
        max_new_tokens: the limit of a response, end of sequence included.
        top_k, top_p: cut the distribution that is *sampled from*, for evaluation. The log-probabilities of such
            samples are those of the cut distribution, so their ratios to ``log_probabilities`` are not 1.
        train_layers: only the last so many layers train; None trains everything.
        lora: ``rank``, ``alpha`` and ``seed`` of adapters that train instead of the weights; saved merged into them.
        gradient_checkpointing: less memory in the backward pass, for a third more computing.
        compute_dtype: "bfloat16" computes in it while the weights stay as they are; "auto" where the hardware has it.
        scorer_head: what :meth:`scorer` reads, see :class:`farm.policies.scorer.LanguageModelScorer`.
        rows_at_once: the most rows that the policy's own engine samples together.
        engine: who samples; by default the policy's own loop, see :mod:`farm.engines`.
    """

    engine: SamplingEngine = Transformers()

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        template: str | None = None,
        extra_eos: Sequence[int | str] = (),
        control_texts: Sequence[str] = (),
        forbidden_tokens: Sequence[int] = (),
        max_new_tokens: int = 256,
        top_k: int | None = None,
        top_p: float = 1.0,
        train_layers: int | None = None,
        lora: dict[str, Any] | None = None,
        gradient_checkpointing: bool = False,
        compute_dtype: str | None = None,
        scorer_head: Head = "last",
        rows_at_once: int = 512,
        engine: SamplingEngine | None = None,
    ) -> None:
        if max_new_tokens < 1 or rows_at_once < 1 or not 0 < top_p <= 1 or (top_k is not None and top_k < 1):
            raise ValueError("max_new_tokens, rows_at_once and top_k must be at least 1, and top_p in (0, 1]")
        self.settings: dict[str, Any] = {
            "template": template,
            "extra_eos": list(extra_eos),
            "control_texts": list(control_texts),
            "forbidden_tokens": [int(t) for t in forbidden_tokens],
            "max_new_tokens": max_new_tokens,
            "top_k": top_k,
            "top_p": top_p,
            "train_layers": train_layers,
            "lora": lora,
            "gradient_checkpointing": gradient_checkpointing,
            "compute_dtype": compute_dtype,
            "scorer_head": scorer_head,
            "rows_at_once": rows_at_once,
        }
        self.body = Body(model, train_layers, compute_dtype, lora, gradient_checkpointing)
        self.engine = Transformers(rows_at_once) if engine is None else engine
        if isinstance(self.engine, Auto):
            self.engine = self.engine.chosen(self.body.device, rows_at_once)
        self.tokenizer = tokenizer
        ends = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
        self.conversation = Conversation(tokenizer, template, extra_eos, ends, control_texts)
        self.forbidden = torch.tensor(self.settings["forbidden_tokens"], dtype=torch.int64, device=self.body.device)
        if self.conversation.ends & set(self.settings["forbidden_tokens"]):
            raise ValueError("an end-of-sequence token cannot be forbidden")

    @property
    def model(self) -> Any:
        """The transformers model itself."""
        return self.body.model

    @property
    def compute_dtype(self) -> str | None:
        """The type of the matrix products, where it is not that of the weights."""
        return self.body.compute_dtype

    def sample(
        self,
        prompts: Sequence[Prompt],
        *,
        seed: int,
        purpose: str,
        temperature: float = 1.0,
        max_new_tokens: int | None = None,
        progress: Callable[[int], None] | None = None,
        draws: Draws | None = None,
    ) -> Samples:
        """As :meth:`farm.roles.protocols.Policy.sample`. Temperature 0 is greedy, with log-probabilities 0.

        Raises:
            UserError: for a prompt that leaves no room in the model's context.
        """
        if temperature < 0:
            raise ValueError("the temperature must not be negative")
        self.body.gather()
        tokens = self.conversation.prompts(prompts)
        lengths = np.array([len(t) for t in tokens], dtype=np.int64)
        limits = np.full(len(tokens), max_new_tokens or self.settings["max_new_tokens"], dtype=np.int64)
        if self.body.context is not None:
            check_lengths(lengths + 1, self.body.context, prompts, "a prompt with room for one token")
            limits = np.minimum(limits, self.body.context - lengths)
        request = Request(
            prompts=tokens,
            prompt_ids=prompt_ids(prompts),
            occurrences=occurrences(prompts) if draws is None else np.asarray(draws, dtype=np.uint64),
            limits=limits,
            ends=self.conversation.ends,
            forbidden=tuple(self.settings["forbidden_tokens"]),
            seed=seed,
            purpose=purpose,
            temperature=temperature,
            top_k=self.settings["top_k"],
            top_p=self.settings["top_p"],
            progress=progress,
        )
        written = self.engine.write(self, request)
        if written.handed_over:
            try:
                check_hand_over(self, request)
            except BaseException:
                self.engine.forget(self)  # or the next samples would be drawn with these weights, and not looked at
                raise
        return Samples(
            prompts=list(prompts),
            outputs=self.conversation.texts(written.tokens),
            prompt_tokens=tokens,
            response_tokens=list(written.tokens),
            log_probabilities=list(written.log_probabilities),
            finish_reason=written.finish_reason,
        )

    def decoder(self) -> Decoder:
        """The loop of the policy's own engine, on the weights as they are now."""
        if is_plain_llama(self.model):
            return LlamaDecoder(self.model, self.forbidden, COMPUTE.get(self.body.compute_dtype or ""))
        return TransformersDecoder(self.model, self.forbidden, self.body.autocast)

    def log_probabilities(self, samples: Samples, temperature: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
        """As :meth:`farm.roles.protocols.Policy.log_probabilities`.

        Raises:
            UserError: for a row longer than the model's context.
        """
        _positive(temperature)
        targets = response_ids(samples, self.body.device)
        mask = response_mask(samples.lengths(), self.body.device)

        def compute() -> torch.Tensor:
            states = self.body.before_head(samples)
            return chosen(lambda part: self._logits(part, temperature), states, targets, self.body.vocabulary)

        return unflatten(self.body.run(compute), mask), mask

    def distributions(self, samples: Samples, temperature: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
        """As :meth:`farm.roles.protocols.Policy.distributions`; a forbidden token has a log-probability of about
        -1e4."""
        _positive(temperature)
        logits = self.body.run(lambda: self._logits(self.body.before_head(samples), temperature))
        mask = response_mask(samples.lengths(), self.body.device)
        return unflatten(torch.log_softmax(logits, dim=-1), mask), mask

    def _logits(self, states: torch.Tensor, temperature: float) -> torch.Tensor:
        logits = self.body.project(states)
        if len(self.forbidden):
            logits = logits.index_fill(1, self.forbidden, NEVER)
        return logits if temperature == 1 else logits / temperature

    def encode(self, prompts: Sequence[Prompt], outputs: Sequence[str]) -> Samples:
        """As :meth:`farm.roles.protocols.Policy.encode`; an empty output is the end of sequence alone."""
        return Samples(
            prompts=list(prompts),
            outputs=list(outputs),
            prompt_tokens=self.conversation.prompts(prompts),
            response_tokens=(tokens := self.conversation.responses(prompts, outputs)),
            log_probabilities=[np.zeros(len(t), np.float32) for t in tokens],
            finish_reason=["stop"] * len(tokens),
        )

    def scorer(self, seed: int, head: Head | None = None) -> LanguageModelScorer:
        """A scorer on a copy of the body, its head drawn from ``seed``."""
        return LanguageModelScorer.new(self.body, self.tokenizer, head or self.settings["scorer_head"], seed)

    def copy(self) -> LanguageModelPolicy:
        """A policy with a model of its own; what trains in it is again as the settings say."""
        return self.with_settings()

    def with_settings(self, **changed: Any) -> LanguageModelPolicy:
        """A copy with some settings changed, for example ``with_settings(top_p=0.9)``; ``engine`` may be among them."""
        settings = {**self.settings, "engine": self.engine, **changed}
        if "rows_at_once" in changed and "engine" not in changed and self.engine.own:
            settings["engine"] = None
        model = self.body.copy_model(settings["train_layers"], settings["lora"])
        return LanguageModelPolicy(model, self.tokenizer, **settings)

    def shard(self) -> None:
        """Spread what trains over the processes; :meth:`unshard` ends it. All must ask at once."""
        self.body.shard()

    def unshard(self) -> None:
        self.body.unshard()

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        return self.body.parameters(with_head=True)

    def save(self, folder: Path) -> None:
        """Model, config and tokenizer in Hugging Face format, adapters merged (and once more by themselves, in the
        folder ``adapter``), and the settings beside them, without the engine."""
        self.body.check_whole()
        settings = {**self.settings, "lora": None}
        write_descriptor(folder, LanguageModelPolicy, settings)
        save_causal_lm(self.model, self.tokenizer, folder)
        if self.settings["lora"] is not None:
            adapters.save(self.model, folder / "adapter")

    @classmethod
    def load(cls, folder: Path) -> LanguageModelPolicy:
        settings = read_descriptor(folder)
        del settings["class"]
        settings["engine"] = engine_of_loading()  # whatever an older descriptor says
        model, tokenizer = load_causal_lm(str(folder), dtype="auto")
        return cls(model, tokenizer, **settings)


GREEDY_TOKENS, GREEDY_GAP = 16, 0.25
"""How many tokens of the first prompt are compared after a hand-over, and how far below the trainer's best token the
engine's may be, in nats: tokens that are nearly equal change places by rounding alone, in bfloat16 by some tenths."""


def check_hand_over(policy: LanguageModelPolicy, request: Request) -> None:
    """Have the engine write the first prompt greedily, and compare each token with what the trainer would write there.

    Raises:
        RuntimeError: they differ by more than rounding: the engine does not hold the policy's weights.
    """
    first = {name: getattr(request, name)[:1] for name in ("prompts", "prompt_ids", "occurrences", "limits")}
    first["limits"] = np.minimum(first["limits"], GREEDY_TOKENS)
    written = policy.engine.write(
        policy, replace(request, **first, temperature=0.0, top_k=None, top_p=1.0, progress=None)
    )
    tokens = written.tokens[0]
    samples = Samples([""], [""], list(first["prompts"]), [tokens], [np.zeros(len(tokens), np.float32)], ["length"])
    with torch.no_grad():
        table = policy.distributions(samples)[0][0]
        chosen = table.gather(1, torch.as_tensor(tokens, dtype=torch.int64, device=table.device)[:, None])[:, 0]
        gap = table.amax(-1) - chosen
    if float(gap.max()) > GREEDY_GAP:
        place = int((gap > GREEDY_GAP).nonzero()[0])
        raise RuntimeError(
            f"after the weights were handed over, the engine {type(policy.engine).__name__} and the trainer write "
            f"different greedy texts: token {place} of the first answer is {float(gap[place]):.2f} nats below the "
            "trainer's best, so the engine does not hold these weights"
        )


def _positive(temperature: float) -> None:
    if temperature <= 0:
        raise ValueError("log-probabilities need a positive temperature")
