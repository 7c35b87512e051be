"""Padding as a part of the data, which is a mistake some codes make; only ``faithful: alpaca_farm`` uses this."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from farm.errors import UserError
from farm.protocols import Samples, Scorer


def pad_token(model: Scorer) -> int:
    """The padding token of a model's tokenizer, its end of sequence where it has none; 0 for a table."""
    tokenizer: Any = getattr(model, "tokenizer", None)
    if tokenizer is None:
        return 0
    return int(tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id)


def with_pads(samples: Samples, width: int, model: Scorer) -> Samples:
    """The same responses, each filled up to ``width`` tokens with the model's padding token.

    Raises:
        UserError: that is more than fits the model's context.
    """
    token, context = pad_token(model), getattr(getattr(model, "body", None), "context", None)
    longest = max(len(prompt) for prompt in samples.prompt_tokens)
    if context is not None and longest + width > context:
        raise UserError(
            f"faithful: alpaca_farm pads every response to max_new_tokens ({width}), which with a prompt of {longest} "
            f"tokens does not fit the model's context of {context}; set max_new_tokens to at most {context - longest}"
        )
    tokens = [
        np.pad(response, (0, max(0, width - len(response))), constant_values=token)
        for response in samples.response_tokens
    ]
    return replace(samples, response_tokens=tokens)


def widened(values: Tensor, width: int) -> Tensor:
    """[B, T] with columns of zeros up to ``width``."""
    return torch.nn.functional.pad(values, (0, max(0, width - values.shape[1])))
