"""A Python function as an application: what of it can travel, and the script that calls it where the job runs."""

from __future__ import annotations

import ast
import builtins
import copy
import inspect
import json
import math
import symtable
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from practicus_provider.errors import SpecError
from practicus_provider.spec import Function

FIELD = "python_callable"
DECORATORS = {"practicus", "practicus_task"}
"""The last part of what a DAG's file calls our decorator by."""
_OF_A_MODULE = {"__name__", "__file__", "__doc__"}
_HEAD = "from __future__ import annotations\n\n"
_CALL = """

if __name__ == "__main__":
    import json

    import practicus_runtime

    arguments = json.loads({arguments!r})
    practicus_runtime.set_result({name}(*arguments["args"], **arguments["kwargs"]))
"""


def read(function: Callable[..., Any]) -> Function:
    """The function's own source, which has to be all that it needs.

    :raises SpecError: it needs more, or cannot be read.
    """
    name = getattr(function, "__name__", repr(function))
    try:
        lines, _ = inspect.getsourcelines(function)
        indented = lines[0][:1].isspace()
        tree = ast.parse("".join(["if True:\n"] * indented + lines))
    except (OSError, TypeError, SyntaxError) as error:
        raise SpecError(FIELD, name, f"define it in a file by 'def': its source cannot be read: {error}") from error
    definition = tree.body[0].body[0] if isinstance(tree.body[0], ast.If) else tree.body[0]
    if not isinstance(definition, ast.FunctionDef):
        raise SpecError(FIELD, name, "define it by 'def': a lambda or an async function cannot be a job")
    if inspect.isgeneratorfunction(function):
        raise SpecError(FIELD, name, "return a list instead: a generator's items are no result")
    _check_decorators(name, definition.decorator_list)
    if missing := sorted(_missing(definition)):
        names = ", ".join(missing)
        way_out = f"only its own source travels: import, define or pass inside it what it takes from outside: {names}"
        raise SpecError(FIELD, name, way_out)
    return Function(name, "".join(lines[definition.lineno - 1 - indented : definition.end_lineno]).rstrip() + "\n")


def arguments(args: Collection[Any], kwargs: Mapping[str, Any], later: Callable[[Any], bool]) -> str:
    """The arguments of a call, as :class:`~practicus_provider.spec.Function` has them.

    :param later: whether a value only stands for what the function will be given.
    :raises SpecError: JSON cannot hold one of them.
    """
    plain = {
        "args": [_plain("op_args", value, later) for value in args],
        "kwargs": {name: _plain(name, value, later) for name, value in kwargs.items()},
    }
    return json.dumps(plain)


def script(function: Function) -> bytes:
    """A Python file that calls the function, and makes what it returns the job's result."""
    block = "if True:  # the function is indented as in its DAG's file\n" if function.source[0].isspace() else ""
    return "".join([_HEAD, block, function.source, _CALL.format_map(vars(function))]).encode()


def _check_decorators(name: str, decorators: Sequence[ast.expr]) -> None:
    """Those above ours are of the task; one below would be of the function, but is not in its source."""
    called = [ast.unparse(item.func if isinstance(item, ast.Call) else item) for item in decorators]
    below = 1 + max((i for i, text in enumerate(called) if text.split(".")[-1] in DECORATORS), default=-1)
    for text in called[below:]:
        raise SpecError(FIELD, name, f"only its own source travels: leave out the decorator @{text}")


def _missing(definition: ast.FunctionDef) -> set[str]:
    """Names that it takes from outside itself. Annotations count not: nothing evaluates them."""
    alone = copy.deepcopy(definition)
    alone.decorator_list = []
    source = ast.unparse(_Unannotated().visit(alone))
    taken: set[str] = set()
    made = {definition.name}
    for table in _tables(symtable.symtable(source, definition.name, "exec")):
        for symbol in table.get_symbols():
            if symbol.is_global() or table.get_type() == "module":
                here = made if symbol.is_assigned() or symbol.is_imported() else taken
                here.add(symbol.get_name())
    return taken - made - vars(builtins).keys() - _OF_A_MODULE


def _tables(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    yield table
    for child in table.get_children():
        yield from _tables(child)


class _Unannotated(ast.NodeTransformer):
    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)


def _plain(field: str, value: Any, later: Callable[[Any], bool]) -> Any:
    """The value as JSON holds it; a sequence of any kind is a list.

    :raises SpecError: JSON cannot.
    """
    if later(value):
        return None
    match value:
        case str() | int() | None:
            return value
        case float() if math.isfinite(value):
            return value
        case Mapping() if all(isinstance(key, str) for key in value):
            return {key: _plain(field, item, later) for key, item in value.items()}
        case Sequence() if not isinstance(value, bytes | bytearray):
            return [_plain(field, item, later) for item in value]
    raise SpecError(field, value, "give what JSON can hold: the function gets it on another machine")
