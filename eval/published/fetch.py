"""Published annotation sets by name, brought from their public home: cached, checked, resumed, and refused offline.

AlpacaEval's results live in the git repository tatsu-lab/alpaca_eval and its difficulties on the Hugging Face hub. The
first fetch notes the commits that the two branches are at, and all files are theirs from then on. The repository's
listing gives the git blob id of every file, which is a checksum: each file is verified when it arrives and again when
it is read from the cache. A transfer that breaks goes on where it stopped, and a server that asks to wait is waited
for. Everything lies below FARM_HOME/sources/<name>; with ``--offline`` (or HF_HUB_OFFLINE=1) only what is there is
used.

GITHUB_TOKEN, where it is set, goes to GitHub's own addresses alone; HF_ENDPOINT names another hub.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import json
import math
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from farm.base import progress
from farm.base.addresses import sendable
from farm.base.errors import UserError
from farm.storage.old_artifacts import megabytes
from farm.storage.store import home
from farm.tables.hub import endpoint

_CHUNK = 1 << 20
_COMMIT = re.compile(r"[0-9a-f]{40}")
_GITHUB = ("api.github.com", "raw.githubusercontent.com")
_PATIENCE = 300.0
"""seconds that a server may ask to wait, in all, for one file"""
_TRIES = 4


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
    hub: str | None = None
    """None is HF_ENDPOINT, or the hub"""

    def commit_url(self) -> str:
        return f"{self.listing}/repos/{self.repository}/commits/{self.revision}"

    def listing_url(self, commit: str) -> str:
        return f"{self.listing}/repos/{self.repository}/git/trees/{commit}?recursive=1"

    def file_url(self, path: str, commit: str) -> str:
        return f"{self.files}/{self.repository}/{commit}/{quote(path)}"

    def hub_commit_url(self) -> str:
        return f"{self.hub or endpoint()}/api/datasets/{self.repository}/revision/{self.revision}"

    def hub_url(self, path: str, commit: str) -> str:
        return f"{self.hub or endpoint()}/datasets/{self.repository}/resolve/{commit}/{quote(path)}"


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
        where = source.listing_url(listing["commit"])
        raise UserError(f"{source.name}: {where} lists no results of `{source.annotator}`")
    missing = [p for p, e in wanted.items() if not _valid(folder / p, e["sha"])]
    if missing and offline:
        raise UserError(
            f"{source.name}: {len(missing)} of {len(wanted)} files are not in the cache {folder}; "
            "run the command once without --offline"
        )
    if missing:
        _say_how_much(source, folder, len(missing), sum(wanted[path]["size"] for path in missing))
    with progress.task(f"fetching {source.name}", len(missing)) as task:
        for path in missing:
            sha = wanted[path]["sha"]
            _download(source.file_url(path, listing["commit"]), folder / path, partial(_valid, sha=sha))
            task.advance(note=path.split("/")[1] if "/" in path else path)
    difficulty = regulariser = None
    if source.length_control:
        difficulty, regulariser = _hub_files(source, folder / "hub", offline)
    return Fetched(folder / "results", source.annotator, folder / source.leaderboard, difficulty, regulariser)


def _say_how_much(source: Published, folder: Path, files: int, size: int) -> None:
    """Before it is fetched. Raises UserError where the disk has no room for it."""
    free = shutil.disk_usage(folder).free
    if free < size:
        raise UserError(f"{source.name}: {megabytes(size)} to fetch, but {folder} has room for {megabytes(free)}")
    progress.note(f"{source.name}: {files} files, {megabytes(size)}, are fetched into {folder}")


def _listing(source: Published, folder: Path, offline: bool) -> dict[str, Any]:
    """The commit and the files of the repository; once fetched it stays, so that later runs see the same data."""
    path = folder / "listing.json"
    if path.is_file():
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            whole = all({"sha", "size"} <= set(entry) for entry in found["files"].values())
            # Earlier versions noted the branch, which moves.
            if whole and (offline or _COMMIT.fullmatch(found["commit"])):
                return found
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            path.unlink()
    if offline:
        raise UserError(f"{source.name}: not in the cache {folder}; run the command once without --offline")
    commit = _commit(source, source.commit_url())
    url = source.listing_url(commit)
    try:
        files = {
            e["path"]: {"sha": e["sha"], "size": e.get("size", 0)}
            for e in _json(source, url, "tree")
            if e["type"] == "blob"
        }
    except (KeyError, TypeError) as error:
        raise UserError(f"{source.name}: {url} does not answer with a listing") from error
    out = {"commit": commit, "files": files}
    _write(path, json.dumps(out).encode())
    return out


def _commit(source: Published, url: str) -> str:
    """The commit that a branch is at."""
    commit = str(_json(source, url, "sha"))
    if not _COMMIT.fullmatch(commit):
        raise UserError(f"{source.name}: {url} does not answer with a commit")
    return commit


def _json(source: Published, url: str, key: str) -> Any:
    """What an answer has under a key."""
    try:
        with _open(url) as answer:
            data = json.load(answer)
        if data.get("truncated"):
            raise UserError(f"{source.name}: {url} answers with a truncated listing")
        return data[key]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{source.name}: {url} does not answer with a {key}") from error
    except (OSError, http.client.HTTPException) as error:  # the transfer broke while it was read
        raise UserError(f"{source.name}: {url} broke off ({type(error).__name__}); run the command again") from error


def _hub_files(source: Published, folder: Path, offline: bool) -> tuple[Path, Path]:
    """Difficulties and regulariser, both of the commit that the hub's branch was at when they were first fetched."""
    paths = folder / "instruction_difficulty.csv", folder / "df_gamed.csv"
    missing = [path for path in paths if not _as_noted(path)]
    if missing and offline:
        raise UserError(f"{source.name}: {missing[0].name} is not in the cache {folder}; run once without --offline")
    if missing:
        note = folder / "commit"
        commit = note.read_text(errors="replace").strip() if note.is_file() else ""
        if not _COMMIT.fullmatch(commit):  # earlier versions fetched from the branch, which moves
            commit, missing = _commit(source, source.hub_commit_url()), list(paths)
            _write(note, commit.encode())
        for path in missing:
            path.unlink(missing_ok=True)
            with progress.task(f"fetching {path.name}", 1):
                _download(source.hub_url(path.name, commit), path, lambda p: p.stat().st_size > 0)
            # The hub names no checksum for plain files: what arrived first is kept to.
            _write(_note(path), _sha256(path).encode())
    return paths


def _as_noted(path: Path) -> bool:
    note = _note(path)
    return path.is_file() and note.is_file() and _sha256(path) == note.read_text(errors="replace").strip()


def _note(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


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


def _headers(url: str) -> dict[str, str]:
    """What goes with a request to this very address, and not with one that it redirects to."""
    parts = urlsplit(url)
    if not os.environ.get("GITHUB_TOKEN") or parts.scheme != "https" or parts.netloc not in _GITHUB:
        return {}
    return {"Authorization": f"Bearer {sendable('GITHUB_TOKEN')}"}


def _open(url: str, start: int = 0) -> Any:
    """The answer to a request, which is repeated where the server asks to wait or is in trouble."""
    if not url.startswith(("https://", "http://")):
        raise UserError(f"{url}: only http and https addresses are fetched")
    request = urllib.request.Request(url, headers={"User-Agent": "feedback-farm"})  # noqa: S310 (see above)
    if start:
        request.add_header("Range", f"bytes={start}-")
    for name, value in _headers(url).items():
        request.add_unredirected_header(name, value)
    waited = 0.0
    for attempt in range(_TRIES):
        last = attempt == _TRIES - 1
        try:
            return urllib.request.urlopen(request, timeout=60)  # noqa: S310
        except urllib.error.HTTPError as error:
            if error.code == 416 and start:
                raise
            pause = _pause(error, attempt)
            if pause is None or last:
                raise UserError(f"{url}: the server answers {error.code} {error.reason}") from error
            waited += pause
            if waited > _PATIENCE:
                token = " or set GITHUB_TOKEN" if urlsplit(url).netloc in _GITHUB and not _headers(url) else ""
                raise UserError(
                    f"{url}: the server answers {error.code} and asks to wait {pause / 60:.0f} minutes; "
                    f"run the command again then{token}, and it goes on"
                ) from error
            if pause >= 2:
                progress.note(f"{urlsplit(url).netloc} asks to wait {pause:.0f} seconds")
            time.sleep(pause)
        except OSError as error:
            if last:
                reason = getattr(error, "reason", error)
                raise UserError(f"{url}: cannot be reached ({reason}); use files on this machine instead") from error
            time.sleep(0.2 * 2**attempt)
    raise AssertionError  # the last attempt returns or raises


def _pause(error: urllib.error.HTTPError, attempt: int) -> float | None:
    """The seconds to wait before the same is asked again; None where that is of no use."""
    limited = error.code == 429 or (error.code == 403 and error.headers.get("X-RateLimit-Remaining") == "0")
    if not limited and error.code not in (500, 502, 503, 504):
        return None
    said = error.headers.get("Retry-After")
    try:
        if said is not None and not re.fullmatch(r"[\d.]+", said.strip()):
            seconds = parsedate_to_datetime(said).timestamp() - time.time()
        elif said is None and limited and (reset := error.headers.get("X-RateLimit-Reset")):
            seconds = float(reset) - time.time()
        else:
            seconds = float(said or "nan")
    except (ValueError, TypeError, OverflowError):
        seconds = math.nan
    return max(seconds, 1.0) if math.isfinite(seconds) else 0.5 * 2**attempt


def _download(url: str, path: Path, valid: Callable[[Path], bool]) -> None:
    """Bring a file; go on with a part that is there; the file appears whole and checked, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    wrong = 0
    for attempt in range(_TRIES):
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
        except (OSError, http.client.HTTPException) as error:
            if getattr(error, "errno", None) == errno.ENOSPC:
                raise UserError(f"{part}: the disk is full; make room, and the same command goes on") from error
            if attempt == _TRIES - 1:
                raise UserError(f"{url}: the transfer broke off; run the command again to go on") from error
            time.sleep(0.2 * 2**attempt)
            continue
        if valid(part):
            os.replace(part, path)
            return
        part.unlink(missing_ok=True)
        wrong += 1
        if wrong == 2:
            break
    raise UserError(f"{url}: what arrives does not match its checksum")
