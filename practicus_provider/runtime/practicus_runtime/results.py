"""What a result cannot hold, and where in it that stands. Apart from the rest, as few processes need it."""

from __future__ import annotations

import math
from typing import Any, Iterator

DEPTH = 100
"""How deep lists and dicts may lie in each other; who reads them with one call in another has more to do than we."""
RESERVED = (("__classname__",), ("__id__",), ("__type", "__var"))
"""Keys by which Airflow takes a dict of an XCom for an object of some class, of each group all
(``airflow.sdk.serde``): the next task would be given that."""


def unsafe(value: Any, place: str = "result", depth: int = 0) -> Iterator[str]:
    """What of a value is no mere data to Airflow, or nothing that a database keeps: each with its place."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            yield f"{place} is {value[:40]!r}, with half of a pair of surrogates, which UTF-8 does not have"
    elif isinstance(value, (dict, list, tuple)) and depth == DEPTH:
        yield f"{place[:100]}... lies over {DEPTH} lists and dicts deep"
    elif isinstance(value, dict):
        for keys in RESERVED:
            if all(key in value for key in keys):
                names = " and ".join(map(repr, keys))
                yield f"{place} has {names}, by which Airflow would make an object of it; name them otherwise"
        for key, item in value.items():
            yield from unsafe(key, f"a key of {place}", depth + 1)
            yield from unsafe(item, f"{place}[{key!r}]", depth + 1)
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            yield from unsafe(item, f"{place}[{number}]", depth + 1)


def plain(value: Any) -> Any:
    """A number of NumPy's, or a tensor of one number, as Python's own; as ``json.dumps`` calls its ``default``.

    :raises TypeError: it is something else.
    """
    if _is_number(value):
        return value.item()
    raise TypeError(f"{type(value).__name__} is nothing that JSON has")


def refused(value: Any, place: str = "result", around: tuple[int, ...] = ()) -> Iterator[str]:
    """What of a value JSON cannot hold: each with its place, its type and the way out.

    :param around: ids of the lists and dicts that hold it.
    """
    if id(value) in around:
        yield f"{place} holds itself (Circular reference)"
    elif isinstance(value, dict):
        for key, item in value.items():
            if key is not None and not isinstance(key, (str, int, float)):
                yield f"{place} has the key {key!r} of type {_type(key)}; give strings as keys"
            else:
                yield from refused(item, f"{place}[{key!r}]", (*around, id(value)))
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            yield from refused(item, f"{place}[{number}]", (*around, id(value)))
    elif isinstance(value, float):
        if not math.isfinite(value):
            yield f"{place} is {float(value)!r}, a number that JSON does not have; give None, or a text"
    elif _is_number(value) and not _is_number(value.item()):
        yield from refused(value.item(), place, around)
    elif value is not None and not isinstance(value, (str, int)):
        way_out = "its .tolist()" if hasattr(value, "tolist") else "strings, numbers, lists and dicts"
        yield f"{place} is of type {_type(value)}; give {way_out}"


def _is_number(value: Any) -> bool:
    return getattr(value, "shape", None) == () and hasattr(value, "item")


def _type(value: Any) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
