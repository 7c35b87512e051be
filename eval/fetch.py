"""Published annotation sets by name, brought from their public home: cached, checked, resumed, and refused offline.

AlpacaEval's results live in the git repository tatsu-lab/alpaca_eval and its difficulties on the Hugging Face hub. The
repository's listing gives the git blob id of every file, which is a checksum: each file is verified when it arrives and
again when it is read from the cache. A transfer that breaks goes on where it stopped. Everything lies below
FARM_HOME/sources/<name>; with ``--offline`` (or HF_HUB_OFFLINE=1) only what is there is used.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from farm import progress
from farm.errors import UserError
from farm.store import home

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Published:
    """Where a published set lives."""

    name: str
    annotator: str
    leaderboard: str
    """the published table, a path in the repository"""
    length_control: bool
    repository: str = "tatsu-lab/alpaca_eval"
    revision: str = "main"
    files: str = "https://raw.githubusercontent.com"
    listing: str = "https://api.github.com"
    hub: str = "https://huggingface.co"

    def listing_url(self) -> str:
        return f"{self.listing}/repos/{self.repository}/git/trees/{self.revision}?recursive=1"

    def file_url(self, path: str, commit: str) -> str:
        return f"{self.files}/{self.repository}/{commit}/{quote(path)}"

    def hub_url(self, path: str) -> str:
        return f"{self.hub}/datasets/{self.repository}/resolve/main/{quote(path)}"


PUBLISHED = {
    "alpaca_eval_1": Published(
        "alpaca_eval_1",
        "alpaca_eval_gpt4",
        "src/alpaca_eval/leaderboards/data_AlpacaEval/alpaca_eval_gpt4_leaderboard.csv",
        length_control=False,
    ),
    "alpaca_eval_2": Published(
        "alpaca_eval_2",
        "weighted_alpaca_eval_gpt4_turbo",
        "src/alpaca_eval/leaderboards/data_AlpacaEval_2/weighted_alpaca_eval_gpt4_turbo_leaderboard.csv",
        length_control=True,
    ),
}


@dataclass(frozen=True)
class Fetched:
    """A published set on this machine."""

    directory: Path
    """AlpacaEval's results layout"""
    annotator: str
    leaderboard: Path
    difficulty: Path | None
    regulariser: Path | None


def offline_asked() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")


def fetch(source: Published, *, offline: bool = False, root: Path | None = None) -> Fetched:
    """The files of a published set, from the cache or the network.

    Raises:
        UserError: offline and something is not cached; a server that cannot be reached; or a file that does not match
            its checksum after a second try.
    """
    offline = offline or offline_asked()
    folder = (root or home() / "sources") / source.name
    listing = _listing(source, folder, offline)
    wanted = {
        path: entry
        for path, entry in listing["files"].items()
        if path == source.leaderboard
        or (path.startswith("results/") and path.endswith(f"/{source.annotator}/annotations.json"))
    }
    if source.leaderboard not in wanted or len(wanted) < 2:
        raise UserError(f"{source.name}: {source.listing_url()} lists no results of `{source.annotator}`")
    missing = [p for p, e in wanted.items() if not _valid(folder / p, e["sha"])]
    if missing and offline:
        raise UserError(
            f"{source.name}: {len(missing)} of {len(wanted)} files are not in the cache {folder}; "
            "run the command once without --offline"
        )
    with progress.task(f"fetching {source.name}", len(missing)) as task:
        for path in missing:
            sha = wanted[path]["sha"]
            _download(source.file_url(path, listing["commit"]), folder / path, partial(_valid, sha=sha))
            task.advance(note=path.split("/")[1] if "/" in path else path)
    difficulty = regulariser = None
    if source.length_control:
        difficulty, regulariser = (
            _hub_file(source, folder, name, offline) for name in ("instruction_difficulty.csv", "df_gamed.csv")
        )
    return Fetched(folder / "results", source.annotator, folder / source.leaderboard, difficulty, regulariser)


def _listing(source: Published, folder: Path, offline: bool) -> dict[str, Any]:
    """The commit and the files of the repository; once fetched it stays, so that later runs see the same data."""
    path = folder / "listing.json"
    if path.is_file():
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return found
        except json.JSONDecodeError:
            path.unlink()
    if offline:
        raise UserError(f"{source.name}: not in the cache {folder}; run the command once without --offline")
    try:
        with _open(source.listing_url()) as answer:
            data = json.load(answer)
        tree = data["tree"]
        files = {e["path"]: {"sha": e["sha"], "size": e.get("size", 0)} for e in tree if e["type"] == "blob"}
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise UserError(f"{source.name}: {source.listing_url()} does not answer with a listing") from error
    if data.get("truncated"):
        raise UserError(f"{source.name}: {source.listing_url()} answers with a truncated listing")
    out = {"commit": source.revision, "tree": data.get("sha", ""), "files": files}
    _write(path, json.dumps(out).encode())
    return out


def _hub_file(source: Published, folder: Path, name: str, offline: bool) -> Path:
    path, note = folder / "hub" / name, folder / "hub" / f"{name}.sha256"
    if path.is_file() and note.is_file() and _sha256(path) == note.read_text().strip():
        return path
    if offline:
        raise UserError(f"{source.name}: {name} is not in the cache {folder}; run once without --offline")
    path.unlink(missing_ok=True)
    with progress.task(f"fetching {name}", 1):
        _download(source.hub_url(name), path, lambda p: p.stat().st_size > 0)
    _write(note, _sha256(path).encode())  # the hub names no checksum for plain files: what arrived first is kept to
    return path


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _valid(path: Path, sha: str) -> bool:
    """Whether a file's git blob id is ``sha``."""
    if not path.is_file():
        return False
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest() == sha


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def _open(url: str, start: int = 0) -> Any:
    if not url.startswith(("https://", "http://")):
        raise UserError(f"{url}: only http and https addresses are fetched")
    headers = {"User-Agent": "feedback-farm"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60)  # noqa: S310
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:
            raise
        raise UserError(f"{url}: the server answers {error.code} {error.reason}") from error
    except (urllib.error.URLError, TimeoutError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(f"{url}: cannot be reached ({reason}); use files on this machine instead") from error


def _download(url: str, path: Path, valid: Callable[[Path], bool], tries: int = 4) -> None:
    """Bring a file; go on with a part that is there; the file appears whole and checked, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    wrong = 0
    for attempt in range(tries):
        start = part.stat().st_size if part.is_file() else 0
        try:
            with _open(url, start) as answer:
                resumed = start > 0 and answer.status == 206
                with part.open("ab" if resumed else "wb") as file:
                    shutil.copyfileobj(answer, file, _CHUNK)
                expected = answer.headers.get("Content-Length")
                whole = (start if resumed else 0) + int(expected) if expected is not None else None
                if whole is not None and part.stat().st_size < whole:
                    raise ConnectionError("the transfer broke off")
        except urllib.error.HTTPError:  # nothing is left to resume: the part is the whole, or rubbish
            pass
        except (ConnectionError, TimeoutError, OSError, UserError) as error:
            if attempt == tries - 1:
                if isinstance(error, UserError):
                    raise
                raise UserError(f"{url}: the transfer broke off; run the command again to go on") from error
            time.sleep(0.2 * 2**attempt if not isinstance(error, UserError) else 0.0)
            if isinstance(error, UserError) and "answers 4" in str(error):
                raise
            continue
        if valid(part):
            os.replace(part, path)
            return
        part.unlink(missing_ok=True)
        wrong += 1
        if wrong == 2:
            break
    raise UserError(f"{url}: what arrives does not match its checksum")
