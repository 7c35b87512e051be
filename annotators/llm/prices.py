"""What tokens cost: by the user's own table, else by configs/prices.yaml, else by the package genai-prices.

A table maps ``provider/model`` to US dollars for a million input and output tokens, and for input that was in the
provider's cache or was written to it; an entry covers the dated versions of its model, and nothing else (a ``-pro`` may
cost twelve times as much), and so does one of the package, first as the server at the address sells it. A user's table
is named by FARM_PRICES. Prices are those of short prompts. Models on this machine cost nothing.
"""

from __future__ import annotations

import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from annotators.llm.completion import Completion
from farm.base.addresses import local
from farm.roles import config, named_configs

_DATE = re.compile(r"[-@:](\d{8}|\d{4}-\d{2}-\d{2}|latest)$")
WRITTEN = 1.25
"""what input costs that the provider wrote to its cache, in prices of other input"""
FREE_PROVIDERS = ("mock", "replay", "transformers", "vllm")


class Price(NamedTuple):
    """US dollars for a million tokens."""

    input: float
    output: float
    cached: float | None = None
    """of input that the provider had in its cache; by default ``input``, so that no cost is understated"""
    written: float | None = None
    """of input that it wrote to its cache; by default a quarter more than ``input``"""

    def of(self, said: Completion) -> float:
        """US dollars that an answer costs."""
        plain = said.input_tokens - said.cached_tokens - said.written_tokens
        cached = self.input if self.cached is None else self.cached
        parts = plain * self.input + said.cached_tokens * cached + said.written_tokens * self._written()
        return (parts + said.output_tokens * self.output) / 1e6

    def at_most(self, input_tokens: int, output_tokens: int) -> float:
        """US dollars that so many tokens cost if the provider writes all the input to its cache."""
        return (input_tokens * max(self.input, self._written()) + output_tokens * self.output) / 1e6

    def likely(self, input_tokens: int, output_tokens: int) -> float:
        """US dollars that so many tokens cost without a cache."""
        return (input_tokens * self.input + output_tokens * self.output) / 1e6

    def _written(self) -> float:
        return WRITTEN * self.input if self.written is None else self.written


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid")
    input: float = Field(ge=0, allow_inf_nan=False)
    output: float = Field(ge=0, allow_inf_nan=False)
    cached: float | None = Field(None, ge=0, allow_inf_nan=False)
    written: float | None = Field(None, ge=0, allow_inf_nan=False)


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid")
    about: str = ""
    models: dict[str, _Entry]


@lru_cache(maxsize=8)
def table(path: str | None) -> dict[str, Price]:
    """The prices that ship with the program, with those of the file at ``path`` over them."""
    return _read(str(named_configs.config_root() / "prices.yaml")) | (_read(path) if path else {})


@lru_cache(maxsize=8)
def _read(path: str) -> dict[str, Price]:
    found = config.validate(_Table, named_configs.load_mapping(Path(path)), path)
    return {name: Price(**entry.model_dump()) for name, entry in found.models.items()}


def price(provider: str, name: str, url: str = "") -> Price | None:
    """The price of a model; None where it is not known."""
    if provider in FREE_PROVIDERS:
        return Price(0.0, 0.0)
    wanted, own = f"{provider}/{name}", os.environ.get("FARM_PRICES")
    at_home = bool(url) and local(url)  # a server of one's own is free, unless one's own file says what it charges
    known = _read(own) if at_home and own else {} if at_home else table(own)
    found = known.get(wanted) or known.get(_DATE.sub("", wanted))
    return found or (Price(0.0, 0.0) if at_home else _published(provider, name, url))


@lru_cache(maxsize=64)
def _published(provider: str, name: str, url: str) -> Price | None:
    """The price of today in genai-prices; None where it does not know the model, or is not installed."""
    try:
        from genai_prices import Usage, calc_price
    except ImportError:
        return None
    for seller in ({"provider_api_url": url}, {"provider_id": provider}):
        try:
            found = calc_price(Usage(input_tokens=1, output_tokens=1), model_ref=name, **seller)
        except LookupError:
            continue
        rates = found.model_price
        dollars, written = _rate(rates.input_mtok), _rate(rates.output_mtok)
        of_it = found.model.id.lower() in (name.lower(), _DATE.sub("", name).lower())
        if of_it and dollars is not None and written is not None:
            return Price(dollars, written, _rate(rates.cache_read_mtok), _rate(rates.cache_write_mtok))
    return None


def _rate(rate: Any) -> float | None:
    """US dollars for a million tokens; of a price that rises with the length of the prompt the first."""
    return None if rate is None else float(getattr(rate, "base", rate))
