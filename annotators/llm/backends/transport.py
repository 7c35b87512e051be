"""A lean HTTP/1.1 transport for servers on this machine, under the native SDKs.

A remote model takes a second to answer; a local server, or one in a test, can take less than the SDKs' own general
transport. This one does what a plain ``http://`` server without a proxy needs: keep-alive, a length or chunks, no
redirects. Everything else goes through the SDK's transport.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2

_LARGEST_HEAD = 64 * 1024


class LocalTransport(httpx2.AsyncBaseTransport):
    """Connections to one origin, kept open and used again."""

    def __init__(self) -> None:
        self._idle: dict[tuple[str, int], list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]] = {}

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        body = await request.aread()
        place = (request.url.host, request.url.port or 80)
        reader, writer = await self._connect(place, request)
        reusable = False
        try:
            writer.write(_head(request, body) + body)
            status, headers = _parse_head(await reader.readuntil(b"\r\n\r\n"))
            content, reusable = await _content(reader, headers)
        except (asyncio.IncompleteReadError, OSError) as error:
            raise httpx2.RemoteProtocolError(
                "the server closed the connection in mid-answer", request=request
            ) from error
        except (ValueError, asyncio.LimitOverrunError) as error:
            raise httpx2.RemoteProtocolError(f"not an HTTP answer: {error}", request=request) from error
        finally:
            if reusable:
                self._idle.setdefault(place, []).append((reader, writer))
            else:
                writer.close()
        return httpx2.Response(status, headers=headers, content=content, request=request)

    async def _connect(
        self, place: tuple[str, int], request: httpx2.Request
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        idle = self._idle.get(place, [])
        while idle:
            reader, writer = idle.pop()
            if not (reader.at_eof() or writer.is_closing()):
                return reader, writer
            writer.close()
        try:
            return await asyncio.open_connection(*place, limit=_LARGEST_HEAD)
        except OSError as error:
            raise httpx2.ConnectError(f"no connection: {error.strerror or error}", request=request) from error

    async def aclose(self) -> None:
        for connections in self._idle.values():
            for _, writer in connections:
                writer.close()
        self._idle.clear()


def _head(request: httpx2.Request, body: bytes) -> bytes:
    lines = [f"{request.method} ".encode() + request.url.raw_path + b" HTTP/1.1"]
    # The SDKs ask for compression, which costs more than it saves on one machine.
    lines += [
        name + b": " + value
        for name, value in request.headers.raw
        if name.lower() not in (b"accept-encoding", b"content-length", b"connection", b"transfer-encoding")
    ]
    lines += [b"Content-Length: %d" % len(body), b"", b""]
    return b"\r\n".join(lines)


def _parse_head(head: bytes) -> tuple[int, list[tuple[str, str]]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    if not version.startswith("HTTP/1"):
        raise ValueError("no status line")
    headers = []
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            headers.append((name.strip().lower(), value.strip()))
    return int(rest[:3]), headers


async def _content(reader: asyncio.StreamReader, headers: list[tuple[str, str]]) -> tuple[bytes, bool]:
    known = dict(headers)
    keep = known.get("connection", "").lower() != "close"
    if "chunked" in known.get("transfer-encoding", "").lower():
        parts = []
        while size := int((await reader.readline()).split(b";")[0], 16):
            parts.append(await reader.readexactly(size))
            await reader.readexactly(2)
        while (await reader.readline()).strip():  # trailers
            pass
        return b"".join(parts), keep
    if "content-length" in known:
        return await reader.readexactly(int(known["content-length"])), keep
    return await reader.read(), False


def http_client(base_url: str, default: type[Any], timeout: float) -> Any:
    """The HTTP client for an SDK: the lean one for a plain ``http`` address, else ``default`` of the SDK."""
    if base_url.startswith("http://"):
        return httpx2.AsyncClient(transport=LocalTransport(), timeout=timeout, trust_env=False)
    limits = httpx2.Limits(max_connections=1000, max_keepalive_connections=200)
    return default(timeout=timeout, limits=limits)
