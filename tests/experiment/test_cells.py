"""Cells of a CSV come back as what they were."""

import csv
import io
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gradleak.experiment import _cells

TEXTS = ["None", "NA", "", "nan", "NaN", "null", "01", "1", "1.0", "1e5", "1e-05", "true", "True",
         "-inf", "inf", "0x1F", "1_000", " 1", "1 ", "a,b", 'say "x"', '"quoted"', '"', "'", "a\nb",
         "a\r\nb", "\r", "\t", "ü β 漢 🙂", "\u202eabc", "\x00", "\ud800", "=1+1", "#", "\\n",
         "\ufeff1", "8165486e8493", "620533995320"]  # fmt: skip
values = st.one_of(
    st.text(), st.sampled_from(TEXTS), st.floats(allow_nan=False), st.booleans(),
    st.integers(-(2**63), 2**63 - 1), st.from_regex(r"[-+ ]?[0-9_.e]{1,6}", fullmatch=True),
)  # fmt: skip


@given(st.lists(values, min_size=1), values.map(str))
@example(TEXTS, "01")
@example([0.0, 2**53 + 1], "")
@example([1, "1", "01", True, 1.0, "True"], "")
def test_cells_and_names_come_back_as_what_they_were(column, name):
    table = pd.DataFrame({"id": [str(i) for i in range(len(column))]})
    table[f"{name} "] = pd.Series(column, dtype=object)
    text = _cells.written(table).encode().decode()
    again = _cells.read(text)
    assert list(again) == list(table)
    found = again[f"{name} "].tolist()
    assert [type(v) for v in found if isinstance(v, str)] == [str] * len(
        [v for v in column if isinstance(v, str)]
    )
    assert [(isinstance(v, str), v) for v in found] == [(isinstance(v, str), v) for v in column]
    rows = list(csv.reader(io.StringIO(text)))  # any program reads it
    assert {len(row) for row in rows} == {2}
    assert len(rows) == len(column) + 1


def test_what_is_not_there_stays_so_and_columns_keep_their_kinds():
    table = pd.DataFrame({"id": ["07", "1e5"], "n": [1, 2], "r": [0.1, np.nan], "b": [True, False],
                          "t": ["", np.nan], "none": [np.nan, np.nan]})  # fmt: skip
    again = _cells.read(_cells.written(table))
    pd.testing.assert_frame_equal(again, table, check_dtype=False)
    assert [again[k].dtype.kind for k in ("n", "r", "b", "none")] == ["i", "f", "b", "f"]
    assert math.isnan(again.t[1])
    assert _cells.written(table).splitlines()[1] == '07,1,0.1,True,"""""",'
    assert _cells.read("id,n\n").empty


def test_a_cut_is_noticed_but_between_rows():
    table = pd.DataFrame({"id": ["a", "b"], "t": ["x,\ny", 'q"'], "n": [0.25, 12]})
    text = _cells.written(table)
    ends = {i + 1 for i, c in enumerate(text) if c == "\n"}
    for cut in set(range(len(text))) - ends:
        with pytest.raises(ValueError):  # noqa: PT011  in the words of whoever notices
            _cells.read(text[:cut])
    for cut in ends:
        assert len(_cells.read(text[:cut])) == text[:cut].count("\n") - 1


@pytest.mark.parametrize(
    "text", ["", "\n", "id,n\n1\n", "id,n\n1,2,3\n", 'id\n"a', "id,id\n", "id\n\n", 'id\n"a"b\n']
)
def test_what_is_no_table_is_refused(text):
    with pytest.raises(ValueError, match=r"cut|columns|cells|expected"):
        _cells.read(text)
