"""The mutants of a module: the same code with one thing changed that a test should notice."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

Change = Callable[[ast.AST], ast.AST]

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult, ast.BitOr: ast.BitAnd,
    ast.Pow: ast.Mult, ast.Mod: ast.Mult,
}  # fmt: skip
_CALLS = {"min": "max", "max": "min", "any": "all", "all": "any"}
_CODES = ("RejectionCode", "AccountType", "AccountStatus")
_NOT_CALLED = {"dataclass", "field", "NewType", "TypeVar", "NamedTuple"}


class Mutant(NamedTuple):
    """`name` stays the same while other lines move: function, the line's text, what was changed, and which of them."""

    name: str
    line: int
    place: int
    """Which node of the module, in the order of `_walk`."""
    change: int
    """Which of the changes that can be made to it."""


def mutants(source: str) -> Iterator[Mutant]:
    """All mutants of a module, in the order of its lines. Messages to people and type hints are left alone."""
    lines = source.splitlines()
    seen: dict[str, int] = {}
    for place, (where, node) in enumerate(_walk(ast.parse(source), "")):
        for number, (what, _) in enumerate(_changes(node)):
            line = getattr(node.target if isinstance(node, ast.comprehension) else node, "lineno", 1)
            name = f"{where or 'module'} | {lines[line - 1].strip()} | {what}"
            seen[name] = seen.get(name, 0) + 1
            yield Mutant(f"{name} | {seen[name]}", line, place, number)


def mutated(source: str, mutant: Mutant) -> ast.Module:
    """The module with that one thing changed."""
    tree = ast.parse(source)
    target = next(node for at, (_, node) in enumerate(_walk(tree, "")) if at == mutant.place)
    _, change = list(_changes(target))[mutant.change]
    _replace(tree, target, change(target))
    return ast.fix_missing_locations(tree)


def _walk(node: ast.AST, where: str) -> Iterator[tuple[str, ast.AST]]:
    """Every node that may be changed, with the name of its function."""
    for name, child in ast.iter_fields(node):
        if name in ("annotation", "returns", "type_params", "bases", "decorator_list"):
            continue
        for each in child if isinstance(child, list) else [child]:
            if not isinstance(each, ast.AST) or _is_left_alone(each):
                continue
            inside = where
            if isinstance(each, ast.FunctionDef | ast.ClassDef):
                inside = f"{where}.{each.name}".lstrip(".")
            yield inside, each
            yield from _walk(each, inside)


def _is_left_alone(node: ast.AST) -> bool:
    """Docstrings, texts for people, imports, assertions, and type checking."""
    if isinstance(node, ast.JoinedStr | ast.Import | ast.ImportFrom | ast.Assert):
        return True
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        return True
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _NOT_CALLED


def _changes(node: ast.AST) -> Iterator[tuple[str, Change]]:
    match node:
        case ast.Compare(ops=[op]) if type(op) in _COMPARISONS:
            other = _COMPARISONS[type(op)]
            yield f"{type(op).__name__} to {other.__name__}", _with(ops=[other()])
        case ast.Compare(ops=[_, *_]):
            yield "first comparison only", lambda n: ast.Compare(n.left, n.ops[:1], n.comparators[:1])  # type: ignore[attr-defined]
        case ast.BinOp(op=op) if type(op) in _OPERATORS:
            other_op = _OPERATORS[type(op)]
            yield f"{type(op).__name__} to {other_op.__name__}", _with(op=other_op())
        case ast.AugAssign(op=op) if type(op) in _OPERATORS:
            yield f"{type(op).__name__} to the opposite", _with(op=_OPERATORS[type(op)]())
            yield "not done", lambda n: ast.Pass()
        case ast.BoolOp(op=ast.And()):
            yield "and to or", _with(op=ast.Or())
            yield from _parts_left_out(node)
        case ast.BoolOp(op=ast.Or()):
            yield "or to and", _with(op=ast.And())
            yield from _parts_left_out(node)
        case ast.UnaryOp(op=ast.Not()) | ast.UnaryOp(op=ast.USub()):
            yield "without its sign", lambda n: n.operand  # type: ignore[attr-defined]
        case ast.If(test=test) | ast.IfExp(test=test):
            if not isinstance(test, ast.Compare | ast.UnaryOp):
                yield "the other way", lambda n: _negated(n)
            yield "always", _with(test=ast.Constant(True))
            yield "never", _with(test=ast.Constant(False))
        case ast.Return(value=ast.expr()):
            if not isinstance(node.value, ast.Constant):
                yield "returns nothing", _with(value=ast.Constant(None))
        case ast.Constant(value=bool(value)):
            yield "the other truth", _with(value=not value)
        case ast.Constant(value=int(value)):
            yield "one more", _with(value=value + 1)
            yield "one less", _with(value=value - 1)
        case ast.Constant(value=str(text)) if text and " " not in text:
            yield "another text", _with(value=text + "?")
        case ast.Attribute(value=ast.Name(id=name), attr=attr) if name in _CODES and attr.isupper():
            yield "another code", lambda n: ast.Attribute(n.value, _other_code(name, attr), ast.Load())  # type: ignore[attr-defined]
        case ast.Call():
            yield from _calls_changed(node)
        case ast.comprehension(ifs=[_, *_]):
            yield "without its condition", _with(ifs=[])
        case ast.Expr(value=ast.Call()):
            yield "not called", lambda n: ast.Pass()
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield "not set", lambda n: ast.Pass()
        case ast.Continue():
            yield "not skipped", lambda n: ast.Pass()
        case ast.Break():
            yield "not ended", lambda n: ast.Continue()


def _other_code(enum: str, attr: str) -> str:
    others = {
        "RejectionCode": ("PRICE_NOT_FOUND", "UNIT_IN_USE"),
        "AccountType": ("EQUITY", "ASSET"),
        "AccountStatus": ("CLOSED", "ACTIVE"),
    }
    first, second = others[enum]
    return second if attr == first else first


def _with(**values: object) -> Change:
    def change(node: ast.AST) -> ast.AST:
        for name, value in values.items():
            setattr(node, name, value)
        return node

    return change


def _negated(node: ast.AST) -> ast.AST:
    node.test = ast.UnaryOp(ast.Not(), node.test)  # type: ignore[attr-defined]
    return node


def _replace(tree: ast.AST, old: ast.AST, new: ast.AST) -> None:
    if old is new:
        return
    for parent in ast.walk(tree):
        for name, child in ast.iter_fields(parent):
            if child is old:
                setattr(parent, name, ast.copy_location(new, old))
            elif isinstance(child, list) and any(each is old for each in child):
                child[[each is old for each in child].index(True)] = ast.copy_location(new, old)


def _parts_left_out(node: ast.BoolOp) -> Iterator[tuple[str, Change]]:
    """Each part of a condition may be the one that nobody asks for."""
    for place in range(len(node.values)):
        rest = node.values[:place] + node.values[place + 1 :]
        what = f"without part {place + 1}"
        yield what, (_with(values=rest) if rest[1:] else partial(_only, place=1 - place))


def _only(node: ast.AST, *, place: int) -> ast.AST:
    assert isinstance(node, ast.BoolOp)
    return node.values[place]


def _calls_changed(node: ast.Call) -> Iterator[tuple[str, Change]]:
    name = node.func.id if isinstance(node.func, ast.Name) else ""
    if name in _CALLS:
        yield f"{name} to {_CALLS[name]}", _with(func=ast.Name(_CALLS[name], ast.Load()))
    for place, arg in enumerate(node.args if name[:1].isupper() else ()):
        if isinstance(arg, ast.Attribute):
            yield f"argument {place + 1} left out", partial(_without_argument, place=place)
    for place, keyword in enumerate(node.keywords):
        # zip's `strict` is a mutant already: the other truth.
        if keyword.arg != "strict":
            yield f"{keyword.arg} left out", _with(keywords=node.keywords[:place] + node.keywords[place + 1 :])


def _without_argument(node: ast.AST, *, place: int) -> ast.AST:
    assert isinstance(node, ast.Call)
    return ast.Call(node.func, [*node.args[:place], ast.Constant(None), *node.args[place + 1 :]], node.keywords)
