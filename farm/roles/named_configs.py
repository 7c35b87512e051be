"""The YAML files that configure things: read safely, and found by name below ``configs``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from farm.base import files
from farm.base.errors import UserError, brief, nearest, shown
from farm.roles import named_classes


class _Loader(yaml.SafeLoader):
    """YAML loaded safely: texts, numbers, lists and mappings, whose aliases may not multiply into more than is written.

    A repeated key is an error, not a silent overwrite; a date is a text, so none is impossible.
    """

    def fetch_flow_collection_start(self, token: type[yaml.Token]) -> None:
        if self.flow_level >= _DEEPEST:  # the time that each bracket takes grows with those around it
            raise yaml.scanner.ScannerError(None, None, "nested too deeply to be a configuration", self.get_mark())
        super().fetch_flow_collection_start(token)

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None:
            _refuse_bomb(node)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        if kind not in _TAGS:
            raise _wrong(node, f"the tag {shown(node.tag)} is not understood")
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:  # `!!int abc`
            raise _wrong(node, f"{shown(node.value)} is no {kind}") from error


_TAGS = ("map", "seq", "str", "int", "float", "bool", "null", "merge")
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if not tag.endswith(":timestamp")]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}

_DEEPEST = 100
"""brackets within brackets"""
_LARGEST = 100_000
"""values in a YAML file, each counted as often as an alias repeats it"""


def _wrong(node: yaml.Node, problem: str) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _refuse_bomb(root: yaml.Node) -> None:
    """Refuse a document that holds itself, or is far larger than it looks because aliases repeat aliases."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node) -> int:
        if id(node) not in sizes:
            sizes[id(node)] = 0  # until it is known
            below = node.value if isinstance(node, yaml.CollectionNode) else []
            parts = [part for item in below for part in (item if isinstance(item, tuple) else (item,))]
            sizes[id(node)] = 1 + sum(map(size, parts))
        elif not sizes[id(node)]:
            raise _wrong(node, "an alias stands inside what it repeats")
        return sizes[id(node)]

    if (total := size(root)) > _LARGEST:
        raise _wrong(root, f"{shown(total)} values once its aliases are written out; at most {_LARGEST:,} are read")


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[str, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        name = loader.construct_object(key_node, deep=True)
        if isinstance(name, (list, dict)) or name is None:
            raise _wrong(key_node, "a key must be a plain word")
        if str(name) in seen:
            raise _wrong(key_node, f"the key `{brief(str(name), 80)}` stands twice")
        seen.add(str(name))
    return {str(k): v for k, v in yaml.SafeLoader.construct_mapping(loader, node, deep=True).items()}


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def parse_yaml(text: str, origin: str) -> Any:
    """Parsed YAML. Raises UserError with the line for what is no YAML, or more than a configuration needs."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 (a subclass of SafeLoader)
    except RecursionError as error:
        raise UserError(f"{origin}: nested too deeply to be a configuration") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" line {mark.line + 1}" if mark else ""
        raise UserError(f"{origin}{place}: {getattr(error, 'problem', None) or error}") from error


def load_mapping(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file."""
    data = parse_yaml(files.read_text(path), str(path))
    if not isinstance(data, dict):
        raise UserError(f"{path}: expected a mapping of keys to values, found {type(data).__name__}")
    return data


def config_root() -> Path:
    """The folder ``configs``: inside the installed package, or at the top of a clone."""
    packaged = Path(__file__).parents[1] / "_configs"  # not `configs`, which is a function: `farm.configs()`
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "configs"


def named(room: str) -> dict[str, Path]:
    """The named configs of one room: name -> file."""
    return {path.stem: path for path in sorted((config_root() / room).glob("*.yaml"))}


def names(room: str) -> list[str]:
    """Every name that a spec of one room may say: those of files, and of classes that packages bring."""
    return sorted({*named(room), *named_classes.every(room)})


def listed(room: str | None = None) -> dict[str, dict[str, str]]:
    """What there is to use by name, of one kind or of all: kind -> name -> what it is about."""
    rooms = sorted({*(p.name for p in config_root().iterdir() if p.is_dir()), *named_classes.GROUPS})
    if room is not None and room not in rooms:
        raise UserError(f"there is no kind `{room}`; {nearest(room, rooms)}")
    out = {}
    for r in [room] if room else rooms:
        found = {name: one.about() for name, one in named_classes.every(r).items()}
        out[r] = dict(sorted({**found, **{name: about(path) for name, path in named(r).items()}}.items()))
    return out


def find(room: str, name: str) -> Path:
    """The file of a config given by path or by name. Raises UserError naming the nearest known name."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not files.exists(path) and files.exists(config_root().parent / path):
            path = config_root().parent / path
        files.check(path)
        return path
    known = named(room)
    if name not in known:
        raise UserError(
            f"{name}: no such config in configs/{room}; {nearest(name, names(room))}" + named_classes.lacking(room)
        )
    return known[name]


def shown_path(path: Path) -> str:
    """A file of ours by its place below ``configs``."""
    root = config_root().parent
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def about(path: Path) -> str:
    """One line on a named config: its ``about`` key, or what a paper claims.

    Such files are ours, and read by the parser in C: ten times as fast, without a guard against files made to harm.
    """
    try:
        data = yaml.load(files.read_text(path), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    except yaml.YAMLError:
        data = None
    data = data if isinstance(data, dict) else load_mapping(path)  # which says what is wrong
    return str(data.get("about", data.get("claim", ""))).strip().split("\n")[0]
