from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import gradleak as gl
from gradleak.defenses.ats import ATS, Transformation


def test_a_transformation_crops_flips_and_then_applies_the_policy():
    x = torch.arange(36.0).view(1, 6, 6) / 36
    still = Transformation((4, 4), False, ())
    assert torch.equal(still(x), x)
    moved = Transformation((5, 2), False, ())(x)
    assert torch.equal(moved[:, :5, 2:], x[:, 1:, :4])
    assert not moved[:, 5].any()
    assert not moved[:, :, :2].any()
    assert torch.equal(Transformation((4, 4), True, ())(x), x.flip(-1))
    bright = Transformation((4, 4), True, (("translate_x", 1 / 3), ("brightness", -0.5)))(x)
    assert torch.allclose(bright[:, :, :4], x.flip(-1)[:, :, 2:] / 2)


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), policy=st.sampled_from(["21-13-3", "7-4-15", "2-11-0+9"]))
def test_a_drawn_transformation_depends_on_its_key_alone(seed, policy):
    x = torch.rand(3, 3, 32, 32)
    ats, keys = ATS(policy), [(seed, 5), (seed, 6), (seed, 7)]
    together = ats(x, keys)
    assert together.shape == x.shape
    assert 0 <= together.min() <= together.max() <= 1
    assert torch.equal(together[[2, 0]], ats(x[[2, 0]], [keys[2], keys[0]]))
    assert torch.equal(together, ATS(policy)(x, keys))


def test_every_transformation_is_drawn_as_often_as_its_chance():
    """Enumerated against drawn: which policy, and the signs of its operations."""
    ats = ATS("21-13-3+9")
    every, chances = ats.every()
    assert len(every) == len(set(every)) == 81 * (8 + 1)
    assert chances.sum().item() == pytest.approx(1)
    expected, draws = Counter(), 4000
    for t, chance in zip(every, chances.tolist(), strict=True):
        expected[t.operations] += chance
    drawn = [ats.draw(k) for k in range(draws)]
    found = Counter(t.operations for t in drawn)
    assert set(found) == set(expected)
    for operations, chance in expected.items():
        spread = 5 * (chance * (1 - chance) / draws) ** 0.5
        assert abs(found[operations] / draws - chance) < spread
    assert {t.shift for t in drawn} == {t.shift for t in every}


@pytest.mark.parametrize("policy", ["", "21--3", "50", "3-51-2", "a-b", "-1-3", "21-13+"])
def test_bad_policies_are_told(policy):
    with pytest.raises(ValueError, match=r"indices from 0 to 49|this one is empty"):
        ATS(policy)


def test_a_client_releases_the_gradient_of_what_it_transformed():
    x, y = gl.data.batch("digits", range(3))
    model = gl.models.cnn((1, 8, 8), 10)
    client = gl.Client(model, transform=ATS("21-13"))
    view = client.release(x, y, seed=4, key=[7, 8, 9])
    seen = client.transformed(x, seed=4, key=[7, 8, 9])
    assert not torch.equal(seen, x)
    plain = gl.Client(model).release(seen, y).g
    for name, value in view.g.items():
        torch.testing.assert_close(value, plain[name])
    torch.testing.assert_close(client.transformed(x[2:], seed=4, key=[9]), seen[2:])


def test_a_transform_takes_single_images():
    x, y = gl.data.batch("digits", range(2))
    client = gl.Client(gl.models.cnn((1, 8, 8), 10), batch_size=2, transform=ATS("21"))
    with pytest.raises(ValueError, match="batch_size=None"):
        client.release(x[None], y[None])


def test_records_score_against_both_images(tmp_path):
    few = gl.data.load("digits").take([3, 1])
    model = gl.models.cnn(few.shape, 10)
    found = {}
    for name, transform in (("ats", ATS("21-13-3")), ("none", None)):
        client = gl.Client(model, transform=transform)
        held = gl.inverting_gradients(client, optimizer=gl.Adam(steps=3))
        found[name] = gl.Trial(client, held, few, {"arm": name})
    table = gl.experiment.run(list(found.values()), gl.experiment.Records(tmp_path, "r"))
    table = table.set_index("arm")
    view = found["ats"].client.release(few.x, few.y, key=few.index)
    x_hat = found["ats"].attack.attack(view).x
    seen = found["ats"].client.transformed(few.x, key=few.index)
    assert table.loc["ats"].psnr.tolist() == pytest.approx(gl.psnr(x_hat, seen).tolist(), abs=1e-3)
    assert table.loc["ats"].psnr_x.tolist() == pytest.approx(
        gl.psnr(x_hat, few.x).tolist(), abs=1e-3
    )
    assert (table.loc["none"].psnr == table.loc["none"].psnr_x).all()
