"""Addresses of servers: which are well formed, which are near, and which key may go where.

A key is named by its environment variable and goes to one address. Those of a provider (``OPENAI_API_KEY``) go to the
provider and to the address that its own variable names (``OPENAI_BASE_URL``), whatever a YAML says.
"""

from __future__ import annotations

import ipaddress
import os
import re
from urllib.parse import SplitResult, urlsplit

from farm.base.errors import UserError

_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*")
_PRIVATE_ENDINGS = (".local", ".internal", ".lan", ".home.arpa", ".svc.cluster.local")
OWNERS = {
    "OPENAI_API_KEY": ("api.openai.com", "OPENAI_BASE_URL"),
    "ANTHROPIC_API_KEY": ("api.anthropic.com", "ANTHROPIC_BASE_URL"),
    "ANTHROPIC_AUTH_TOKEN": ("api.anthropic.com", "ANTHROPIC_BASE_URL"),
}
"""Variables of keys that belong to one host (with what is below it), and the variable of another address of theirs."""


def checked(url: str, name: str = "base_url") -> str:
    """The address without slashes at its end.

    Raises:
        ValueError: it is no http(s) address of a server, holds a password, or would send texts unencrypted through the
            internet. The sentence repeats no address that may hold a password.
    """
    if "@" in url:
        raise ValueError(f"`{name}` must not hold a user or a password: name the variable of the key as `key`")
    if re.search(r"[\x00-\x20\x7f\\]", url):
        raise ValueError(f"`{name}` holds a space, a backslash or a control character")
    shown = repr(url[:80])
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(f"`{name}` = {shown} is no address: the port must be from 1 to 65535") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"`{name}` must be like https://host/v1 or http://127.0.0.1:8000/v1, not {shown}")
    if port == 0:
        raise ValueError(f"`{name}` = {shown} is no address: the port must be from 1 to 65535")
    if parts.query or parts.fragment:
        raise ValueError(f"`{name}` must end with the path: leave out what follows `?` or `#`")
    if parts.scheme == "http" and not _private(parts):
        raise ValueError(
            f"`{name}` = {shown} would send texts and keys unencrypted through the internet: use https "
            "(http is for this machine and private networks)"
        )
    return url.rstrip("/")


def local(url: str) -> bool:
    """Whether an address is on this machine or in a private network, as far as its host shows."""
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return False


def _private(parts: SplitResult) -> bool:
    """Whether no name server of the internet knows the host. Numbers in other notations are no names."""
    host = (parts.hostname or "").rstrip(".")
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        pass
    plain_name = "." not in host and host[:1].isalpha()
    return plain_name or host.endswith((".localhost", *_PRIVATE_ENDINGS))


def belongs(variable: str, url: str) -> bool:
    """Whether the key in this variable may go to this address."""
    if variable not in OWNERS:
        return True
    host, other = OWNERS[variable]
    parts = urlsplit(url)
    own = parts.hostname or ""
    if parts.scheme == "https" and (own == host or own.endswith("." + host)):
        return True
    named = os.environ.get(other, "").rstrip("/")
    return bool(named) and url.rstrip("/") == named


def check_key(variable: str, url: str) -> None:
    """Refuse a variable that is none, or whose key belongs elsewhere.

    Raises:
        ValueError: see there. What may be the key itself is not repeated.
    """
    if not _VARIABLE.fullmatch(variable):
        raise ValueError("`key` must be the name of an environment variable in capitals (MY_GATEWAY_KEY), not a key")
    if not belongs(variable, url):
        host, other = OWNERS[variable]
        raise ValueError(f"the key in {variable} goes to {host} and {other} alone: put this server's into another one")


def key_of(variable: str, url: str) -> str:
    """The key in an environment variable, for this address.

    Raises:
        UserError: the variable is not set; or see :func:`check_key`.
    """
    try:
        check_key(variable, url)
    except ValueError as error:
        raise UserError(f"{url}: {error}") from None
    if not os.environ.get(variable):
        raise UserError(f"{url}: the environment variable {variable}, which its `key` names, is not set")
    return sendable(variable)


KEY_VARIABLES: set[str] = set()
"""the environment variables whose keys this process has sent: what they hold is taken out of every message"""


def sendable(variable: str) -> str:
    """The key in an environment variable that is set. Raises UserError where no header can hold it.

    A line end in it (of a file from Windows) would end the header, and libraries repeat the key when they refuse it.
    """
    KEY_VARIABLES.add(variable)
    key = os.environ[variable]
    if not re.fullmatch(r"[!-~]+", key):
        raise UserError(
            f"the key in {variable} holds a space, a line end or a character that is not ASCII: set it without"
        )
    return key
