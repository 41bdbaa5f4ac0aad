"""Who reads the signature of a function on tensors finds their shapes in its docstring."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "flowexp"
# (B, D), (len(part), D), (N,), (B, 1 or 3, H, W), (B, ...), (...); or the shape in words.
SIZE = r"(?:\.\.\.|\*?\w+(?:\([^()]*\))?(?:(?: ?[-+*/^] ?| or | of )\w+)*)"
SHAPE = re.compile(
    rf"\({SIZE}(?:, {SIZE})+\)|\({SIZE},\)|\(\.\.\.\)|\bscalars?\b|shaped like|(?:any|full|same|its|one) shapes?"
)


def public_functions(tree: ast.Module) -> Iterator[tuple[ast.ClassDef | None, ast.FunctionDef]]:
    """The public functions, and the methods of public classes with their class."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield None, node
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            methods = [part for part in node.body if isinstance(part, ast.FunctionDef)]
            yield from ((node, method) for method in methods if not method.name.startswith("_"))


def has_tensors(function: ast.FunctionDef) -> bool:
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    hints = [argument.annotation for argument in arguments] + [function.returns]
    return any(re.search(r"\bTensor\b", ast.unparse(hint)) for hint in hints if hint is not None)


def names_a_shape(node: ast.FunctionDef | ast.ClassDef | None) -> bool:
    return node is not None and SHAPE.search(ast.get_docstring(node) or "") is not None


def test_public_functions_on_tensors_name_shapes():
    """In their docstring or their class's; an override without a docstring has that of the method that it overrides."""
    trees = {file: ast.parse(file.read_text()) for file in sorted(PACKAGE.rglob("*.py"))}
    on_tensors = [
        (file, owner, function)
        for file, tree in trees.items()
        for owner, function in public_functions(tree)
        if has_tensors(function)
    ]
    documented = {
        function.name
        for _, owner, function in on_tensors
        if names_a_shape(function) or (names_a_shape(owner) and ast.get_docstring(function))
    }
    missing = [
        f"{file.relative_to(PACKAGE)}:{function.lineno} {function.name}"
        for file, owner, function in on_tensors
        if not names_a_shape(function)
        and not names_a_shape(owner)
        and (ast.get_docstring(function) or function.name not in documented)
    ]
    assert len(on_tensors) > 200 and not missing, "\n".join(missing)
