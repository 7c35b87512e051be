"""Sampling on CUDA with one launch a token for the model: a step of the decoder is recorded once and replayed.

Torch launches each operation of a step by itself, some 27 a layer, and unless a model is large that takes longer than
what is launched. A CUDA graph holds the launches of one step and the addresses of what they read and write, and starts
them together. So whatever changes from token to token stays in one place: the tokens, their positions, the column of
the cache that they are written into, the mask, and the logits.

A graph has one shape. Attention looks at columns up to a multiple of ``COLUMNS``, of which the mask hides those not yet
written; rows are halved, and not one fewer, when some have ended, and those too many are computed and not looked at.
Rows only become fewer and columns more, so a shape that is left does not come back, and one graph is held at a time.
The first step of a shape is computed as it is, which loads what a recording may not load; the second is recorded.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from farm.base import progress
from farm.engines.llama import LlamaDecoder
from farm.engines.sampling import Decoder
from farm.roles.protocols import Tokens

COLUMNS = 128
"""By how many columns of the cache attention grows at once."""
SHORT = 16
"""Fewer tokens than this are not worth a recording, which takes some ten plain steps."""


class Recorder(Protocol):
    """What records launches on one kind of device."""

    def __init__(self, device: torch.device) -> None: ...

    def warm(self, step: Callable[[], None]) -> None:
        """Run a step as it is, where it will be recorded."""

    def record(self, step: Callable[[], None]) -> Callable[[], None]:
        """The launches of a step, which are not run, as a function that runs them.

        Raises:
            RuntimeError: the step waits for the device, or does what else cannot be recorded.
        """


@cache
def _stream(device: torch.device) -> Any:
    """The one stream of all recordings: torch keeps working memory of cuBLAS for every stream that was computed on, and
    gives what a stream's tensors leave to tensors of the same stream alone."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


class CudaRecorder:
    """Records a CUDA graph on another stream than the program's, as torch asks for it."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.stream = device, _stream(device)

    def warm(self, step: Callable[[], None]) -> None:
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            step()
        torch.cuda.current_stream(self.device).wait_stream(self.stream)

    def record(self, step: Callable[[], None]) -> Callable[[], None]:
        graph, before = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self.device)
        try:
            with (
                torch.cuda.device(self.device),
                torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"),
            ):
                step()
        except RuntimeError:
            torch.cuda.set_stream(before)  # which torch leaves undone where the end of a capture fails
            raise
        return graph.replay


RECORDERS: dict[str, type[Recorder]] = {"cuda": CudaRecorder}
"""by device type; elsewhere a step is computed as it is"""


def graphed(decoder: Decoder, device: torch.device) -> Decoder:
    """The decoder with its steps recorded, where the device takes recordings and the decoder can be recorded."""
    recorder = RECORDERS.get(device.type)
    if recorder is None:
        return decoder
    if not isinstance(decoder, LlamaDecoder):
        progress.note(
            "CUDA graphs are recorded of models of the Llama architecture alone: of this one each operation of a "
            "token is launched by itself, which vLLM (pip install vllm) would not do"
        )
        return decoder
    return GraphedLlama(decoder, recorder(device))


class GraphedLlama:
    """A :class:`LlamaDecoder` whose steps are replayed; see :class:`farm.engines.sampling.Decoder`."""

    def __init__(self, plain: LlamaDecoder, recorder: Recorder) -> None:
        self.plain, self.bytes_per_token = plain, plain.bytes_per_token
        self._recorder: Recorder | None = recorder

    def start(self, prompts: Sequence[Tokens], prompt_of: NDArray[np.int64], limit: int) -> torch.Tensor:
        plain = self.plain
        logits = plain.start(prompts, prompt_of, limit)
        self._records = self._recorder is not None and limit >= SHORT
        if not self._records:
            return logits
        width, device = plain.used, logits.device
        self._all, self._shape, self._warm = len(prompt_of), (0, 0), False
        self._replay: Callable[[], None] | None = None
        self.tokens = torch.zeros_like(plain.position)
        self.position = plain.position
        self.column = torch.full((1,), width, device=device)
        self.logits = torch.empty_like(logits)
        if plain.mask is None:
            shape = (self._all, 1, 1, plain.keys.shape[-1])
            plain.mask = torch.zeros(shape, dtype=plain.dtype, device=device)
        plain.mask[..., width:] = float("-inf")  # until a column is written
        plain.keys[..., width:] = 0  # what the mask hides counts 0 times, and 0 times what memory held may be NaN
        plain.values[:, :, :, width:] = 0
        return logits

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        plain = self.plain
        if not self._records:
            return plain.step(tokens)
        plain.used += 1
        self.tokens[: plain.rows] = tokens
        shape = _halved(self._all, plain.rows), min(-(-plain.used // COLUMNS) * COLUMNS, plain.keys.shape[-1])
        new, self._shape = shape != self._shape, shape
        if self._recorder is None:
            self._step()
        elif new:
            self._recorder.warm(self._step)
            self._warm = True
        else:
            if self._warm or self._replay is None:  # the graph before may still be running: it is held until then
                self._replay, self._warm = self._recorded(self._recorder), False
            self._replay()
        return self.logits[: plain.rows]

    def keep(self, rows: torch.Tensor) -> None:
        plain = self.plain
        if self._records:
            plain.position = self.position
        plain.keep(rows)
        if self._records:
            self.position[: plain.rows] = plain.position

    def _step(self) -> None:
        """One token of each row, from and to what stays in its place."""
        plain, (rows, columns) = self.plain, self._shape
        mask: Any = plain.mask
        mask.index_fill_(3, self.column, 0.0)
        tokens, position = self.tokens[:rows], self.position[:rows]
        self.logits[:rows] = plain.next(tokens, position, mask[:rows, ..., :columns], self.column, columns)
        self.position.add_(1)
        self.column.add_(1)

    def _recorded(self, recorder: Recorder) -> Callable[[], None]:
        try:
            return recorder.record(self._step)
        except RuntimeError as error:
            warnings.warn(
                f"a step of sampling could not be recorded as a CUDA graph ({str(error).splitlines()[0][:120]}): each "
                "operation is launched by itself; `graphs: false` at the engine transformers asks for no graph",
                stacklevel=2,
            )
            self._recorder = None
            return self._step


def _halved(rows: int, left: int) -> int:
    """The least number of rows that is ``rows``, halved so or so often and rounded up, and holds those ``left``.

    >>> [_halved(54, left) for left in (54, 28, 27, 8, 7, 1)]
    [54, 54, 27, 14, 7, 1]
    """
    while rows > 1 and -(-rows // 2) >= left:
        rows = -(-rows // 2)
    return rows
