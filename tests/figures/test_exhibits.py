import numpy as np
import pandas as pd
import pytest
import torch

import gradleak as gl

rng = np.random.default_rng(0)
ARMS, STEPS = ["Bayes", "L2"], [0, 10]
TABLE = pd.DataFrame(
    [dict(arm=a, step=t, index=i, psnr=rng.normal()) for t in STEPS for a in ARMS for i in range(5)]
)


def test_means_and_differences_are_those_of_numpy():
    shuffled = TABLE.sample(frac=1, random_state=0)
    means = gl.figures.means(TABLE, "arm", "step")
    differences = gl.figures.compared(shuffled, "arm", "step", against="L2")
    assert list(means) == ARMS
    assert list(differences) == ["Bayes − L2"]
    for t in STEPS:
        values = {a: TABLE[(TABLE.arm == a) & (TABLE.step == t)].psnr.to_numpy() for a in ARMS}
        assert all(means[a][t].mean == pytest.approx(values[a].mean()) for a in ARMS)
        pair = differences["Bayes − L2"][t].difference
        expected = gl.paired(values["Bayes"], values["L2"]).difference
        assert (pair.mean, pair.n) == (pytest.approx(expected.mean), 5)


def test_means_of_what_is_true_or_false_are_shares():
    leaks = TABLE.assign(leak=TABLE.step == 10)
    means = gl.figures.means(leaks, "arm", "step", "leak")
    assert means["Bayes"] == {0: gl.metrics.share([False] * 5), 10: gl.metrics.share([True] * 5)}


def test_being_ahead_is_the_difference_the_other_way_round():
    (back,) = gl.figures.compared(TABLE, "arm", "step", against="Bayes").values()
    forth = gl.figures.ahead(TABLE, "arm", "step", first="Bayes")
    assert list(forth) == ["Bayes − L2"]
    for t in STEPS:
        ours, other = forth["Bayes − L2"][t], back[t]
        assert ours.p == pytest.approx(other.p)
        assert ours.difference.mean == pytest.approx(-other.difference.mean)
        assert ours.difference.low == pytest.approx(-other.difference.high)


def test_differences_need_the_same_images():
    with pytest.raises(ValueError, match="not measured on the same images"):
        gl.figures.compared(TABLE.drop(index=0), "arm", "step", against="L2")


def test_floors_are_constant_guesses():
    x, public = torch.rand(6, 1, 8, 8), torch.rand(9, 1, 8, 8)
    found = gl.metrics.floors(x, public)
    errors = {"mid-grey": (x - 0.5) ** 2, "mean image": (x - public.mean(0)) ** 2}
    for name, e in errors.items():
        assert found[name].mean == pytest.approx((-10 * e.mean((1, 2, 3)).log10()).mean().item())


def test_pictures_are_put_in_the_order_of_the_private_images(tmp_path):
    few = gl.data.load("digits").take([3, 1])
    client = gl.Client(gl.models.cnn(few.shape, 10))
    adversary = gl.inverting_gradients(client, optimizer=gl.Adam(steps=2))
    trial = gl.Trial(client, adversary, few.take([0, 1]), {}, keep=[1, 3])
    records = gl.experiment.Records(tmp_path, "r")
    rows = gl.experiment.run([trial], records).sort_values("index")
    frame = gl.figures.frame("0", few, {"cosine": rows}, records)
    private, cosine = frame.rows
    assert torch.equal(torch.as_tensor(private.images), few.x)
    assert list(cosine.scores) == rows.psnr[::-1].tolist()
    found = gl.psnr(torch.as_tensor(cosine.images), few.x)
    assert found.tolist() == pytest.approx(list(cosine.scores), abs=0.1)
    assert len(gl.figures.gallery(few, {"cosine": rows}, records.export(tmp_path)).axes) == 4


def test_galleries_show_what_clients_of_several_images_leak(tmp_path):
    few = gl.data.load("digits").take([5, 3, 1, 7])
    client = gl.Client(gl.models.mlp(few.shape, 10), batch_size=2)
    attack = gl.inverting_gradients(client, optimizer=gl.Adam(steps=40, signed=True))
    trial = gl.Trial(client, attack, few, {}, keep=few.index)
    records = gl.experiment.Records(tmp_path, "r")
    rows = gl.experiment.run([trial], records)
    shown = few.take([3, 0])
    _, found = gl.figures.frame("0", shown, {"cosine": rows}, records).rows
    scores = gl.psnr(torch.as_tensor(found.images), shown.x)
    assert scores.tolist() == pytest.approx(list(found.scores), abs=0.1)
    nearer = gl.mse(torch.as_tensor(found.images), shown.x)
    assert (nearer < gl.mse(torch.as_tensor(found.images), shown.x.flip(0))).all()
    assert len(gl.figures.gallery(shown, {"cosine": rows}, records).axes) == 4
    means = gl.figures.means(rows, "dataset", "batch_size")
    assert means["digits"][2].mean == pytest.approx(rows.psnr.mean())
