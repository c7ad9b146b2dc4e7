"""A table as a CSV that any program reads, and whose cells come back as what they were.

A cell says a number or True or False as Python does, nothing where there is no value, and else the
text itself. A text that would not come back as itself, such as "01", "True", "" or one of two
lines, stands in JSON's quotes.
"""

import csv
import io
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

KINDS = {"True": True, "False": False}


def written(table: pd.DataFrame) -> str:
    """The table as text."""
    text = io.StringIO(newline="")
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow([_said(name) for name in table.columns])
    columns = [table[name].tolist() if name == "id" else [_said(v) for v in table[name].tolist()]
               for name in table.columns]  # fmt: skip
    lines.writerows(zip(*columns, strict=True))
    return text.getvalue()


def read(text: str) -> pd.DataFrame:
    """The table of a text, names of rows as text; ValueError for a cut one or what is no table."""
    if not text.endswith("\n"):
        raise ValueError("its last line is cut")
    try:
        head, *rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    except csv.Error as error:
        raise ValueError(str(error)) from error
    names = [str(_meant(name)) for name in head]
    if not names or len(set(names)) < len(names):
        raise ValueError("its first line does not name the columns, each once")
    for number, row in enumerate(rows, start=2):
        if len(row) != len(names):
            raise ValueError(f"row {number} has {len(row)} cells, not {len(names)}")
    columns = zip(*rows, strict=True) if rows else [()] * len(names)
    return pd.DataFrame({name: _column(name, cells)
                         for name, cells in zip(names, columns, strict=True)})  # fmt: skip


def _column(name: str, cells: Sequence[str]) -> Any:
    if name == "id":  # digits alone may make a name
        return pd.Series(cells, dtype=str)
    known = {cell: _meant(cell) for cell in set(cells)}
    # Beside a float pandas would round a whole number that no float holds.
    exact = any(type(v) is int and abs(v) > 2**53 for v in known.values())
    return pd.Series([known[cell] for cell in cells], dtype=object if exact or not cells else None)


def _said(value: Any) -> str:
    if isinstance(value, str):
        plain = value.isprintable() and value[:1] != '"' and _meant(value) == value
        return value if plain else json.dumps(value)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(value)


def _meant(cell: str) -> Any:
    if not cell:
        return np.nan
    if cell.startswith('"'):
        return json.loads(cell)
    for kind in (float, int):
        try:
            value = kind(cell)
        except ValueError:
            continue
        if str(value) == cell and cell != "nan":  # else it is the name of something
            return value
    return KINDS.get(cell, cell)
