import matplotlib as mpl
import pytest
import torch

import gradleak as gl


@pytest.fixture(autouse=True)
def no_window():
    with mpl.rc_context({"backend": "agg"}):
        yield
    mpl.pyplot.close("all")


def test_pictures_are_drawn_as_they_are():
    x = torch.rand(3, 3, 4, 4)
    figure = gl.plot.images(x, x.flip(0), labels=["a", "b"], scores=[torch.tensor([1.0, 2, 3])])
    drawn = [axis.images[0].get_array() for axis in figure.axes]
    torch.testing.assert_close(torch.tensor(drawn[4]), x[1].permute(1, 2, 0))
    assert [axis.get_title() for axis in figure.axes[3:]] == ["1.0", "2.0", "3.0"]
    with pytest.raises(ValueError, match="2 rows but 1 labels"):
        gl.plot.images(x, x, labels=["a"])


def test_intervals_and_curves_show_the_numbers():
    points = {"Bayes": gl.interval([1.0, 2, 3]), "L2": gl.interval([2.0, 3, 4])}
    figure = gl.plot.intervals({"gaussian": points}, floor=1.5)
    lines = [container.lines[0] for container in figure.axes[0].containers]
    assert [line.get_xdata().tolist() for line in lines] == [[2.0], [3.0]]
    figure = gl.plot.curves({"Bayes": {0.1: points["Bayes"], 1.0: points["L2"]}}, across="scale")
    assert figure.axes[0].lines[0].get_ydata().tolist() == [2.0, 3.0]
