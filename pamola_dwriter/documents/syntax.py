"""JSON text and the plain Python values it stands for, exactly and strictly in both directions."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any, TypeAlias

import orjson

from pamola_dwriter.errors import InvalidTargetError

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"

MAX_DEPTH = 100
"""How many arrays and objects may stand inside one another: Python's stack and readers end too."""

KEPT = "it is kept as it is: mend it, move it away, or choose another name"

_TOO_DEEP = f"it is nested deeper than {MAX_DEPTH} levels"


def dumps(value: Json, *, pretty: bool) -> bytes:
    """Return a plain value as UTF-8 JSON, indented by two spaces or without any space.

    Integers of any size are written with all their digits, NaN and the infinities as null.
    """
    option = orjson.OPT_INDENT_2 if pretty else 0
    try:
        return orjson.dumps(value, option=option)
    except TypeError:  # an integer beyond 64 bits, the one plain value that orjson refuses
        return orjson.dumps(_spelled(value), option=option)


def _spelled(value: Json) -> Any:
    """Return `value` with its integers spelled out, which costs orjson its speed."""
    if isinstance(value, dict):
        return dict(zip(value, map(_spelled, value.values()), strict=True))
    if isinstance(value, list):
        return list(map(_spelled, value))
    if isinstance(value, int) and not isinstance(value, bool):
        return orjson.Fragment(str(value))
    return value


def decode(stored: bytes) -> Json:
    """Return the value of a stored JSON document.

    Integers are exact whatever their size; other numbers are doubles, as JSON readers have it.

    Raises
    ------
    InvalidTargetError
        It is not strict JSON (not UTF-8, cut short, NaN, a number that no double holds, half a
        surrogate pair, one name twice in an object), or nested deeper than ``MAX_DEPTH``. The
        message never quotes the document.
    """
    try:
        value: Json = json.loads(
            stored.decode(),
            object_pairs_hook=_object,
            parse_constant=_no_constant,
            parse_float=_finite,
        )
        if b"\\u" in stored:  # the one way for half a surrogate pair to come in
            json.dumps(value, ensure_ascii=False).encode()
        _check_depth(value)
    except json.JSONDecodeError as error:
        problem = f"a parser stops at line {error.lineno}, column {error.colno}"
    except UnicodeError:
        problem = "it is not UTF-8, or holds half a surrogate pair"
    except RecursionError:
        problem = _TOO_DEEP
    except _FlawError as error:
        problem = str(error)
    except ValueError:
        problem = "it holds an integer of more digits than Python reads"
    else:
        return value
    # Outside of the except clauses: those errors carry the document.
    raise InvalidTargetError(f"what is stored is not valid JSON ({problem}); {KEPT}")


class _FlawError(ValueError):
    """What the parser accepts and we do not; the message quotes nothing."""


def _object(members: list[tuple[str, Json]]) -> dict[str, Json]:
    value = dict(members)
    if len(value) != len(members):
        raise _FlawError("an object of it has two members of one name")
    return value


def _no_constant(name: str) -> Json:
    raise _FlawError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise _FlawError("it holds a number that no double can hold")
    return value


def _check_depth(value: Json) -> None:
    level: list[Json] = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [member for holder in level for member in _members(holder)]
        if not level:
            return
    raise _FlawError(_TOO_DEEP)


def _members(value: Json) -> Iterable[Json]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def kind_of(value: Json) -> str:
    """Return what `value` is, in the words of JSON."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "an array"
    return "a string" if isinstance(value, str) else "a number, true, false or null"
