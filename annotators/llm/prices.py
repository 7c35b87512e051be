"""What tokens cost: configs/prices.yaml, and the user's own table over it.

A table maps ``provider/model`` to US dollars for a million input and output tokens; an entry covers the dated versions
of its model, and nothing else (a ``-pro`` may cost twelve times as much). A user's table is named by FARM_PRICES.
Models on this machine cost nothing.
"""

from __future__ import annotations

import ipaddress
import os
import re
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field

from farm import config

_DATE = re.compile(r"[-@:](\d{8}|\d{4}-\d{2}-\d{2}|latest)$")
FREE_PROVIDERS = ("mock", "replay", "transformers", "vllm")


class Price(NamedTuple):
    """US dollars for a million tokens."""

    input: float
    output: float

    def of(self, input_tokens: int, output_tokens: int) -> float:
        """US dollars."""
        return (input_tokens * self.input + output_tokens * self.output) / 1e6


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid")
    input: float = Field(ge=0)
    output: float = Field(ge=0)


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid")
    about: str = ""
    models: dict[str, _Entry]


@lru_cache(maxsize=8)
def table(path: str | None) -> dict[str, Price]:
    """The prices that ship with the program, with those of the file at ``path`` over them."""
    out: dict[str, Price] = {}
    for file in [config.config_root() / "prices.yaml", *([Path(path)] if path else [])]:
        found = config.validate(_Table, config.load_mapping(file), str(file))
        out |= {name: Price(entry.input, entry.output) for name, entry in found.models.items()}
    return out


def local(url: str) -> bool:
    """Whether an address is on this machine or in a private network."""
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return False


def price(provider: str, name: str, url: str = "") -> Price | None:
    """The price of a model; None where it is not known."""
    if provider in FREE_PROVIDERS or (url and local(url)):
        return Price(0.0, 0.0)
    wanted = f"{provider}/{name}"
    known = table(os.environ.get("FARM_PRICES"))
    return known.get(wanted) or known.get(_DATE.sub("", wanted))
