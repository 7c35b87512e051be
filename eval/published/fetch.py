"""Published annotation sets by name, brought from their public home: cached, checked, resumed, and refused offline.

AlpacaEval's results live in the git repository tatsu-lab/alpaca_eval and its difficulties on the Hugging Face hub. The
first fetch notes the commits that the two branches are at, and all files are theirs from then on. The repository's
listing gives the git blob id of every file, which is a checksum: each file is verified when it arrives and again when
it is read from the cache. Everything lies below FARM_HOME/sources/<name>; with ``--offline`` (or HF_HUB_OFFLINE=1) only
what is there is used. HF_ENDPOINT names another hub.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from eval.published.transfer import download, opened
from farm.base import files, progress
from farm.base.errors import OptionError, UserError
from farm.storage.old_artifacts import megabytes
from farm.storage.store import home
from farm.tables.hub import endpoint

_COMMIT = re.compile(r"[0-9a-f]{40}")


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
    **{
        name: Published(name, name, f"src/alpaca_eval/leaderboards/data_AlpacaEval_2/{name}_leaderboard.csv", False)
        for name in ("alpaca_eval_gpt4_turbo_fn", "alpaca_eval_cot_gpt4_turbo_fn")
    },
}
_ALPACA_EVAL = PUBLISHED["alpaca_eval_2"]


@dataclass(frozen=True)
class PublishedFile:
    """One file of a public home."""

    about: str
    path: str
    home: Published
    on_hub: bool


FILES = {
    "alpaca_eval_humans": PublishedFile(
        "people's votes on the same pairs (cross-annotations), which judges are measured by",
        "alpaca_farm_human_crossannotations.json", _ALPACA_EVAL, on_hub=True,
    ),
    "alpaca_eval_judges": PublishedFile(
        "the published leaderboard of judges: agreement with people, bias, variance, price",
        "src/alpaca_eval/leaderboards/evaluators/evaluators_leaderboard.csv", _ALPACA_EVAL, on_hub=False,
    ),
}  # fmt: skip


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
        raise OptionError(
            f"{source.name}: {len(missing)} of {len(wanted)} files are not in the cache {folder}; "
            "run once without `offline`"
        )
    if missing:
        _say_how_much(source, folder, len(missing), sum(wanted[path]["size"] for path in missing))
    with progress.task(f"fetching {source.name}", len(missing)) as task:
        for path in missing:
            sha = wanted[path]["sha"]
            download(source.file_url(path, listing["commit"]), folder / path, partial(_valid, sha=sha))
            task.advance(note=path.split("/")[1] if "/" in path else path)
    difficulty = regulariser = None
    if source.length_control:
        difficulty, regulariser = _hub_files(source, folder / "hub", offline)
    return Fetched(folder / "results", source.annotator, folder / source.leaderboard, difficulty, regulariser)


def named_file(given: object) -> object:
    """What was given, or where it is the name of a published file and of none here, the file of that name."""
    name = str(given)
    is_name = isinstance(given, (str, Path)) and name in FILES and not files.exists(Path(name))
    return fetch_file(name) if is_name else given


def fetch_file(
    name: str, *, offline: bool = False, root: Path | None = None, wanted: PublishedFile | None = None
) -> Path:
    """A published file (``wanted``, if none of FILES), from the cache or its home, with the checks of :func:`fetch`."""
    wanted, offline = wanted or FILES[name], offline or offline_asked()
    folder = (root or home() / "sources") / name
    if wanted.on_hub:
        return _hub_files(wanted.home, folder, offline, (wanted.path,))[0]
    listing = _listing(wanted.home, folder, offline)
    entry, path = listing["files"].get(wanted.path), folder / wanted.path
    if entry is None:
        raise UserError(f"{name}: {wanted.home.listing_url(listing['commit'])} lists no {wanted.path}")
    if not _valid(path, entry["sha"]):
        if offline:
            raise OptionError(f"{name}: {path.name} is not in the cache {folder}; run once without `offline`")
        with progress.task(f"fetching {name}", 1):
            download(wanted.home.file_url(wanted.path, listing["commit"]), path, partial(_valid, sha=entry["sha"]))
    return path


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
            found = json.loads(path.read_text(encoding="utf-8"))
            # Earlier versions noted the branch, which moves.
            if isinstance(found["commit"], str) and (offline or _COMMIT.fullmatch(found["commit"])):
                return {"commit": found["commit"], "files": _entries(found["files"].items())}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            path.unlink()
    if offline:
        raise OptionError(f"{source.name}: not in the cache {folder}; run once without `offline`")
    commit = _commit(source, source.commit_url())
    url = source.listing_url(commit)
    try:
        blobs = [e for e in _json(source, url, "tree") if e["type"] == "blob"]
        listed = _entries((e["path"], {"sha": e["sha"], "size": e.get("size", 0)}) for e in blobs)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{source.name}: {url} does not answer with a listing") from error
    out = {"commit": commit, "files": listed}
    files.write_text(path, json.dumps(out))
    return out


def _entries(listed: Iterable[tuple[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Blob id and size of every file, by its path. Raises ValueError where one is none, or has a place elsewhere."""
    out = {}
    for path, entry in listed:
        sha, size = entry["sha"], entry["size"]
        inside = isinstance(path, str) and not path.startswith("/") and ".." not in path.split("/")
        if not inside or not isinstance(sha, str) or type(size) is not int or size < 0:
            raise ValueError(f"{path}: no file with its blob id and size")
        out[path] = {"sha": sha, "size": size}
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
        with opened(url) as answer:
            data = json.load(answer)
        if data.get("truncated"):
            raise UserError(f"{source.name}: {url} answers with a truncated listing")
        return data[key]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{source.name}: {url} does not answer with a {key}") from error
    except (OSError, http.client.HTTPException) as error:  # the transfer broke while it was read
        raise UserError(f"{source.name}: {url} broke off ({type(error).__name__}); run the command again") from error


def _hub_files(
    source: Published,
    folder: Path,
    offline: bool,
    names: tuple[str, ...] = ("instruction_difficulty.csv", "df_gamed.csv"),
) -> list[Path]:
    """Files of the hub, all of the commit that its branch was at when they were first fetched."""
    paths = [folder / name for name in names]
    missing = [path for path in paths if not _as_noted(path)]
    if missing and offline:
        raise OptionError(f"{source.name}: {missing[0].name} is not in the cache {folder}; run once without `offline`")
    if missing:
        note = folder / "commit"
        commit = note.read_text(errors="replace").strip() if note.is_file() else ""
        if not _COMMIT.fullmatch(commit):  # earlier versions fetched from the branch, which moves
            commit, missing = _commit(source, source.hub_commit_url()), list(paths)
            files.write_text(note, commit)
        for path in missing:
            path.unlink(missing_ok=True)
            with progress.task(f"fetching {path.name}", 1):
                download(source.hub_url(path.name, commit), path, lambda p: p.stat().st_size > 0)
            # The hub names no checksum for plain files: what arrived first is kept to.
            files.write_text(_note(path), _sha256(path))
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
