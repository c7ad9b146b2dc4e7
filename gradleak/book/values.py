"""The parameters of a chapter, and the values given to them, refused before anything runs.

What a parameter takes is read off its line in the chapter: the type off the annotation or the
default, the rest off the comment, where people read it, too: `one of a, b or c`, `in [0, 1)`,
`at least 1`, `above 0`. A number without a range is at least 0; the default is always allowed.

Read with `ast`, not with `papermill.inspect_notebook`: its pattern silently loses parameters that
are annotated `int | None` or have a second `=` in their line, and splits defaults at a `#`.
"""

import ast
import contextlib
import io
import math
import re
import textwrap
import tokenize
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gradleak.book.chapter import BookError, Chapter, extra, pick, read

ONE_OF = re.compile(r"\bone of ([^;]+)")
NUMBER = r"(-?[\d.]+)"
RANGE = re.compile(rf"\bin ([\[(]){NUMBER}, {NUMBER}([\])])|\b(at least|above) {NUMBER}")
LONGEST = 1000  # characters of a value
MOST = 10_000_000  # of a number whose comment says no other: nothing here counts so many


@dataclass(frozen=True)
class Parameter:
    """One line of a chapter's parameters cell; `kind` is its type as written or inferred."""

    name: str
    default: Any
    kind: str
    help: str


def parameters(chapter: Chapter) -> dict[str, Parameter]:
    """Return the chapter's parameters by name, in the order of its parameters cell.

    Raises `BookError` if no cell is tagged `parameters` or a default is not a plain value.
    """
    cells = (c for c in read(chapter).cells if "parameters" in c.metadata.get("tags", []))
    cell = next(cells, None)
    if cell is None:
        raise BookError(f"{chapter.source} has no cell tagged `parameters`: add one.")
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(cell.source).readline)
        if token.type == tokenize.COMMENT
    }
    lines = ast.parse(cell.source).body
    ends = [line.lineno for line in lines[1:]] + [len(cell.source.splitlines()) + 1]
    found = []
    for line, end in zip(lines, ends, strict=True):
        if isinstance(line, (ast.Assign, ast.AnnAssign)):
            # What is no code below a parameter goes on about it.
            about = [comments[n] for n in range(line.lineno, end) if n in comments]
            found.append(_parameter(chapter, line, "; ".join(about)))
    return {parameter.name: parameter for parameter in found}


def _parameter(chapter: Chapter, line: ast.Assign | ast.AnnAssign, comment: str) -> Parameter:
    annotated = isinstance(line, ast.AnnAssign)
    name = ast.unparse(line.target if annotated else line.targets[0])
    try:
        default = ast.literal_eval(line.value) if line.value else None
    except ValueError as error:
        raise BookError(
            f"{chapter.source}: the default of {name!r} must be a plain value, not a computed one."
        ) from error
    kind = ast.unparse(line.annotation) if annotated else _kind(default)
    return Parameter(name, default, kind, comment)


def _kind(default: Any) -> str:
    if default is None:
        return "any"
    inner = {type(value).__name__ for value in default} if isinstance(default, list) else ()
    return f"list[{inner.pop()}]" if len(inner) == 1 else type(default).__name__


def assignments(chapter: Chapter, texts: Iterable[str]) -> dict[str, Any]:
    """Return the values in `name=value` texts, each read as its parameter's type, and checked.

    Raises `BookError` for a missing `=` and where `check` does.
    """
    known = parameters(chapter)
    values = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise BookError(f"-p wants name=value, not {text[:99]!r}.")
        name = pick(f"parameter of {chapter.name}", name.strip(), known)
        values[name] = _read(known[name], value.strip())
    return check(chapter, values)


def check(chapter: Chapter, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the given values as their parameters' types.

    Raises `BookError` at the first name that is no parameter of the chapter, value of another
    type, or value that the parameter's comment does not allow.
    """
    known = parameters(chapter)
    for name in given:
        pick(f"parameter of {chapter.name}", name, known)
    return {name: _checked(known[name], value) for name, value in given.items()}


def _checked(parameter: Parameter, value: Any) -> Any:
    try:
        value = _fit(parameter.kind, value)
    except (TypeError, OverflowError) as error:
        example = f", such as {parameter.default!r}" if parameter.default not in (None, []) else ""
        shown = textwrap.shorten(ascii(value), 99)
        message = f"{parameter.name} wants type {parameter.kind}{example}; not {shown}."
        raise BookError(message) from error
    if value != parameter.default:
        for part in value if isinstance(value, (list, tuple)) else [value]:
            _allow(parameter, part)
    return value


def _fit(kind: str, value: Any) -> Any:
    """The value as a type; the annotations that chapters use are few. Raises TypeError."""
    for choice in kind.split(" | "):
        outer, _, inner = choice.removesuffix("]").partition("[")
        if outer == "float" and type(value) is int:
            return float(value)
        if outer in ("list", "tuple") and isinstance(value, (list, tuple)):
            part = inner.split(",")[0] or "any"
            return [_fit(part, v) for v in value]
        if outer in ("any", type(value).__name__) or (outer == "None" and value is None):
            return value
    raise TypeError(f"{value!r} is no {kind}")


def _allow(parameter: Parameter, value: Any) -> None:
    choices = ONE_OF.search(parameter.help)
    if choices:
        pick(parameter.name, value, re.split(r", | or ", choices[1].strip()))
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        found = RANGE.search(parameter.help)
        left, low, high, right, word, bound = found.groups() if found else [None] * 6
        usual = math.inf if parameter.name == "seed" else MOST
        least, most = float(bound or low or 0), float(high or usual)
        above = value > least if left == "(" or word == "above" else value >= least
        below = value <= most if right == "]" else value < most  # so infinity is none, nor is NaN
        if not (above and below):
            allowed = found[0] if found else "at least 0"
            allowed += f" and below {MOST:,}" if not high and MOST <= value < math.inf else ""
            raise BookError(f"{parameter.name} must be {allowed}, got {str(value)[:99]}.")


def _read(parameter: Parameter, text: str) -> Any:
    yaml = extra("yaml")
    if len(text) > LONGEST:
        raise BookError(
            f"{parameter.name} is given {len(text)} characters: give at most {LONGEST}."
        )
    value: Any = text
    # YAML alone would read 1e-3 as a string, and Python alone would not read [gaussian, laplace].
    # Too deep a nest, too many digits and dates that are none are texts to both.
    errors = (yaml.YAMLError, ValueError, SyntaxError, TypeError, LookupError, AttributeError,
              ArithmeticError, RecursionError, MemoryError)  # fmt: skip
    for read_value in (yaml.safe_load, ast.literal_eval):
        with warnings.catch_warnings(), contextlib.suppress(*errors):
            warnings.simplefilter("ignore")  # of code, which this is not
            value = read_value(text)
    # A string stays what was typed, unless it was typed as another type that is allowed.
    kinds = parameter.kind.split(" | ")
    return text if "str" in kinds and type(value).__name__ not in kinds else value
