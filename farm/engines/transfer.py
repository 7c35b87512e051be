"""Weights given to vLLM without files, by its own transfer: from memory on the same device, or over NCCL to a server.

    ipc     vLLM in this program: it opens the trainer's tensors where they lie (CUDA IPC), a buffer of them at a time
    nccl    a server with accelerators of its own: they are broadcast to its workers, which listen on this machine

vLLM drives both (start, update, finish) and wants the names and shapes of Hugging Face, as the files have them.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import torch

from farm.base.errors import UserError
from farm.hardware import adapters

BUFFER_BYTES = 2**29
"""of the weights that travel together, unless one tensor alone has more"""


class Transfer:
    """One way into one vLLM.

    Args:
        client: what reaches it: vLLM's four calls ``init_weight_transfer_engine``, ``start_weight_update``,
            ``update_weights`` and ``finish_weight_update``.
        init: vLLM's description of the way, of which ``init(rank=0)`` is this end.
        model: the model to be sent, now: called anew each time.
        dtype: of the weights on their way.
    """

    def __init__(self, client: Any, init: Callable[..., Any], model: Callable[[], Any], dtype: torch.dtype) -> None:
        from vllm.distributed.weight_transfer import ParamMeta, WeightSource, WeightTransferTrainerFactory

        class Source(WeightSource):  # its protocol: what will come, and then that
            def metadata(self) -> list[Any]:
                plain = adapters.without(model())  # merged weights have the shapes of those that are merged into
                return [ParamMeta(name, dtype, tuple(tensor.shape)) for name, tensor in plain.items()]

            def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
                for name, tensor in adapters.merging(model()):
                    yield name, tensor.to(dtype).contiguous()

        self._engine = WeightTransferTrainerFactory.trainer_init(init(rank=0), client=client, source=Source())

    def send(self) -> None:
        """vLLM holds the weights of the model as they are when this returns."""
        self._engine.send_weights()


class InProcess:
    """The four calls of :class:`Transfer` to a ``vllm.LLM`` of this program."""

    def __init__(self, llm: Any) -> None:
        self._llm = llm

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        self._llm.init_weight_transfer_engine({"init_info": init_info})

    def start_weight_update(self) -> None:
        self._llm.start_weight_update()

    def update_weights(self, update_info: dict[str, Any]) -> None:
        self._llm.update_weights({"update_info": update_info})

    def finish_weight_update(self, weight_version: str | None = None) -> None:  # noqa: ARG002
        self._llm.finish_weight_update()


def config(backend: str) -> dict[str, Any]:
    """The arguments of ``vllm.LLM`` that open it to a transfer.

    Raises:
        UserError: the installed vLLM has none.
    """
    check()
    from vllm.config import WeightTransferConfig

    # vLLM passes the handles of tensors to its own child, in a form that it unpickles there, and asks to be told so.
    os.environ.setdefault("VLLM_ALLOW_INSECURE_SERIALIZATION", "1")
    return {"weight_transfer_config": WeightTransferConfig(backend=backend)}


def check() -> None:
    """Refuse where the installed vLLM has no transfer that it drives itself, or nothing to transfer from."""
    try:
        from vllm.distributed.weight_transfer import WeightTransferTrainerFactory  # noqa: F401
    except ImportError as error:
        raise UserError(
            "this vLLM has no weight transfer that it drives itself (0.26 and later do): update it, or leave "
            "`hand_over` at files (of a server: reload)"
        ) from error
    if not torch.cuda.is_available():
        raise UserError("vLLM's weight transfer is for CUDA: leave `hand_over` at files (of a server: reload)")


def buffer_bytes(model: Any, dtype: torch.dtype) -> int:
    """Of the buffer that weights travel in, a tensor whole: vLLM refuses one that does not fit (Llama 3's embedding has
    a gigabyte at 8B)."""
    return max(BUFFER_BYTES, dtype.itemsize * max(parameter.numel() for parameter in model.parameters()))


def in_process(llm: Any, model: Callable[[], Any], dtype: torch.dtype) -> Transfer:
    """Into a vLLM of this program, on the same device."""
    from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo

    def init(rank: int) -> Any:
        return IPCTrainerInitInfo(rank=rank, packed=True, packed_buffer_size_bytes=buffer_bytes(model(), dtype))

    return Transfer(InProcess(llm), init, model, dtype)


def to_server(root: str, workers: int, model: Callable[[], Any], dtype: torch.dtype) -> Transfer:
    """Into a server, over NCCL. Its ``workers`` connect to this machine, at an address that they can reach."""
    check()
    from vllm.distributed.weight_transfer import HTTPVLLMWeightSyncClient
    from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

    host, port = own_address(root)

    def init(rank: int) -> Any:
        return NCCLTrainerInitInfo(
            master_address=host,
            master_port=port,
            world_size=workers + 1,
            rank=rank,
            packed=True,
            packed_buffer_size_bytes=buffer_bytes(model(), dtype),
        )

    return Transfer(HTTPVLLMWeightSyncClient(root), init, model, dtype)


def own_address(root: str) -> tuple[str, int]:
    """This machine's address towards a server, and a free port."""
    from urllib.parse import urlsplit

    parts = urlsplit(root)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((parts.hostname or "127.0.0.1", parts.port or 80))  # of datagrams: nothing is sent
        host = str(probe.getsockname()[0])
    with socket.socket() as free:
        free.bind((host, 0))
        return host, int(free.getsockname()[1])
