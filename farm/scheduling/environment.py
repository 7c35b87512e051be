"""What a process that makes stages for this one must know: where modules lie, which addresses and files are meant."""

from __future__ import annotations

import os
import sys

from farm.base.addresses import checked
from farm.base.errors import OptionError

ADDRESSES = ("OPENAI_BASE_URL", "ANTHROPIC_BASE_URL", "HF_ENDPOINT")
PLACES = ("FARM_PRICES", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE")


def search_path() -> str:
    """Where this process finds modules, for PYTHONPATH.

    The current folder is no part of it unless this process looks there too, as a notebook does, and then it comes last:
    a file there must not take the place of an installed package.
    """
    here = [os.getcwd()] if "" in sys.path else []
    return os.pathsep.join([*(path for path in sys.path if path), *here])


def settings() -> dict[str, str]:
    """The variables of this process that say which server or file is meant, as they are set here; never a key.

    Raises:
        UserError: for an address that holds a password, which would stand in the logs of the other side.
    """
    found = {name: os.environ[name] for name in (*ADDRESSES, *PLACES) if os.environ.get(name)}
    for name in ADDRESSES:
        try:
            checked(found.get(name, "https://unset"), name)
        except ValueError as error:
            raise OptionError(f"`engine` ray: {error}") from None
    for name in ("FARM_PRICES", "HF_HOME", "HF_HUB_CACHE"):
        if name in found:
            found[name] = os.path.abspath(os.path.expanduser(found[name]))
    return found
