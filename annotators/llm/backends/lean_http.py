"""A lean HTTP/1.1 client for model servers on this machine or next to it.

A remote model takes a second to answer; a local server can take less than the SDKs' own transport: of processor time a
question takes 1.5 ms here, 4 to 5 by OpenAI's SDK on aiohttp and 7 by the SDK as it comes (300 questions, an instant
server, a busy machine). This one does what
a plain ``http://`` server without a proxy needs: keep-alive, a length or chunks, no redirects. An answer that is longer
than any can be is not read to its end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from urllib.parse import urlsplit

_LARGEST_HEAD = 64 * 1024
LARGEST = 4 * 2**20
"""bytes of one answer: some hundred times what a long one with its log-probabilities has"""
_Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Unreached(ConnectionError):
    """Nothing listens at the address."""


class Broken(ConnectionError):
    """The server closed the connection in mid-answer, or does not speak HTTP."""


class TooLarge(Exception):
    """The answer has more than :data:`LARGEST` bytes."""

    def __init__(self) -> None:
        super().__init__(f"the answer has more than {LARGEST:,} bytes")


class LeanHTTP:
    """Connections to one server, kept open and used again; each carries one question at a time."""

    def __init__(self, base_url: str, headers: Mapping[str, str]) -> None:
        parts = urlsplit(base_url)
        self._host, self._port, self._path = parts.hostname or "", parts.port or 80, parts.path.rstrip("/")
        lines = [f"Host: {parts.netloc}", *(f"{name}: {value}" for name, value in headers.items())]
        self._headers = "\r\n".join(lines).encode("latin-1")
        self._idle: list[_Connection] = []

    async def post(self, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """Status, headers (names in lower case) and content of the answer.

        Raises:
            Unreached, Broken: for what may succeed another time.
            TooLarge: for an answer that is not read to its end.
        """
        reader, writer = await self._connect()
        reusable = False
        try:
            head = f"POST {self._path}{path} HTTP/1.1\r\nContent-Length: {len(body)}\r\n".encode()
            writer.write(head + self._headers + b"\r\n\r\n" + body)
            status, headers = _parse_head(await reader.readuntil(b"\r\n\r\n"))
            content, reusable = await _content(reader, headers)
        except (asyncio.IncompleteReadError, OSError) as error:
            raise Broken("the server closed the connection in mid-answer") from error
        except (ValueError, asyncio.LimitOverrunError) as error:
            raise Broken(f"not an HTTP answer ({error})") from error
        finally:
            if reusable:
                self._idle.append((reader, writer))
            else:
                writer.close()
        return status, headers, content

    async def _connect(self) -> _Connection:
        while self._idle:
            reader, writer = self._idle.pop()
            if not (reader.at_eof() or writer.is_closing()):
                return reader, writer
            writer.close()
        try:
            return await asyncio.open_connection(self._host, self._port, limit=_LARGEST_HEAD)
        except OSError as error:
            raise Unreached(f"no connection ({error.strerror or error})") from error

    async def close(self) -> None:
        """Close the idle connections."""
        for _, writer in self._idle:
            writer.close()
        self._idle.clear()


def _parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    if not version.startswith("HTTP/1"):
        raise ValueError("no status line")
    parted = (line.partition(":") for line in lines)
    return int(rest[:3]), {name.strip().lower(): value.strip() for name, colon, value in parted if colon}


async def _content(reader: asyncio.StreamReader, headers: dict[str, str]) -> tuple[bytes, bool]:
    keep = headers.get("connection", "").lower() != "close"
    if "content-length" in headers:
        return await reader.readexactly(_allowed(int(headers["content-length"]))), keep
    if "chunked" in headers.get("transfer-encoding", "").lower():
        parts, read = [], 0
        while size := int((await reader.readline()).split(b";")[0], 16):
            read = _allowed(read + size)
            parts.append(await reader.readexactly(size))
            await reader.readexactly(2)
        while (await reader.readline()).strip():  # trailers
            pass
        return b"".join(parts), keep
    parts, read = [], 0
    while part := await reader.read(_LARGEST_HEAD):
        read = _allowed(read + len(part))
        parts.append(part)
    return b"".join(parts), False


def _allowed(size: int) -> int:
    if size > LARGEST:
        raise TooLarge
    return size
