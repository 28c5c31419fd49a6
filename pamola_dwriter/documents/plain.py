"""The walk that turns any supported object into plain JSON values, or says where it cannot."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

from pamola_dwriter.documents.rules import PLAIN, UnfitError, simplify
from pamola_dwriter.documents.syntax import MAX_DEPTH, Json, dumps
from pamola_dwriter.errors import UnsupportedDataError

_CONTAINERS = frozenset([dict, list, set, frozenset])
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)

Path = Sequence[str | int | None]
"""Where a value stands; None is one of the members of a set, or a key."""


def plain(data: Any, path: Path = ()) -> Json:
    """Return `data` as dicts, lists, text, numbers, booleans and None, all of them new.

    `path` is where it will stand in its document; it counts for the depth.

    Raises
    ------
    UnsupportedDataError
        A type has no rule, an object holds itself, two keys become the same text, a text holds
        half a surrogate pair, or the nesting is too deep. The message names the place and the
        type, never the value.
    """
    try:
        return _Walk(path).value(data)
    except RecursionError:
        pass
    raise UnsupportedDataError("the data is nested too deeply for what is left of Python's stack")


def text_of(value: Any, path: Path = ()) -> str | None:
    """Return `value` as text: its own if it is text in JSON, else its JSON; None for null."""
    simple = plain(value, path)
    return simple if simple is None or isinstance(simple, str) else _compact(simple)


def unique_names(keys: Iterable[Any]) -> list[str]:
    """Return keys as the names of a JSON object's members.

    Text stays, all else becomes the text it is in JSON (``1``, ``true``, ``null``, a date), or
    its JSON (a tuple: ``["a",1]``).

    Raises
    ------
    UnsupportedDataError
        Two keys become the same text, or one cannot become text.
    """
    return list(_Walk(()).value(dict.fromkeys(keys)))  # type: ignore[arg-type]


class _Walk:
    """Where a walk stands: the path to the present value, and the objects that hold it."""

    __slots__ = ("_holders", "_path")

    def __init__(self, path: Path) -> None:
        self._path = list(path)
        self._holders: set[int] = set()

    def value(self, given: Any) -> Json:
        value = given
        while (kind := type(value)) not in PLAIN:
            try:
                value = simplify(value)
            except UnfitError as unfit:
                advice = str(unfit)
                break
        else:
            return self._container(given, value) if kind in _CONTAINERS else self._scalar(value)
        raise self._error(f"{_name_of(type(given))} has no place in JSON; {advice}")

    def _scalar(self, value: Any) -> Json:
        if isinstance(value, str):
            if not value.isascii() and _LONE_SURROGATE.search(value):
                raise self._error("a text holds half a surrogate pair, which UTF-8 cannot write")
        elif isinstance(value, float):
            return value if math.isfinite(value) else None
        elif isinstance(value, int) and not -(2**63) <= value < 2**64 and not _printable(value):
            raise self._error(
                "an integer has more digits than Python would read back "
                "(sys.set_int_max_str_digits); write it as hexadecimal text"
            )
        return value  # type: ignore[no-any-return]

    def _container(self, given: Any, value: Any) -> Json:
        if id(given) in self._holders:
            raise self._error(f"{_name_of(type(given))} holds itself; break the circle")
        if len(self._path) >= MAX_DEPTH:
            raise self._error(f"the data is nested deeper than {MAX_DEPTH} levels; flatten it")
        self._holders.add(id(given))
        self._path.append(None)
        simple = self._object(value) if isinstance(value, dict) else self._array(value)
        self._path.pop()
        self._holders.remove(id(given))
        return simple

    def _object(self, members: dict[Any, Any]) -> Json:
        simple: dict[str, Json] = {}
        for key, value in members.items():
            self._path[-1] = None
            name = self.value(key)
            if not isinstance(name, str):
                name = _compact(name)
            if name in simple:
                raise self._error(f"a key ({_name_of(type(key))}) becomes the same text as another")
            self._path[-1] = name
            simple[name] = self.value(value)
        return simple

    def _array(self, items: list[Any] | set[Any] | frozenset[Any]) -> Json:
        if not isinstance(items, list):
            return _in_order([self.value(item) for item in items])
        simple: list[Json] = []
        for index, item in enumerate(items):
            self._path[-1] = index
            simple.append(self.value(item))
        return simple

    def _error(self, problem: str) -> UnsupportedDataError:
        return UnsupportedDataError(f"{_spell(self._path)}: {problem}")


def _in_order(members: list[Json]) -> list[Json]:
    """Sort what was a set: numbers by size, text by code point, a mixture by its JSON."""
    if all(isinstance(member, str) for member in members) or all(
        isinstance(member, int | float) for member in members
    ):
        return sorted(members)  # type: ignore[type-var]
    return sorted(members, key=_compact)


def _compact(value: Json) -> str:
    return dumps(value, pretty=False).decode()


def _printable(value: int) -> bool:
    try:
        return bool(str(value))
    except ValueError:
        return False


def _spell(path: Path) -> str:
    steps = []
    for step in path:
        if isinstance(step, str):
            steps.append(f".{step}" if _NAME.fullmatch(step) else f"[{json.dumps(step)}]")
        else:
            steps.append("[*]" if step is None else f"[{step}]")
    return "$" + "".join(steps)


def _name_of(kind: type) -> str:
    builtin = kind.__module__ == "builtins"
    return kind.__qualname__ if builtin else f"{kind.__module__}.{kind.__qualname__}"
