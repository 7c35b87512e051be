"""Servers of other projects, in processes of their own on loopback, with a model that a test made."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

LLAMA_CPP = """
import signal, sys
import xllamacpp

given = xllamacpp.CommonParams()
given.model.path, given.port, given.n_ctx = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
given.cpuparams.n_threads = given.cpuparams_batch.n_threads = 1
given.warmup = False
server = xllamacpp.Server(given)
signal.pause()
"""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def llama_cpp(model: Path, log: Path, context: int = 8192) -> Iterator[str]:
    """llama.cpp's server, as the package xllamacpp has it, with one slot of ``context`` tokens; its url."""
    pytest.importorskip("xllamacpp")
    port = free_port()
    with _served([sys.executable, "-c", LLAMA_CPP, str(model), str(port), str(context)], port, log) as url:
        yield url


@contextlib.contextmanager
def vllm(model: Path, tokenizer: Path, name: str, log: Path, *flags: str, **environment: str) -> Iterator[str]:
    """vLLM's server of OpenAI's API; its url."""
    port = free_port()
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    command += ["--tokenizer", str(tokenizer), "--served-model-name", name, "--dtype", "float32", "--enforce-eager"]
    command += ["--kv-cache-memory-bytes", str(2**28), "--host", "127.0.0.1", "--port", str(port), *flags]
    quiet = {"VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    with _served(command, port, log, {**quiet, **environment}) as url:
        yield url


@contextlib.contextmanager
def _served(command: Sequence[str], port: int, log: Path, environment: dict[str, str] | None = None) -> Iterator[str]:
    with log.open("w") as said:
        process = subprocess.Popen(command, env={**os.environ, **(environment or {})}, stdout=said, stderr=said)
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(1600):
            if process.poll() == -signal.SIGILL:
                pytest.skip("the server was built for another processor")
            assert process.poll() is None, log.read_text()[-3000:]
            try:
                urllib.request.urlopen(f"{url}/health", timeout=2).close()
                break
            except OSError:
                time.sleep(0.5)
        else:
            raise TimeoutError(log.read_text()[-3000:])
        yield f"{url}/v1"
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
