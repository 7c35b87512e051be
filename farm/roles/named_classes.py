"""Classes that are found by their name: an installed package names its packages of methods under an entry point.

    [project.entry-points."farm.methods"]
    mine = "my_package.methods"

Then ``my_package/methods/new_ppo.py`` with a class ``NewPPO`` is the method ``new_ppo``: the file has the name, and the
class is the name without underscores, whatever its capitals. Nothing is imported to find it but the packages around it.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

from farm.base.errors import UserError

GROUPS = {"methods": "farm.methods", "measures": "farm.measures"}
"""kind of named config -> the entry point under which packages of such classes are named"""


@dataclass(frozen=True)
class NamedClass:
    path: str
    """the import path"""
    file: Path
    label: str
    """where it was found, for those who ask where a value comes from"""

    def about(self) -> str:
        """The first line of what its file says of itself, without the marks of references."""
        first = (ast.get_docstring(ast.parse(self.file.read_bytes())) or "").split("\n")[0].removesuffix(".")
        return re.sub(r":\w+:`~?([^`]*)`", r"\1", first)


def find(room: str, name: str) -> NamedClass | None:
    """The class of a name; None where no package has one.

    Raises:
        UserError: where two packages have one, or an entry point names a package that is not there.
    """
    if not name.isidentifier():
        return None
    found = [one for package, folder in _packages(room) if (one := _class(room, package, folder / f"{name}.py"))]
    if len(found) > 1:
        both = " and ".join(one.path for one in found[:2])
        raise UserError(f"{name}: {both} have the same name; say which one you mean with `class`")
    return found[0] if found else None


def every(room: str) -> dict[str, NamedClass]:
    """All classes that have a name: name -> class; of two with the same name one, as :func:`find` refuses it."""
    return _every(room, _packages(room))


@cache
def _every(room: str, packages: tuple[tuple[str, Path], ...]) -> dict[str, NamedClass]:
    files = [(package, file) for package, folder in packages for file in sorted(folder.glob("*.py"))]
    return {file.stem: one for package, file in files if (one := _class(room, package, file))}


def lacking(room: str) -> str:
    """A hint for an error where no installed package names any class of a kind; else nothing."""
    if room not in GROUPS or _packages(room):
        return ""
    return f" (no installed package has the entry point {GROUPS[room]}: install feedback-farm again)"


def _class(room: str, package: str, file: Path) -> NamedClass | None:
    if not file.is_file():
        return None
    name = file.stem.replace("_", "").lower()
    classes = re.findall(r"^class (\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    found = next((c for c in classes if c.lower() == name), None)
    if found is None:
        return None
    label = f"entry point {GROUPS[room]} ({package})"
    return NamedClass(f"{package}.{file.stem}.{found}", file, label)


def _packages(room: str) -> tuple[tuple[str, Path], ...]:
    return _of_group(GROUPS[room], tuple(sys.path)) if room in GROUPS else ()


@cache
def _of_group(group: str, _path: tuple[str, ...]) -> tuple[tuple[str, Path], ...]:
    """The packages of a group and their folders; looked for again when Python's path has changed."""
    out: dict[str, Path] = {}
    for entry in sorted(entry_points(group=group), key=lambda e: e.value):
        try:
            spec = importlib.util.find_spec(entry.value)
        except ImportError:
            spec = None
        if spec is None or not spec.submodule_search_locations:
            whose = entry.dist.name if entry.dist else entry.name
            raise UserError(
                f"{whose}: its entry point {group} names {entry.value}, which is no package; install it again"
            )
        out[entry.value] = Path(next(iter(spec.submodule_search_locations)))
    return tuple(out.items())
