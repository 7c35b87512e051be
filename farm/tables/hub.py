"""The Hugging Face hub: whether it answers, its data sets as the plain files that they are, and pushing to it.

No code of a repository is run. Files go through the hub's client, with its cache, its token (HF_TOKEN) and its address
(HF_ENDPOINT); with HF_HUB_OFFLINE=1 only what is cached is used.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import yaml

from farm.base import addresses, progress
from farm.base.errors import UserError, nearest, need
from farm.tables import formats


def endpoint() -> str:
    """The address of the hub: HF_ENDPOINT, or the one that all know. Raises UserError where it is none."""
    try:
        return addresses.checked(os.environ.get("HF_ENDPOINT") or "https://huggingface.co", "HF_ENDPOINT")
    except ValueError as error:
        raise UserError(f"the hub's address is no good: {error}") from error


def of_hub(model: str) -> bool:
    """Whether a model of this name is the hub's: it is, unless there is a folder of that name here."""
    return not Path(model).expanduser().is_dir()


def answers() -> bool:
    """Whether the hub answers within seconds; asking it for a file would take a minute of retries to find out.

    Raises:
        UserError: its address (HF_ENDPOINT) is none.
    """
    import http.client
    import urllib.error
    import urllib.request

    endpoint()  # the client takes it as it is, some of it as soon as it is imported
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or not constants.ENDPOINT.startswith("https://"):
        return not constants.HF_HUB_OFFLINE
    try:
        request = urllib.request.Request(constants.ENDPOINT, method="HEAD")  # noqa: S310 (https only, see above)
        urllib.request.urlopen(request, timeout=5).close()  # noqa: S310
    except urllib.error.HTTPError:
        return True
    except (OSError, http.client.HTTPException, ValueError):  # the last for a host that no name can be
        return False
    return True


def data_files(name: str, patterns: Sequence[str], revision: str | None = None, offline: bool = False) -> Path:
    """A folder with those files of the data set ``owner/name`` that fit one of the patterns.

    Args:
        revision: a commit or a branch; the main branch where None.
        offline: take what the hub's cache has.

    Raises:
        UserError: they could not be downloaded, with the reason.
    """
    endpoint()
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError
        from huggingface_hub.utils import disable_progress_bars
    except ImportError as error:
        raise need("hub", "huggingface_hub", f"the data set {name}") from error
    disable_progress_bars()  # the program shows its own
    how: dict[str, Any] = {"repo_type": "dataset", "allow_patterns": list(patterns), "revision": revision}
    how["local_files_only"] = offline or not answers()
    try:
        with progress.task(f"fetching {name}"):
            return Path(snapshot_download(name, **how))
    except LocalEntryNotFoundError as error:
        raise UserError(
            f"the data set {name} is not in the hub's cache and the hub cannot be reached; name a file instead"
        ) from error
    except Exception as error:  # the client raises many kinds
        raise UserError(f"the data set {name} could not be downloaded from the hub: {_reason(error)}") from error


def read_data_set(name: str) -> pd.DataFrame:
    """All rows of ``owner/name`` or ``owner/name:config``, from its JSON, JSONL, CSV and Parquet files.

    A config is what the repository's README.md says of it, or a folder or file of that name. Without one it is the
    default that the README names, or all files at the top and in ``data``.

    Raises:
        UserError: the data set could not be downloaded, or has no such files.
    """
    repository, _, config = name.partition(":")
    card = data_files(repository, ["README.md"]) / "README.md"
    patterns = _patterns(card.read_text(encoding="utf-8", errors="replace") if card.is_file() else "", config, name)
    kinds = [kind + packed for kind in formats.SUFFIXES for packed in ("", ".gz")]
    folder = data_files(repository, patterns)
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and str(path).endswith(tuple(kinds)) and _fits(str(path.relative_to(folder)), patterns)
    )
    if not paths:
        raise UserError(
            f"the data set {name} has no JSON, CSV or Parquet file under {', '.join(patterns[:3])}; "
            "name one of its folders or files as owner/name:folder"
        )
    return pd.concat([formats.read_table(path) for path in paths], ignore_index=True)


Kind = Literal["dataset", "model"]
PATIENCE = 60.0
"""seconds without a byte from the hub after which a push is given up; HF_HUB_DOWNLOAD_TIMEOUT may ask for more"""


@contextmanager
def _patient() -> Iterator[float]:
    """Inside, requests that name no timeout (the client sets none of its own) end after so many seconds."""
    from huggingface_hub import constants, get_session

    client, seconds = get_session(), max(float(constants.HF_HUB_DOWNLOAD_TIMEOUT), PATIENCE)
    before = getattr(client, "timeout", None)
    client.timeout = seconds
    try:
        yield seconds
    except Exception as error:
        if "Timeout" not in type(error).__name__:
            raise
        raise TimeoutError(
            f"no answer within {seconds:g} seconds; push again, or set HF_HUB_DOWNLOAD_TIMEOUT to more"
        ) from error
    finally:
        client.timeout = before


def push(repository: str, kind: Kind, folder: Path, message: str, private: bool = True) -> str:
    """Commit all files of a folder to a repository, which is made where there is none; gives its address.

    Raises:
        UserError: the hub cannot be reached, or refuses; files that were there before are still there then.
    """
    address = endpoint()
    try:
        from huggingface_hub import HfApi, constants
        from huggingface_hub.utils import disable_progress_bars
    except ImportError as error:
        raise need("hub", "huggingface_hub", f"pushing to {repository}") from error
    if constants.HF_HUB_OFFLINE:
        raise UserError(f"{repository}: HF_HUB_OFFLINE is set, so nothing is pushed; unset it")
    disable_progress_bars()
    try:
        with progress.task(f"pushing {repository}"), _patient():
            client = HfApi()
            client.create_repo(repository, repo_type=kind, private=private, exist_ok=True)
            client.upload_folder(folder_path=folder, repo_id=repository, repo_type=kind, commit_message=message)
    except Exception as error:  # the client raises many kinds
        status = getattr(getattr(error, "response", None), "status_code", None)
        remedy = "; set HF_TOKEN to a token that may write there, or `hf auth login`" if status in (401, 403) else ""
        raise UserError(f"{repository} could not be pushed to the hub: {_reason(error)}{remedy}") from error
    return f"{address}/{'datasets/' if kind == 'dataset' else ''}{repository}"


def _fits(path: str, patterns: Sequence[str]) -> bool:
    # As the client has it: * goes across folders, so what is at the top has to be kept apart.
    return any(fnmatch(path, p) and (p.count("/") == path.count("/") or "/" in p) for p in patterns)


def _patterns(card: str, config: str, name: str) -> list[str]:
    known = _configs(card)
    if config in known:
        return known[config]
    if config:
        stem = config.removesuffix("/")
        return [stem, f"{stem}/*", *(f"{stem}{kind}" for kind in formats.SUFFIXES)]
    if len(known) > 1:
        raise UserError(f"the data set {name} has several parts: say {name}:PART; {nearest('', known)}")
    return next(iter(known.values()), [*(f"*{kind}" for kind in formats.SUFFIXES), "data/*"])


def _configs(card: str) -> dict[str, list[str]]:
    """The configs of a README.md with the patterns of their files; under "" also the one that is the default."""
    lines = card.split("---\n", 2)
    try:
        facts: Any = yaml.safe_load(lines[1]) if card.startswith("---\n") and len(lines) == 3 else None
    except (yaml.YAMLError, RecursionError, ValueError):
        return {}
    listed = facts.get("configs") if isinstance(facts, dict) else None
    out: dict[str, list[str]] = {}
    for entry in listed if isinstance(listed, list) else []:
        if not isinstance(entry, dict) or not (patterns := _named_files(entry.get("data_files"))):
            continue
        said = str(entry.get("config_name"))
        out[said] = patterns
        if entry.get("default") is True or said == "default":
            out[""] = patterns
    return out


def _named_files(said: Any) -> list[str]:
    """The patterns in any of the forms of ``data_files``."""
    if isinstance(said, str):
        return [said]
    if isinstance(said, dict):
        return _named_files(said.get("path"))
    return [pattern for part in said for pattern in _named_files(part)] if isinstance(said, list) else []


def _reason(error: Exception) -> str:
    """The first sentence of what the client says, which is often a page."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = next((line for line in lines if "Request ID" not in line), type(error).__name__)
    return said[:150].rstrip(". ")
