"""Files that a user names: read, and written whole or not at all; what the system refuses is one sentence."""

from __future__ import annotations

import gzip
import itertools
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from farm.base.errors import OptionError, UserError

_TRIED = 1 << 16
"""bytes that must fit where something is to be written"""
_count = itertools.count()


@contextmanager
def refusals(path: Path, doing: str) -> Iterator[None]:
    """What the system refuses inside the block is one sentence: the file cannot be ``doing`` ("read", "written")."""
    try:
        yield
    except (OSError, EOFError) as error:
        raise UserError(f"{path}: cannot be {doing} ({getattr(error, 'strerror', None) or error})") from error
    except ValueError as error:
        if "null byte" not in str(error):
            raise
        raise UserError(f"{path}: cannot be {doing} (its name holds a NUL)") from error


def exists(path: Path) -> bool:
    """Whether something is there; a name that the system refuses is not."""
    try:
        path.stat()
    except (OSError, ValueError):
        return False
    return True


def alike(names: Iterable[str]) -> tuple[str, str] | None:
    """Two of the names that are one file: the same, or on macOS and Windows differing by capitals alone."""
    known: dict[str, str] = {}
    for name in names:
        if (small := name.casefold()) in known:
            return known[small], name
        known[small] = name
    return None


def check(path: Path) -> None:
    """Refuse what is not a plain file that can be read: a folder, a pipe or a device has no end or no bytes."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"{path}: no such file") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if stat.S_ISDIR(mode):
        raise UserError(f"{path}: is a folder; name a file")
    if not stat.S_ISREG(mode):
        raise UserError(f"{path}: is not a plain file")


def read_bytes(path: Path) -> bytes:
    """The bytes of a file, unpacked where its name ends in ``.gz``. Raises UserError."""
    check(path)
    with refusals(path, "read"):
        data = path.read_bytes()
        return gzip.decompress(data) if path.suffix == ".gz" else data


def read_text(path: Path) -> str:
    """The UTF-8 text of a file, without a byte order mark. Raises UserError."""
    return decoded(read_bytes(path), path)


def decoded(data: bytes, path: Path) -> str:
    """Bytes of a file as UTF-8 text, without a byte order mark. Raises UserError."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start} is not UTF-8 text") from error


def check_out(path: Path, inputs: Sequence[Path | None] = ()) -> None:
    """Refuse a file that cannot be written, before the work: a small one is tried in its folder, and removed again.

    Args:
        inputs: what is read, and must not be overwritten.

    Raises:
        UserError: for a folder, a device, an input, a name that is too long, a place below a file, a folder or file
            that is read-only, a full disk.
    """
    if exists(path):
        for given in inputs:
            if given is not None and exists(given) and path.samefile(given):
                raise UserError(f"{path}: is what is read, and would be overwritten; name another file")
        if path.is_dir():
            raise UserError(f"{path}: is a folder; name a file to write")
        if not path.is_file():
            raise UserError(f"{path}: is not a plain file, and cannot be replaced by one")
    with refusals(path, "written"):
        if os.path.islink(path) and not exists(path):
            raise UserError(f"{path}: is a link that leads nowhere; name another file")
        with _tried(_place(path).parent):
            if exists(path):
                os.close(os.open(path, os.O_WRONLY))
            else:  # the name itself may be what is refused
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
                path.unlink()


def _place(path: Path) -> Path:
    """The file that a link leads to; any other is its own place."""
    return Path(os.path.realpath(path, strict=True)) if path.is_symlink() else path


def check_folder(path: Path) -> None:
    """Refuse a folder that cannot be made, or not be written into, before the work. Raises UserError."""
    if exists(path) and not path.is_dir():
        raise OptionError(f"{path}: is there already and is not a run folder; give another `out`")
    with refusals(path, "written"), _tried(path):
        pass


@contextmanager
def _tried(folder: Path) -> Iterator[None]:
    """Inside the block the folder is there, and a file was written into it; afterwards all is as it was."""
    missing = list(itertools.takewhile(lambda place: not exists(place), (folder, *folder.parents)))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _beside(folder / "tried") as tried:
            tried.write_bytes(bytes(_TRIED))
            sync(tried)
        yield
    finally:
        for place in missing:
            with suppress(OSError):
                place.rmdir()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A new file to write; when the block ends without an error it takes the place of ``path``, and is on the disk.

    A file that was there leaves its permissions to the new one. A link stays, and what it leads to is replaced.
    """
    with refusals(path, "written"):
        place = _place(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        before = place.stat() if exists(place) else None
        if before is not None and not stat.S_ISREG(before.st_mode):
            raise UserError(f"{path}: is not a plain file, and cannot be replaced by one")
        with _beside(place) as new:
            if before is not None:
                new.touch(0o600)  # no more than the owner's until it has the old one's
            yield new
            if before is not None:
                new.chmod(stat.S_IMODE(before.st_mode))
            sync(new)
            os.replace(new, place)


def write_text(path: Path, text: str, errors: str = "strict") -> None:
    """Write a UTF-8 text, whole or not at all. ``errors`` says what becomes of half a surrogate pair."""
    with replacing(path) as new:
        new.write_text(text, encoding="utf-8", errors=errors)


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A name of ours in the same folder, with the same ending, removed at the end."""
    new = path.with_name(f".farm-{os.getpid()}-{next(_count)}{path.suffix[:20]}")
    try:
        yield new
    finally:
        new.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Have a file's bytes, or a folder's names, on the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
