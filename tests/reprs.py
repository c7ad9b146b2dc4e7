"""Reprs in record files, made into what they say without running them as code."""

import ast
from collections.abc import Mapping
from typing import Any


def made(text: str, known: Mapping[str, Any]) -> Any:
    """The object of a repr: calls of the classes that are known, of plain values and each other."""
    return _made(ast.parse(text, mode="eval").body, known)


def _made(node: ast.expr, known: Mapping[str, Any]) -> Any:
    match node:
        case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords) if name in known:
            given = {word.arg: _made(word.value, known) for word in keywords}
            return known[name](*(_made(arg, known) for arg in args), **given)
        case ast.Name(id=name) if name in known:
            return known[name]
        case ast.Tuple(elts=parts):
            return tuple(_made(part, known) for part in parts)
        case ast.List(elts=parts):
            each = ((_made(p.value, known) if isinstance(p, ast.Starred) else [_made(p, known)])
                    for p in parts)  # fmt: skip
            return [value for some in each for value in some]
        case ast.Dict(keys=keys, values=values):
            return {_made(k, known): _made(v, known) for k, v in zip(keys, values, strict=True)}
        case ast.UnaryOp(op=ast.USub(), operand=part):
            return -_made(part, known)
    return ast.literal_eval(node)
