from html.parser import HTMLParser

import matplotlib as mpl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import gradleak as gl


@pytest.fixture(autouse=True)
def no_window():
    with mpl.rc_context({"backend": "agg"}):
        yield
    mpl.pyplot.close("all")


def test_pictures_are_drawn_as_they_are():
    x = torch.rand(3, 3, 4, 4)
    figure = gl.figures.images(x, x.flip(0), labels=["a", "b"], scores=[torch.tensor([1.0, 2, 3])])
    drawn = [axis.images[0].get_array() for axis in figure.axes]
    torch.testing.assert_close(torch.tensor(drawn[4]), x[1].permute(1, 2, 0))
    assert [axis.get_title() for axis in figure.axes[3:]] == ["1.0", "2.0", "3.0"]
    with pytest.raises(ValueError, match="2 rows but 1 labels"):
        gl.figures.images(x, x, labels=["a"])


def test_curves_show_the_numbers():
    points = {0.1: gl.interval([1.0, 2, 3]), 1.0: gl.interval([2.0, 3, 4])}
    figure = gl.figures.curves({"Bayes": points}, across="scale")
    assert figure.axes[0].lines[0].get_ydata().tolist() == [2.0, 3.0]


def test_panels_share_colours_and_one_legend():
    points = {"Bayes": gl.interval([1.0, 2, 3]), "L2": gl.interval([2.0, 3, 4])}
    both = {name: {"0": value, "10": value} for name, value in points.items()}
    groups = {"a": {"L2": both["L2"]}, "b": both, "c": {"Bayes": both["Bayes"]}}
    figure = gl.figures.panels(groups, across="training steps", floor=1.5, log=False)
    colours = {
        line.get_label(): line.get_color() for axis in figure.axes[:3] for line in axis.lines
    }
    for axis in figure.axes[:3]:
        for line in axis.lines:
            assert line.get_color() == colours[line.get_label()]
    assert figure.axes[1].lines[0].get_ydata().tolist() == [2.0, 2.0]
    legend = [text.get_text() for text in figure.axes[3].get_legend().get_texts()]
    assert legend == ["L2", "Bayes", "data-free floor"]
    even = gl.figures.panels({"a": both, "b": both}, across="training steps", log=False)
    assert [text.get_text() for text in even.legends[0].get_texts()] == ["Bayes", "L2"]


def test_a_tradeoff_shows_leakage_against_accuracy():
    leak = gl.interval([10.0, 12.0, 14.0])
    figure = gl.figures.tradeoff({"gaussian": {0.1: (leak, 0.9), 1.0: (leak, 0.5)}}, floor=11.0)
    (axis,) = figure.axes
    line = axis.containers[0].lines[0]
    assert line.get_xdata().tolist() == [12.0, 12.0]
    assert line.get_ydata().tolist() == [0.9, 0.5]
    assert [text.get_text() for text in axis.texts] == ["0.1", "1"]


def test_tables_mark_what_is_below_the_floor_and_what_is_significant():
    low, high = gl.interval([9.0, 10.0, 11.0]), gl.interval([19.0, 20.0, 21.0])
    html = gl.figures.table({"Bayes": {"gaussian": high}, "L2": {"gaussian": low}}, floor=12.0).data
    assert "10.0 †" in html
    assert "20.0 †" not in html
    b = torch.rand(30, generator=torch.Generator().manual_seed(0)).tolist()
    clear, unclear = gl.paired([v + 1 for v in b], b), gl.paired(b, b[::-1])
    html = gl.figures.differences({"L2": {"gaussian": clear}, "L1": {"laplace": unclear}}).data
    assert html.count(" *") == 1
    assert "+1.0 *" in html
    assert "NaN" not in html


@pytest.mark.parametrize(
    "shape", [(3, 7), (3, 2, 9), (3, 8, 8), (3, 2, 8, 8), (3, 1, 4, 8, 8), (3,)]
)
def test_data_that_are_no_pictures_are_refused(shape):
    with pytest.raises(ValueError, match=r"pictures are \(n, C, H, W\).*plots of your own"):
        gl.figures.images(torch.rand(3, 1, 8, 8), torch.rand(shape))


class Tags(HTMLParser):
    """The tags and the text of a piece of HTML."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text = set(), ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        assert set(dict(attrs)) <= {"border", "class", "style"}

    def handle_data(self, data):
        self.text += data


def marks(text):
    """All that is not white or unseen: a long name is broken into lines."""
    return "".join(c for c in text if c.isprintable() and not c.isspace())


HOSTILE = ["<img src=q onerror=alert(1)>", "<script>alert(1)</script>", "</table>", "`", "{{ 7 }}",
           "&lt;b&gt;", "'\"><b>", "<!--", "a<b", "<style>", "$x$", "None", "01", ""]  # fmt: skip
VALUE, PAIR = gl.interval([1.0, 2.0, 3.0]), gl.paired([1.0, 2.0, 4.0], [1.0, 1.0, 1.0])
names = st.one_of(st.sampled_from(HOSTILE), st.text("<>&\"'`/!-={}a b"),
                  st.text(st.characters(exclude_categories=["C"])))  # fmt: skip


@settings(max_examples=30)
@given(names, names)
def test_names_in_tables_are_texts_whatever_they_hold(row, column):
    for html in (gl.figures.table({row: {column: VALUE}}, {row: {column + "x": VALUE}}).data,
                 gl.figures.differences({row: {column: PAIR}}).data):  # fmt: skip
        shown = Tags(html)
        assert shown.tags <= {"table", "thead", "tbody", "tr", "th", "td", "br", "small"}
        for name in (row, column):
            assert marks(name) in marks(shown.text)


ROW = torch.rand(2, 1, 4, 4)


@pytest.mark.parametrize(
    ("rows", "options"),
    [
        ([], {}),
        ([None], {}),
        ([ROW.numpy()], {}),
        ([ROW, 3], {}),
        ([ROW], {"labels": 3}),
        ([ROW], {"scores": 3}),
        ([ROW, ROW], {"scores": [[1.0, 2.0]]}),
        ([ROW, ROW], {"scores": [torch.ones(2)] * 2}),
        ([ROW, ROW], {"labels": ["a"]}),
    ],
)
def test_rows_labels_and_scores_that_are_none_are_refused(rows, options):
    with pytest.raises(ValueError, match=r"must be a|give at least one row"):
        gl.figures.images(*rows, **options)
