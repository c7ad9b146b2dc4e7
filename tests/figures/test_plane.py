import pytest
import torch
from matplotlib.colors import to_rgb

import gradleak as gl
from gradleak.attacks.grid import on_plane
from gradleak.figures.plane import MARKS, SIDE

PRIVATE, START = torch.tensor([0.3, 0.8]), torch.tensor([0.9, 0.9])
PLANE = on_plane(lambda x: -(x - torch.tensor([0.61, 0.21])).square().sum(1) / 0.02, n=100)


def at(image, x, y):
    """The pixel of a point: x to the right, y upwards."""
    return image[:, SIDE - 1 - int(y * SIDE), int(x * SIDE)]


def test_dots_lie_where_their_points_do():
    (row,) = gl.figures.plane_frame("0.1", PLANE, PRIVATE, 0.1).rows
    density, mass = row.images
    assert row.images.shape == (2, 3, SIDE, SIDE)
    for image in (density, mass):
        assert at(image, *PRIVATE).tolist() == [0, 0, 0]
        blue = torch.tensor(to_rgb(MARKS["optimum"][1]))
        torch.testing.assert_close(at(image, *PLANE.best(0.1)).float(), blue)
    beside, far = at(density, 0.55, 0.21), at(density, 0.05, 0.95)
    assert (beside < far).all()
    assert far.tolist() == pytest.approx([1, 1, 1], abs=0.01)


def test_scores_are_chances_in_per_cent():
    (row,) = gl.figures.plane_frame("0.1", PLANE, PRIVATE, 0.1).rows
    wanted = [100 * PLANE.within(point, 0.1) for point in (PLANE.mode, PLANE.best(0.1))]
    assert row.scores == pytest.approx(wanted)


def test_every_panel_shows_the_private_point_the_answers_and_the_way():
    rows = {"a": {"one": PLANE, "two": PLANE}, "b": {"three": PLANE}}
    figure = gl.figures.planes(rows, PRIVATE, START, 0.1)
    axes = [axis for axis in figure.axes if axis.get_title()]
    assert [axis.get_title() for axis in axes] == ["one", "two", "three"]
    for axis in axes:
        lines = {line.get_label(): line.get_xydata() for line in axis.lines}
        assert set(lines) == {"way of the attack", "private $x$", *MARKS}
        assert lines["private $x$"][0].tolist() == pytest.approx(PRIVATE.tolist())
        assert lines["optimum"][0].tolist() == pytest.approx(PLANE.best(0.1).tolist())
        assert lines["way of the attack"][-1].tolist() == pytest.approx([0.61, 0.21], abs=0.02)
