"""Climb or posterior: which of them is the limit, by what is known of each image."""

import math

import pandas as pd
import pytest
import torch

import gradleak as gl
from gradleak.attacks import LBFGS, Rounded
from gradleak.experiment import limit, limits


def rows(**columns):
    return pd.DataFrame({"cell": "a", "climb": "Adam", **columns})


@pytest.mark.parametrize(
    ("found", "private", "from_private", "expected"),
    [
        (-10.0, -5.0, -6.0, "climb"),  # the private image is more probable
        (-10.0, -20.0, -5.0, "climb"),  # so is where a climb from it ends
        (-5.0, -20.0, -5.5, "posterior"),  # something else than the private image is the answer
        (-5.0, -20.0, -4.5, "posterior"),  # half a nat does not count
        (-5.0, -5.5, -5.2, "neither"),
        (-5.0, math.nan, -5.2, math.nan),
    ],
)
def test_what_limits_an_image(found, private, from_private, expected):
    table = rows(log_posterior=[found], log_posterior_private=[private],
                 log_posterior_from_private=[from_private])  # fmt: skip
    (said,) = limit(table)
    assert said == expected or (said != said and expected != expected)


def test_the_line_counts_cells_and_images():
    table = rows(
        cell=["a", "a", "a", "b", "b"],
        log_posterior=[0.0, 0.0, 0.0, 0.0, 0.0],
        log_posterior_private=[9.0, 9.0, -9.0, -9.0, math.nan],
        log_posterior_from_private=[9.0, 9.0, -9.0, 0.5, math.nan],
    )
    said = limits(table, ["cell"])
    assert "Adam (2 cells, 4 images): " in said
    assert "the **climb** in 1 and 2, the **posterior** in 1 and 2, **neither** in 0 and 0" in said
    assert "of 1 images more it was not recorded" in said
    assert "not recorded" in limits(table[["cell", "log_posterior"]], ["cell"])
    both = pd.concat([table.assign(climb="other")[:3], table[3:]])
    assert "other (1 cells, 3 images)" in limits(both, ["cell"])


def test_records_of_a_climb_hold_what_is_known(tmp_path):
    images = gl.data.load("digits").take(range(4))
    client = gl.Client(gl.models.cnn(images.shape, 10), gl.GaussianNoise(0.1))
    attack = gl.bayes(client, gl.TotalVariation(6.0), optimizer=Rounded(LBFGS(steps=60)))
    trial = gl.Trial(client, attack, images, {"cell": "a"})
    table = gl.experiment.run([trial], gl.experiment.Records(tmp_path, "toy-smoke-digits"))
    assert set(table.climb) == {"rounded L-BFGS"}
    view = client.release(images.x, images.y, key=images.index)
    (private,) = gl.attacks.score_all([(attack, view)], [images.x])
    expected = torch.tensor(table.log_posterior_private.to_numpy())
    torch.testing.assert_close(expected, private)
    assert (table.log_posterior_from_private >= table.log_posterior_private).all()
    assert set(limit(table)) <= {"posterior", "neither"}


def test_clients_of_several_images_have_a_row_each(tmp_path):
    images = gl.data.load("digits").take(range(4))
    client = gl.Client(gl.models.mlp(images.shape, 10), gl.GaussianNoise(0.01), batch_size=2)
    attack = gl.bayes(client, gl.TotalVariation(1.0), optimizer=gl.Adam(steps=9, signed=True))
    trial = gl.Trial(client, attack, images, {"cell": "a"})
    table = gl.experiment.run([trial], gl.experiment.Records(tmp_path, "toy-smoke-digits"))
    assert table.log_posterior_private.nunique() == 2
    assert table.log_posterior_from_private.notna().all()
    assert set(limit(table)) <= {"climb", "posterior", "neither"}
