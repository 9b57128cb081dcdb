"""What a class says of its fields: the texts that stand below them in its source, where msgspec keeps none."""

from __future__ import annotations

import ast
import inspect
import textwrap


def of(kind: type) -> dict[str, str]:
    """Field -> the text below it, on one line."""
    (made,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(made, ast.ClassDef), kind
    found = {}
    for statement, after in zip(made.body, made.body[1:], strict=False):
        match statement, after:
            case (
                ast.AnnAssign(target=ast.Name(id=field)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                found[field] = " ".join(text.split())
    return found
