"""Files from servers: a transfer that breaks goes on where it stopped, and a server that asks to wait is waited for.

GITHUB_TOKEN, where it is set, goes to GitHub's own addresses alone.

Not by pooch, which begins anew where a transfer broke off, waits as long as it likes and not as the server asks, and
takes hashes of files, where GitHub's listing has git's blob ids. Measured with pooch 1.9 on loopback: of a file whose
transfer breaks in the middle twice it is sent two where this is sent one, and told to wait two seconds it is back after
one; headers, waits and checks would stay here, so that it would save some forty of these lines. Nor by the hub's client
for the few files that lie there: it is an extra, and boards need none.
"""

from __future__ import annotations

import errno
import http.client
import math
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from farm.base import progress
from farm.base.addresses import sendable
from farm.base.errors import UserError

_CHUNK = 1 << 20
_GITHUB = ("api.github.com", "raw.githubusercontent.com")
_PATIENCE = 300.0
"""seconds that a server may ask to wait, in all, for one file"""
_TRIES = 4


def headers(url: str) -> dict[str, str]:
    """What goes with a request to this very address, and not with one that it redirects to."""
    parts = urlsplit(url)
    if not os.environ.get("GITHUB_TOKEN") or parts.scheme != "https" or parts.netloc not in _GITHUB:
        return {}
    return {"Authorization": f"Bearer {sendable('GITHUB_TOKEN')}"}


def opened(url: str, start: int = 0) -> Any:
    """The answer to a request, which is repeated where the server asks to wait or is in trouble."""
    if not url.startswith(("https://", "http://")):
        raise UserError(f"{url}: only http and https addresses are fetched")
    request = urllib.request.Request(url, headers={"User-Agent": "feedback-farm"})  # noqa: S310 (see above)
    if start:
        request.add_header("Range", f"bytes={start}-")
    for name, value in headers(url).items():
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
                token = " or set GITHUB_TOKEN" if urlsplit(url).netloc in _GITHUB and not headers(url) else ""
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


def download(url: str, path: Path, valid: Callable[[Path], bool]) -> None:
    """Bring a file; go on with a part that is there; the file appears whole and checked, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    wrong = 0
    for attempt in range(_TRIES):
        start = part.stat().st_size if part.is_file() else 0
        try:
            with opened(url, start) as answer:
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
