"""The providers whose servers are asked over HTTP: their addresses, which key goes with a question, and what of its
body is nobody else's to set.

Without a ``key`` of its own an address gets the provider's key if it is the provider's or the one that the provider's
variable names (OPENAI_BASE_URL), and none otherwise.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from farm.base import addresses
from farm.base.errors import UserError


@dataclass(frozen=True)
class Provider:
    """One provider."""

    official: str
    """its own address"""
    elsewhere: str
    """the variable of another address"""
    keys: tuple[str, ...]
    """the variables of its keys, in the order in which they are looked for"""
    body: frozenset[str]
    """the fields of a request that this program writes itself"""

    def address(self, base_url: str | None) -> str:
        """The address asked: ``base_url``, else the variable's, else the provider's own.

        Raises:
            ValueError, UserError: see :func:`farm.base.addresses.checked`; the second for the variable.
        """
        if base_url:
            return addresses.checked(base_url)
        named = os.environ.get(self.elsewhere)
        if not named:
            return self.official
        try:
            return addresses.checked(named, self.elsewhere)
        except ValueError as error:
            raise UserError(f"the environment: {error}") from None

    def owns(self, url: str) -> bool:
        """Whether an address is the provider's or the one its variable names: it gets the provider's headers."""
        return addresses.belongs(self.keys[0], url)

    def key(self, url: str, named: str | None) -> tuple[str, str]:
        """The key for an address and the variable that it is from; two empty strings where none goes there."""
        if named:
            return addresses.key_of(named, url), named
        known = [variable for variable in self.keys if os.environ.get(variable)] if self.owns(url) else []
        return (addresses.sendable(known[0]), known[0]) if known else ("", "")


OPENAI = Provider(
    "https://api.openai.com/v1",
    "OPENAI_BASE_URL",
    ("OPENAI_API_KEY",),
    frozenset(
        "model messages max_tokens max_completion_tokens temperature seed logprobs top_logprobs response_format "
        "reasoning_effort".split()
    ),
)
ANTHROPIC = Provider(
    "https://api.anthropic.com",
    "ANTHROPIC_BASE_URL",
    ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"),
    frozenset("model messages max_tokens temperature system thinking output_config".split()),
)
PROVIDERS = {"openai": OPENAI, "anthropic": ANTHROPIC}
