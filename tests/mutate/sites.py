"""Where the code can be broken: mutants from the syntax tree, one small change each.

| kind      | before            | after                        |
|-----------|-------------------|------------------------------|
| sign      | a + b, a - b, -a  | a - b, a + b, a              |
| factor    | a * b, a / b, 2 a | a / b, a * b, 3 a; ** too    |
| index     | x[1], x[:n], axis | x[2], x[:n + 1], other axis  |
| bound     | a < b, min        | a <= b, max; == and != too   |
| transpose | x.T, x.mT         | x                            |

Code that only says something (errors, names, annotations, docstrings, asserts) is left alone.
"""

from __future__ import annotations

import ast
import copy
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]

OUT_OF_SCOPE = {
    "constructions/__init__.py": "names only",
    "constructions/bench.py": "a command: timings",
    "constructions/cli.py": "commands: options and messages",
    "constructions/em_demo.py": "a command",
    "constructions/em_plot.py": "a picture",
    "constructions/explore.py": "a command",
    "constructions/explore_page.py": "a page",
    "constructions/export.py": "for a library that the suite need not have",
    "constructions/files.py": "files: no arithmetic",
    "constructions/plot_parts.py": "pictures",
    "constructions/report.py": "figures of merit for the commands",
    "constructions/spectral_demo.py": "a command",
    "constructions/spectral_plot.py": "a picture",
    "constructions/spectral_watch.py": "messages about violated assumptions",
    "constructions/tensor_demo.py": "a command",
    "gmm/__init__.py": "names only",
}
"""Files of the two packages that no mutant is made of, with the reason."""

KINDS = ("sign", "factor", "index", "bound", "transpose")

_SWAPS: dict[type[ast.AST], tuple[str, type[ast.AST]]] = {
    ast.Add: ("sign", ast.Sub),
    ast.Sub: ("sign", ast.Add),
    ast.Mult: ("factor", ast.Div),
    ast.Div: ("factor", ast.Mult),
    ast.Pow: ("factor", ast.Mult),
    ast.MatMult: ("transpose", ast.MatMult),
    ast.Lt: ("bound", ast.LtE),
    ast.LtE: ("bound", ast.Lt),
    ast.Gt: ("bound", ast.GtE),
    ast.GtE: ("bound", ast.Gt),
    ast.Eq: ("bound", ast.NotEq),
    ast.NotEq: ("bound", ast.Eq),
}
_NAMES = {"min": "max", "max": "min", "minimum": "maximum", "maximum": "minimum", "argmin": "argmax",
          "argmax": "argmin", "floor": "ceil", "ceil": "floor"}  # fmt: skip


class Site(NamedTuple):
    """One mutant: where, what kind, and the code before and after; `node` is its number in the tree."""

    file: str
    line: int
    column: int
    where: str
    kind: str
    before: str
    after: str
    node: int
    way: str
    number: int

    @property
    def name(self) -> str:
        """Stays the same when lines move: file, function, change, and which of equal ones."""
        return f"{self.file}:{self.where}: {self.before} -> {self.after} #{self.number}"


def files() -> list[str]:
    """The files in scope."""
    found = [
        p.relative_to(ROOT).as_posix() for d in ("constructions", "gmm") for p in (ROOT / d).glob("*.py")
    ]
    return sorted(name for name in found if name not in OUT_OF_SCOPE)


def sites(file: str, source: str | None = None) -> list[Site]:
    """All mutants of a file."""
    text = (ROOT / file).read_text("utf-8") if source is None else source
    tree = ast.parse(text)
    numbers = {id(node): i for i, node in enumerate(ast.walk(tree))}
    seen: Counter[tuple[str, str, str]] = Counter()
    found = []
    for where, node in _arithmetic(tree, ""):
        for way in _ways(node):
            changed = _changed(node, way)
            before, after = ast.unparse(node), ast.unparse(changed)
            if before == after:
                continue
            key = (where, before, after)
            seen[key] += 1
            kind = way.split(":")[0]
            place = (node.lineno, node.col_offset)  # type: ignore[attr-defined]
            found.append(Site(file, *place, where, kind, before, after, numbers[id(node)], way, seen[key]))
    return found


def mutated(site: Site, source: str | None = None) -> ast.Module:
    """The syntax tree of the file with the mutant in it."""
    text = (ROOT / site.file).read_text("utf-8") if source is None else source
    tree = ast.parse(text)
    target = list(ast.walk(tree))[site.node]

    class Replace(ast.NodeTransformer):
        def visit(self, node: ast.AST) -> ast.AST:
            if node is target:
                return _changed(node, site.way)
            return self.generic_visit(node)

    return ast.fix_missing_locations(Replace().visit(tree))


def _arithmetic(node: ast.AST, where: str) -> Iterator[tuple[str, ast.AST]]:
    """Nodes that compute something, with the function they are in."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Raise | ast.Assert | ast.JoinedStr | ast.ImportFrom | ast.Import):
            continue
        if isinstance(child, ast.AnnAssign):
            if child.value is not None:
                yield from _arithmetic(ast.Expression(child.value), where)
            continue
        name = where
        if isinstance(child, ast.FunctionDef | ast.ClassDef):
            name = f"{where}.{child.name}".strip(".")
            for part in child.body:
                if not isinstance(part, ast.Raise | ast.Assert):
                    yield from _of(part, name)
            continue
        yield name, child
        yield from _arithmetic(child, name)


def _of(node: ast.AST, where: str) -> Iterator[tuple[str, ast.AST]]:
    holder = ast.Module([node], [])  # type: ignore[list-item]
    yield from _arithmetic(holder, where)


def _ways(node: ast.AST) -> Iterator[str]:
    """Names of the changes that apply to a node."""
    match node:
        case ast.BinOp(op=op, left=left, right=right):
            kind = _SWAPS.get(type(op), ("", op))[0]
            text = any(
                isinstance(side, ast.Constant) and isinstance(side.value, str) for side in (left, right)
            )
            if kind in ("sign", "factor") and not text:
                yield f"{kind}:operator"
            for side in ("left", "right"):
                value = getattr(node, side)
                if _is_number(value) and not isinstance(op, ast.BitAnd | ast.BitOr | ast.Mod):
                    yield f"factor:{side}"
        case ast.AugAssign(op=op):
            if type(op) in _SWAPS and _SWAPS[type(op)][0] in ("sign", "factor"):
                yield f"{_SWAPS[type(op)][0]}:operator"
        case ast.UnaryOp(op=ast.USub()):
            yield "sign:drop"
        case ast.Compare(ops=ops):
            for i, op in enumerate(ops):
                if type(op) in _SWAPS:
                    yield f"bound:{i}"
        case ast.Subscript(slice=part, ctx=ast.Load()):
            for place, value in enumerate(part.elts if isinstance(part, ast.Tuple) else [part]):
                if _is_number(value) or (isinstance(value, ast.UnaryOp) and _is_number(value.operand)):
                    yield f"index:{place}:"
                elif isinstance(value, ast.Slice):
                    for end in ("lower", "upper"):
                        if getattr(value, end) is not None:
                            yield f"index:{place}:{end}"
        case ast.keyword(arg="axis", value=ast.Constant(value=int())):
            yield "index:axis"
        case ast.Call(func=ast.Name(id="range"), args=args) if args:
            yield "index:range"
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name in _NAMES:
            yield "bound:call"
        case ast.Attribute(attr="T" | "mT"):
            yield "transpose:drop"


def _is_number(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Constant)
        and isinstance(node.value, int | float)
        and not isinstance(node.value, bool)
    )


def _changed(original: ast.AST, way: str) -> ast.AST:
    """A copy of the node with the change."""
    node = copy.deepcopy(original)
    _, what, *rest = way.split(":")
    match node:
        case ast.BinOp() | ast.AugAssign() if what == "operator":
            node.op = _SWAPS[type(node.op)][1]()  # type: ignore[assignment]
        case ast.BinOp():
            setattr(node, what, _plus_one(getattr(node, what)))
        case ast.UnaryOp():
            return node.operand
        case ast.Compare():
            node.ops[int(what)] = _SWAPS[type(node.ops[int(what)])][1]()  # type: ignore[call-overload]
        case ast.Subscript():
            parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            place, end = int(what), rest[0]
            if end:
                setattr(parts[place], end, _plus_one(getattr(parts[place], end)))
            else:
                parts[place] = _plus_one(parts[place])
            if not isinstance(node.slice, ast.Tuple):
                node.slice = parts[0]
        case ast.keyword():
            node.value = ast.Constant(1 if node.value.value == 0 else 0)  # type: ignore[attr-defined]
        case ast.Call() if what == "range":
            last = min(1, len(node.args) - 1)
            node.args[last] = _plus_one(node.args[last])
        case ast.Call(func=ast.Name()):
            node.func.id = _NAMES[node.func.id]
        case ast.Call():
            node.func.attr = _NAMES[node.func.attr]  # type: ignore[attr-defined]
        case ast.Attribute():
            return node.value
    return node


def _plus_one(node: ast.expr) -> ast.expr:
    if isinstance(node, ast.Constant):
        return ast.Constant(node.value + 1)  # type: ignore[operator]
    return ast.BinOp(node, ast.Add(), ast.Constant(1))
