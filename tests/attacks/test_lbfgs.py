"""L-BFGS, many climbs at once: closed forms, SciPy, a grid, and that no climb minds the others."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

import gradleak as gl
from gradleak.attacks import LBFGS, maximise, maximize


def hills(seed, n=4, size=6, spread=30.0):
    """n concave quadratics: their tops, and a function of x (n, size)."""
    rng = torch.Generator().manual_seed(seed)
    top = torch.rand(n, size, generator=rng, dtype=torch.double)
    turn = torch.linalg.qr(torch.randn(n, size, size, generator=rng, dtype=torch.double))[0]
    curve = spread ** torch.rand(n, size, generator=rng, dtype=torch.double)
    h = turn @ torch.diag_embed(curve) @ turn.mT

    def f(x, _):
        d = (x - top).unsqueeze(2)
        return -0.5 * (d.mT @ h @ d).flatten()

    return top, h, f


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_the_top_of_a_quadratic_is_found(seed):
    top, _, f = hills(seed)
    found = maximize(f, torch.zeros_like(top), LBFGS(steps=80))
    torch.testing.assert_close(found, top, rtol=0, atol=1e-6)


def rosenbrock(x, _=None):
    return -((1 - x[:, 0]) ** 2) - 100 * (x[:, 1] - x[:, 0] ** 2) ** 2


def test_it_ends_where_a_fine_grid_is_best():
    grid = torch.cartesian_prod(*[torch.linspace(-2, 2, 401, dtype=torch.double)] * 2)
    best = grid[rosenbrock(grid).argmax()]
    start = torch.tensor([[-1.2, 1.0], [0.0, 0.0], [1.5, -1.5]], dtype=torch.double)
    found = maximize(rosenbrock, start, LBFGS(steps=200))
    torch.testing.assert_close(found, best.expand(3, 2), rtol=0, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_in_a_box_it_ends_where_scipy_does(seed):
    top, h, f = hills(seed)
    top.mul_(2).sub_(0.5)  # some of it outside
    found = maximize(f, torch.full_like(top, 0.5), LBFGS(steps=150), gl.Box().project)
    assert ((found >= 0) & (found <= 1)).all()
    for n in range(len(top)):
        a, b = top[n].numpy(), h[n].numpy()
        expected = minimize(
            lambda x, a=a, b=b: 0.5 * (x - a) @ b @ (x - a),
            np.full(6, 0.5),
            jac=lambda x, a=a, b=b: b @ (x - a),
            bounds=[(0, 1)] * 6,
            method="L-BFGS-B",
            options=dict(ftol=1e-15, gtol=1e-10),
        )
        value = f(torch.cat([found[:n], torch.from_numpy(expected.x)[None], found[n + 1 :]]), 0)
        assert f(found, 0)[n] >= value[n] - 1e-5


def test_climbs_do_not_mind_each_other():
    _, _, f = hills(3)
    start = torch.rand(4, 6, dtype=torch.double)
    whole = maximize(f, start, LBFGS(steps=25))
    other = maximize(f, start + torch.tensor([[0.0], [9.0], [0.0], [-7.0]]), LBFGS(steps=25))
    torch.testing.assert_close(whole[[0, 2]], other[[0, 2]], rtol=0, atol=0)
    assert torch.equal(whole, maximize(f, start, LBFGS(steps=25)))


def test_it_never_goes_down():
    start = torch.rand(5, 2, dtype=torch.double) * 4 - 2
    values = [rosenbrock(maximize(rosenbrock, start, LBFGS(steps=k))) for k in range(1, 60)]
    assert (torch.stack(values).diff(dim=0) >= 0).all()


def test_it_takes_no_more_steps_than_it_is_given():
    asked = []

    def f(x, _):
        asked.append(len(x))
        return rosenbrock(x)

    maximize(f, torch.zeros(3, 2), LBFGS(steps=17))
    assert asked == [3] * 17


def test_where_f_is_not_finite_it_goes_less_far():
    """log x - x has its top at 1, and no value below 0, where a long step leads."""
    found = maximize(
        lambda x, _: (x.log() - x).sum(1), torch.tensor([[0.02], [3.0]]), LBFGS(steps=60)
    )
    torch.testing.assert_close(found, torch.ones(2, 1), rtol=0, atol=1e-4)


def test_patience_ends_a_climb_that_has_arrived():
    asked = []

    def part(index):
        def f(x, _):
            asked.append(len(x))
            return -(x - 0.3).square().sum(1)

        return f, climb, lambda x: x

    climb = LBFGS(steps=500, patience=20)
    found, stopped, _ = maximise.maximize_parts(part, torch.zeros(2, 3), climb)
    torch.testing.assert_close(found, torch.full((2, 3), 0.3), rtol=0, atol=1e-5)
    assert len(asked) < 100
    assert stopped.tolist() == [-1, -1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LBFGS(steps=-1), "steps must be a whole number"),
        (lambda: LBFGS(memory=0), "memory must be a whole number, at least 1"),
        (lambda: LBFGS(patience=0), "None lets every attack take all steps"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
