import itertools
import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import gradleak as gl


def test_psnr_by_hand():
    x = torch.zeros(3, 1, 2, 2)
    x_hat = torch.tensor([0.1, 1.0, 0.0]).reshape(3, 1, 1, 1).expand_as(x)
    assert gl.mse(x_hat, x).tolist() == pytest.approx([0.01, 1.0, 0.0])
    assert gl.psnr(x_hat, x).tolist() == pytest.approx([20.0, 0.0, math.inf])


def test_reconstructions_of_images_are_clipped_first():
    x = torch.ones(1, 1, 2, 2)
    assert gl.mse(x + 5, x).item() == 0
    assert gl.psnr(x + 5, x + 1e-6) > 110  # rounding takes no image out of its range


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32)])
def test_ssim_is_one_for_equal_images_and_falls_with_noise(shape):
    torch.manual_seed(0)
    x = torch.rand(2, *shape)
    assert gl.ssim(x, x).tolist() == pytest.approx([1, 1])
    slight, strong = (gl.ssim(x + s * torch.randn_like(x), x) for s in (0.05, 0.5))
    assert (slight > strong).all()
    assert (slight < 1).all()


def test_within_is_the_delta_ball():
    x = torch.zeros(2, 1, 2, 2)
    x_hat = torch.tensor([0.4, 0.6]).reshape(2, 1, 1, 1).expand_as(x)
    assert gl.metrics.within(x_hat, x, delta=1.0).tolist() == [True, False]


@settings(max_examples=20)
@given(st.integers(1, 4), st.integers(0, 100))
def test_matching_is_the_best_of_all_permutations(batch, seed):
    rng = torch.Generator().manual_seed(seed)
    x = torch.rand(2, batch, 1, 3, 3, generator=rng)
    x_hat = torch.rand(2, batch, 1, 3, 3, generator=rng)
    matched = gl.metrics.match(x_hat, x)
    for n in range(2):
        errors = [
            (x_hat[n, list(p)] - x[n]).square().sum() for p in itertools.permutations(range(batch))
        ]
        torch.testing.assert_close((matched[n] - x[n]).square().sum(), min(errors))


def test_intervals_cover_the_mean_about_as_often_as_they_claim():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        found = gl.interval(rng.normal(3, 1, size=30))
        covered += found.low <= 3 <= found.high
    # 95 % nominal; the binomial's own spread and the bootstrap's small-sample shortfall
    assert 175 <= covered <= 199


def test_intervals_of_equal_values_are_a_point():
    found = gl.interval([2.0, 2.0, 2.0])
    assert (found.mean, found.low, found.high, found.n) == (2.0, 2.0, 2.0, 3)
    assert f"{found:.1f}" == "2.0 [2.0, 2.0]"
    with pytest.raises(ValueError, match="finite"):
        gl.interval([1.0, math.inf])
    with pytest.raises(ValueError, match="finite"):
        gl.interval([])


@pytest.mark.parametrize("n", [1, 12, 50])
def test_shares_have_wilsons_interval(n):
    """By its definition: all p from which the count is no more than 1.96 deviations away."""
    p, z = np.linspace(0, 1, 100_001), scipy.stats.norm.ppf(0.975)
    for count in range(n + 1):
        found = gl.metrics.share([True] * count + [False] * (n - count))
        near = p[np.abs(count / n - p) <= z * np.sqrt(p * (1 - p) / n) + 1e-12]
        assert (found.mean, found.n) == (count / n, n)
        assert (found.low, found.high) == pytest.approx((near[0], near[-1]), abs=2e-5)


def test_none_of_twelve_may_be_a_quarter():
    assert f"{gl.metrics.share(torch.zeros(12, dtype=torch.bool)):.2f}" == "0.00 [0.00, 0.24]"
    for wrong in ([], [0.5], [2], [math.nan, 1]):
        with pytest.raises(ValueError, match="true or false"):
            gl.metrics.share(wrong)
    with pytest.raises(ValueError, match=r"use metrics\.share"):
        gl.interval([False] * 12)


def test_pairs_are_compared_image_by_image():
    rng = np.random.default_rng(1)
    a = rng.normal(20, 5, size=25)
    b = a - 1 + rng.normal(0, 0.1, size=25)
    found = gl.paired(a, b)
    assert found.difference.low > 0.9
    assert found.difference.high < 1.1
    assert found.p == pytest.approx(scipy.stats.wilcoxon(a, b).pvalue)
    assert gl.paired(a, a).p == 1
    with pytest.raises(ValueError, match="must match"):
        gl.paired([1.0], [1.0, 2.0])


def test_corrected_p_values_are_holms():
    """By hand: sorted p times the number of hypotheses left, never falling, at most one."""
    assert gl.metrics.holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert gl.metrics.holm([0.6, 0.9]) == pytest.approx([1.0, 1.0])
    assert gl.metrics.holm([]) == []


METRICS = [gl.mse, gl.psnr, gl.ssim, lambda x_hat, x: gl.metrics.within(x_hat, x, 1.0)]


@pytest.mark.parametrize("metric", METRICS)
def test_shapes_must_agree(metric):
    with pytest.raises(ValueError, match="x_hat is"):
        metric(torch.zeros(2, 1, 3, 3), torch.zeros(1, 1, 3, 3))
    for x in (np.zeros((2, 3)), [[0.0]], torch.zeros(2, 3).int(), None):
        with pytest.raises(ValueError, match="x_hat must be"):
            metric(x, x)
    for shape in [(1, 4, 1, 8, 8), (2, 1, 5, 5, 5), (3,)]:
        with pytest.raises(ValueError, match=r"one example a row.*match and flatten first"):
            metric(torch.zeros(shape), torch.zeros(shape))


SHAPES = st.lists(st.integers(1, 5), min_size=1, max_size=3)


@settings(max_examples=60)
@given(
    shape=SHAPES,
    seed=st.integers(0, 99),
    spread=st.sampled_from([0.2, 1.0, 3.0, 100.0]),
    at=st.sampled_from([-5.0, 0.0, 0.5, 40.0]),
)
def test_only_images_in_the_unit_range_are_clipped(shape, seed, spread, at):
    """Tables, series and standardised images are compared as they are; each row by itself."""
    rng = np.random.default_rng(seed)
    x = at + spread * rng.uniform(-1, 1, size=(4, *shape))
    x[0] = rng.uniform(size=shape)
    x_hat = x + spread * rng.normal(size=x.shape)
    expected = []
    for found, true in zip(x_hat, x, strict=True):
        image = len(shape) == 3 and true.min() >= 0 and true.max() <= 1
        expected.append(np.mean(((np.clip(found, 0, 1) if image else found) - true) ** 2))
    both = torch.tensor(x_hat), torch.tensor(x)
    assert gl.mse(*both).tolist() == pytest.approx(expected)
    size = math.prod(shape)
    far = gl.metrics.within(*both, delta=math.sqrt(size * expected[1]) * 1.001)
    assert far[1] == (expected[1] > 0)
    peak = float(np.ptp(x)) + 1
    decibels = 10 * np.log10(peak**2 / np.array(expected))
    assert gl.psnr(*both, peak=peak).tolist() == pytest.approx(decibels.tolist())
    told = gl.metrics.scores(*both)
    assert told["mse"].tolist() == gl.mse(*both).tolist()
    assert told["psnr"].tolist() == gl.psnr(*both, peak=1.0).tolist()
    if x.min() < 0 or x.max() > 1:
        with pytest.raises(ValueError, match=r"not in \[0, 1\].*peak=.*or take mse"):
            gl.psnr(*both)


def test_a_closed_form_of_standardised_rows_is_scored_as_exact():
    torch.manual_seed(0)
    z = 2 * torch.randn(3, 14)
    view = gl.Client(torch.nn.Linear(14, 4)).release(z, torch.tensor([0, 1, 2]))
    found = gl.attacks.FirstLayer().attack(view).x
    assert (gl.mse(found, z) < 1e-10).all()
    assert (gl.psnr(found, z, peak=float(z.max() - z.min())) > 100).all()


@pytest.mark.parametrize("peak", [0, -1.0, math.inf, math.nan, "1", torch.ones(1), 1j])
def test_a_peak_is_a_range(peak):
    with pytest.raises(ValueError, match=r"peak must be a number in \(0, inf\)"):
        gl.psnr(torch.zeros(1, 3), torch.ones(1, 3), peak)


@pytest.mark.parametrize(
    "shape", [(5,), (3, 9), (1, 6, 9), (3, 9, 6), (1, 1, 1), (1, 9, 9, 9), (2, 3, 9, 9)]
)
def test_what_has_no_windows_has_no_ssim_but_scores(shape):
    torch.manual_seed(0)
    x = torch.rand(3, *shape)
    told = gl.metrics.scores(x + 0.1, x)
    assert told["ssim"].isnan().all()
    assert told["mse"].shape == told["psnr"].shape == told["ssim"].shape == (3,)
    assert (told["mse"] > 0).all()


def test_ssim_is_of_images_in_the_unit_range():
    torch.manual_seed(0)
    x = torch.rand(2, 1, 8, 8)
    x[1] -= 0.5
    assert gl.ssim(x, x).isnan().tolist() == [False, True]
    assert not gl.ssim(x[:1, :, :7, :7], x[:1, :, :7, :7]).isnan().any()


@settings(max_examples=30)
@given(shape=SHAPES, batch=st.integers(1, 4), seed=st.integers(0, 99))
def test_a_shuffled_batch_is_put_back_whatever_its_data(shape, batch, seed):
    rng = torch.Generator().manual_seed(seed)
    x = 9 * torch.randn(2, batch, *shape, generator=rng)
    order = torch.stack([torch.randperm(batch, generator=rng) for _ in range(2)])
    shuffled = torch.stack([rows[o] for rows, o in zip(x, order, strict=True)])
    assert torch.equal(gl.metrics.match(shuffled, x), x)


def test_what_is_not_finite_is_matched_last():
    x = torch.rand(1, 3, 4)
    x_hat = x[:, [2, 0, 1]].clone()
    x_hat[0, 1] = torch.nan
    matched = gl.metrics.match(x_hat, x)
    assert torch.equal(matched[0, 1:], x[0, 1:])
    assert matched[0, 0].isnan().all()
    for shape in [(3,), (3, 4), (2, 3, 4)]:
        with pytest.raises(ValueError, match=r"N clients of B examples"):
            gl.metrics.match(torch.rand(shape), torch.rand(shape[-2:]))


def test_a_crossing_does_not_depend_on_the_order_of_the_means():
    means = {at: gl.interval([mean]) for at, mean in ((1.0, 3.0), (4.0, 1.0), (16.0, 0.0))}
    for order in itertools.permutations(means):
        found = gl.metrics.crossing({at: means[at] for at in order}, 2.0)
        assert found == pytest.approx(2.0)


@pytest.mark.parametrize("means", [[1.0, 2.0], {1.0: 3.0, 4.0: 1.0}, None, {1.0: None}])
def test_means_are_intervals_by_number(means):
    with pytest.raises(ValueError, match="means must be a"):
        gl.metrics.crossing(means, 2.0)


FORMS = [torch.Tensor.bfloat16, torch.Tensor.half, torch.Tensor.double, torch.Tensor.to_sparse,
         lambda v: v.requires_grad_(), torch.Tensor.numpy, torch.Tensor.tolist]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_tensors_of_any_kind_are_numbers(form):
    v = torch.tensor([0.5, 0.0, 1.0, 0.25])
    given = form(v.clone())
    assert gl.interval(given) == gl.interval(v)
    assert gl.metrics.holm(given) == gl.metrics.holm(v)
    assert gl.paired(given, given) == gl.paired(v, v)
    assert gl.metrics.share(form(v.round())) == gl.metrics.share(v.round().bool())


@pytest.mark.parametrize("bad", [torch.ones(3, device="meta"), [torch.ones((), requires_grad=True)],
                                 object(), 0.5, [[1.0], [1.0, 2.0]]])  # fmt: skip
def test_what_holds_no_numbers_is_refused(bad):
    for call in (gl.interval, gl.metrics.holm, lambda v: gl.paired(v, v), gl.metrics.share):
        with pytest.raises(ValueError, match=r"values|p must be|a must be"):
            call(bad)


X = torch.rand(2, 3, 1, 8, 8)
NONE = [None, X.numpy(), X.long(), X[:0], X.to("meta"), "a"]


@pytest.mark.parametrize("bad", NONE, ids=map(str, range(len(NONE))))
def test_what_is_no_reconstruction_is_refused(bad):
    for call in (gl.metrics.match, gl.metrics.nearest, gl.psnr, gl.metrics.floors):
        with pytest.raises(ValueError, match=r"must be|holds nothing|take one example"):
            call(bad, bad)


def test_precision_and_slopes_of_images_do_not_matter():
    x = X[0]
    for a, b in ((x.half(), x.half()), (x.half(), x.double()), (x.bfloat16(), x)):
        assert gl.metrics.nearest(a, b.flip(0)).tolist() == [2, 1, 0]
    assert torch.equal(gl.ssim(x.clone().requires_grad_(), x), gl.ssim(x, x))


def test_a_metric_gives_one_number_an_image():
    with pytest.raises(ValueError, match="what metric returns must be a Tensor"):
        gl.metrics.floors(X[0], X[1], lambda a, b: 0.5)
