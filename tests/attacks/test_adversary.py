import math
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import gradleak as gl
from gradleak.attacks import maximise
from gradleak.attacks.batch import Batch
from gradleak.device.chunks import in_chunks

SHORT = gl.Adam(steps=40, lr=0.1, decay=0.93, signed=True)
PRIOR = gl.Sum((gl.TotalVariation(0.3), gl.Box()))
DEFENSES = {
    "none": gl.NoDefense(),
    "gaussian": gl.GaussianNoise(0.01),
    "laplace": gl.LaplaceNoise(0.01),
    "masked gaussian": gl.RandomMask(0.5, then=gl.GaussianNoise(0.01)),
    "masked laplace": gl.RandomMask(0.5, then=gl.LaplaceNoise(0.01)),
}
PRESETS = {
    "bayes": lambda c: gl.bayes(c, PRIOR, optimizer=SHORT),
    "dlg": lambda c: gl.dlg(c, PRIOR, scale=0.01, optimizer=SHORT),
    "l1": lambda c: gl.l1(c, PRIOR, scale=0.01, optimizer=SHORT),
    "inverting_gradients": lambda c: gl.inverting_gradients(c, PRIOR, 1e4, optimizer=SHORT),
}
# What a mask-blind belief may lose to a mask: the masked gradient fits another image better.
BLIND = {(p, d) for p in ("dlg", "l1") for d in DEFENSES if d.startswith("masked")}


@pytest.fixture(scope="module")
def digits():
    return gl.data.batch("digits", range(3))


@pytest.fixture(scope="module")
def model():
    return gl.models.mlp((1, 8, 8), classes=10, widths=(64,))


@pytest.fixture(scope="module")
def cnn():
    return gl.models.cnn((1, 8, 8), classes=10)


# A point mass has no density to believe in: test_a_point_mass_is_refused.
TABLE = [(p, d) for p in PRESETS for d in DEFENSES if (p, d) != ("bayes", "none")]


@pytest.mark.parametrize(("preset", "defense"), TABLE)
def test_every_preset_beats_its_start_and_its_floor(preset, defense, model, digits):
    """One table: the attack's mean PSNR is above its start's and above the mean image's."""
    x, y = digits
    client = gl.Client(model, DEFENSES[defense])
    view = client.release(x, y)
    adversary = PRESETS[preset](client)
    start = replace(adversary, optimizer=replace(SHORT, steps=0)).attack(view).x
    reached = gl.psnr(adversary.attack(view).x, x).mean()
    assert reached > gl.psnr(start, x).mean()
    if (preset, defense) not in BLIND:
        mean_image = gl.data.load("digits", "train").x.mean(0).expand_as(x)
        assert reached > gl.psnr(mean_image, x).mean()


def test_a_point_mass_is_refused(model, digits):
    client = gl.Client(model)
    with pytest.raises(NotImplementedError, match="has no density"):
        gl.bayes(client, PRIOR).attack(client.release(*digits))


def test_bayes_and_l2_coincide_under_gaussian_noise(model, digits):
    """Same prior, same budget: L2 believes exactly what is true, so they are one attack."""
    client = gl.Client(model, gl.GaussianNoise(0.1))
    view = client.release(*digits)
    bayes = gl.bayes(client, PRIOR, optimizer=SHORT).attack(view)
    l2 = gl.dlg(client, PRIOR, scale=0.1, optimizer=SHORT).attack(view)
    assert torch.equal(bayes.x, l2.x)
    assert torch.equal(bayes.log_posterior, l2.log_posterior)


def test_published_weights_convert(digits):
    """'L2 loss + lambda TV' is the log-posterior with weight lambda / (2 scale^2), rescaled."""
    model = gl.models.cnn((1, 8, 8), classes=10).double()
    x, y = digits[0].double(), digits[1]
    client = gl.Client(model, gl.GaussianNoise(0.1))
    view = client.release(x, y)
    tv, scale, published = gl.TotalVariation(1.0), 0.25, 3e-3
    a = gl.dlg(client, gl.TotalVariation(published / (2 * scale**2)), scale=scale)
    here = gl.attacks.log_posterior(a, view.g, view.y)(x)
    loss = client.gradient(x, y).sq_distance(view.g) - published * tv.log_prob(x)
    torch.testing.assert_close(here - here[0], -(loss - loss[0]) / (2 * scale**2))


def linear_gaussian(n=5):
    """A client whose gradient is x itself: the loss is w.x."""
    model = nn.Linear(n, 1, bias=False).double()
    return gl.Client(model, gl.GaussianNoise(0.5), loss=lambda out, y: out.mean())


class GaussianPrior(gl.Prior):
    """N(mean, spread^2), so that the posterior is a closed form."""

    mean, spread = 0.3, 0.7

    def log_prob(self, x):
        return -((x - self.mean) / self.spread).square().flatten(1).sum(1) / 2


def test_map_equals_the_closed_form_in_a_linear_gaussian_client():
    client, prior = linear_gaussian(), GaussianPrior()
    x = torch.randn(4, 5, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    view = client.release(x, torch.zeros(4, dtype=torch.long))
    climb = gl.Adam(steps=2500, lr=0.05, decay=0.993)
    found = gl.bayes(client, prior, optimizer=climb, restarts=2).attack(view).x
    g = view.g["weight"].reshape(4, 5)
    precision = 1 / 0.5**2 + 1 / prior.spread**2
    closed = (g / 0.5**2 + prior.mean / prior.spread**2) / precision
    torch.testing.assert_close(found, closed, rtol=0, atol=1e-6)


@pytest.mark.slow
@settings(max_examples=3)
@given(st.permutations(range(4)), st.sets(st.integers(0, 3), min_size=1))
def test_attacks_in_a_batch_do_not_mix(order, kept):
    """Permuting the batch permutes the result; dropping members leaves the others as they were."""
    x, y = gl.data.batch("digits", range(4))
    model = gl.models.mlp((1, 8, 8), 10, widths=(12,)).double()
    for defense in (gl.LaplaceNoise(0.1), gl.RandomMask(0.5, then=gl.GaussianNoise(0.1))):
        client = gl.Client(model, defense)
        view = client.release(x, y)
        for preset in PRESETS.values():
            one_step = replace(preset(client), optimizer=gl.Adam(steps=1), restarts=2)
            whole = one_step.attack(view)
            permuted = one_step.attack(view[order])
            part = one_step.attack(view[sorted(kept)])
            torch.testing.assert_close(permuted.x, whole.x[order], rtol=1e-8, atol=0)
            torch.testing.assert_close(part.x, whole.x[sorted(kept)], rtol=1e-8, atol=0)


def test_first_steps_slope_equals_that_of_each_attack_alone():
    x, y = gl.data.batch("digits", range(4))
    client = gl.Client(gl.models.cnn((1, 8, 8), 10).double(), gl.LaplaceNoise(0.1))
    view = client.release(x, y)
    start = torch.rand(4, 1, 8, 8, dtype=torch.double)

    def slope(view, start):
        f = gl.attacks.log_posterior(gl.inverting_gradients(client, PRIOR), view.g, view.y)
        start = start.clone().requires_grad_()
        return torch.autograd.grad(f(start).sum(), start)[0]

    together = slope(view, start)
    for n in range(4):
        alone = slope(view[[n]], start[n : n + 1])
        torch.testing.assert_close(together[n : n + 1], alone, rtol=1e-8, atol=1e-14)


def test_settings_computed_together_equal_those_computed_alone(model, digits):
    x, y = digits
    client = gl.Client(model, gl.GaussianNoise(0.1))
    view = client.release(x, y)
    several = [
        gl.dlg(client, gl.TotalVariation(w), s, optimizer=gl.Adam(5, lr), temperature=t, restarts=2)
        for w, s, lr, t in ((1.0, 0.1, 0.1, 1.0), (3.0, 0.1, 0.2, 4.0), (1.0, 0.2, 0.1, 1.0))
    ]
    views = [view, view[2:], view[[1]]]
    together = gl.attacks.attack_all(list(zip(several, views, strict=True)), chunk=5)
    for adversary, part, result in zip(several, views, together, strict=True):
        alone = adversary.attack(part)
        torch.testing.assert_close(result.x, alone.x, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(result.restarts, alone.restarts, rtol=1e-5, atol=1e-2)


def test_where_memory_runs_out_the_chunk_halves_and_the_run_goes_on(model, digits):
    """A loss that fails like the CPU's allocator for more than two attacks at once."""

    class Hungry(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = model
            self.calls = []

        def forward(self, x):
            self.calls.append(len(x))
            if x.requires_grad and len(x) > 2:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
            return self.net(x)

    hungry = Hungry()
    client = gl.Client(hungry, gl.GaussianNoise(0.1))
    plain = gl.Client(model, gl.GaussianNoise(0.1))
    parts = [client.release(digits[0][[i]], digits[1][[i]], key=[i]) for i in range(3)]
    climb = gl.Adam(steps=3)
    found = gl.attacks.attack_all(
        [(gl.bayes(client, PRIOR, optimizer=climb), p) for p in parts], chunk=3
    )
    expected = gl.bayes(plain, PRIOR, optimizer=climb).attack(plain.release(*digits)).x
    torch.testing.assert_close(torch.cat([f.x for f in found]), expected, rtol=1e-4, atol=1e-5)
    assert max(hungry.calls) == 3
    with pytest.raises(RuntimeError, match="something else"):
        in_chunks(_fail, torch.arange(4), 2)


class Counting(nn.Module):
    """A network that notes how many images it is asked about at a time."""

    def __init__(self, net):
        super().__init__()
        self.net = net
        self.calls = []

    def forward(self, x):
        self.calls.append(len(x))
        return self.net(x)


def test_no_more_attacks_are_held_than_fit_into_half_of_the_free_memory(cnn, digits, monkeypatch):
    counting = Counting(cnn)
    adversary = gl.bayes(gl.Client(counting, gl.GaussianNoise(0.1)), PRIOR, optimizer=SHORT)
    view = adversary.client.release(*digits)
    short = replace(adversary, optimizer=gl.Adam(steps=3), restarts=8)
    everything = short.attack(view)
    assert max(counting.calls) == 8 * len(view)
    with gl.device.LiveMemory() as memory:
        replace(short, restarts=4).attack(view[:1])
    free = 2.5 * memory.peak
    monkeypatch.setattr("gradleak.device.chunks.free", lambda device: free)
    counting.calls.clear()
    with gl.device.LiveMemory() as memory:
        little = short.attack(view)
    assert 2 <= max(counting.calls) < 8 * len(view)
    assert memory.peak < free
    torch.testing.assert_close(little.x, everything.x, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_patience_ends_attacks_without_changing_the_others(digits, monkeypatch):
    monkeypatch.setenv("GRADLEAK_REPLAY", "0")  # the network's runs are counted
    counting = Counting(gl.models.cnn((1, 8, 8), 10).double())
    client = gl.Client(counting, gl.GaussianNoise(0.3))
    view = client.release(digits[0].double(), digits[1])
    climb = gl.Adam(steps=80, lr=0.1, decay=0.85)  # hardly moves in the second half

    def attack(**changes):
        counting.calls.clear()
        optimizer = replace(climb, **changes)
        found = gl.bayes(client, PRIOR, optimizer=optimizer, restarts=2).attack(view)
        return found, sum(counting.calls)

    plain, all_steps = attack()
    endless, _ = attack(patience=80)
    assert torch.equal(endless.x, plain.x)
    ended, fewer = attack(patience=10)
    assert fewer < 0.9 * all_steps
    first_look, _ = attack(steps=10)
    assert (ended.restarts >= first_look.restarts - 1e-6).all()
    patient = gl.bayes(client, PRIOR, optimizer=replace(climb, patience=10), restarts=2)
    alone = torch.cat([patient.attack(view[[i]]).x for i in range(len(view))])
    torch.testing.assert_close(alone, ended.x, rtol=0, atol=1e-6)


def test_an_attack_that_diverges_keeps_the_best_it_had(model, digits):
    @dataclass(frozen=True)
    class Trap(gl.Prior):
        """Not a number for bright images, to which it drives."""

        def log_prob(self, x):
            rising = 1e6 * x.flatten(1).mean(1)
            return torch.where(x.flatten(1).mean(1) > 0.7, torch.nan, rising)

    client = gl.Client(model, gl.GaussianNoise(0.1))
    view = client.release(*[part[:2] for part in digits])
    climb = gl.Adam(steps=60, lr=0.02, patience=5)
    found = gl.Adversary(client, Trap(), climb).attack(view)
    assert found.log_posterior.isfinite().all()
    assert found.x.flatten(1).mean(1).max() < 0.7


def _fail(rows):
    raise RuntimeError("something else")


def test_attacks_may_be_called_without_gradients_enabled(model, digits):
    client = gl.Client(model, gl.GaussianNoise(0.1))
    adversary = gl.bayes(client, PRIOR, optimizer=gl.Adam(steps=2))
    view = client.release(*digits)
    with torch.no_grad():
        quiet = adversary.attack(view).x
    assert torch.equal(quiet, adversary.attack(view).x)


def test_a_scale_for_each_client(model, digits):
    x, y = digits
    scales = torch.tensor([0.01, 0.1, 0.3])
    client = gl.Client(model, gl.GaussianNoise(scales))
    view = client.release(x, y)
    together = gl.bayes(client, PRIOR, optimizer=gl.Adam(steps=3), restarts=2).attack(view).x
    single = gl.Client(model, gl.GaussianNoise(0.3))
    same = single.release(x[2:3], y[2:3], key=[2])
    torch.testing.assert_close(view.g.rows(slice(2, 3))["dense2.bias"], same.g["dense2.bias"])
    alone = gl.bayes(single, PRIOR, optimizer=gl.Adam(steps=3), restarts=2).attack(same).x
    torch.testing.assert_close(together[2:3], alone, rtol=1e-4, atol=1e-5)


def test_the_same_seed_gives_the_same_numbers(model, digits):
    client = gl.Client(model, gl.GaussianNoise(0.1))
    a, b, c = (
        gl.bayes(client, PRIOR, optimizer=gl.Adam(steps=5)).attack(
            client.release(*digits, seed=seed), seed=seed
        )
        for seed in (0, 0, 1)
    )
    assert torch.equal(a.x, b.x)
    assert not torch.equal(a.x, c.x)


def test_the_most_probable_restart_is_kept(model, digits):
    client = gl.Client(model, gl.GaussianNoise(0.1))
    view = client.release(*digits)
    adversary = gl.bayes(client, PRIOR, optimizer=gl.Adam(steps=10), restarts=3)
    found = adversary.attack(view)
    assert found.restarts.shape == (3, 3)
    assert torch.equal(found.log_posterior, found.restarts.amax(1))
    score = gl.attacks.log_posterior(adversary, view.g, view.y)(found.x)
    torch.testing.assert_close(score, found.log_posterior)


def test_climbing_knows_nothing_of_networks():
    top = torch.tensor([[1.0, -2.0], [0.5, 0.25]])
    climb = gl.Adam(steps=400, lr=0.1, decay=0.985)
    found = gl.attacks.maximize(lambda x, _: -(x - top).square().sum(1), torch.zeros(2, 2), climb)
    torch.testing.assert_close(found, top, rtol=0, atol=1e-3)


def test_adam_is_torchs():
    x = torch.rand(1, 6, dtype=torch.double)
    ours = gl.attacks.maximize(
        lambda x, _: -(x**4).sum(1), x, gl.Adam(steps=20, lr=0.01, decay=0.9)
    )
    theirs = x.clone().requires_grad_()
    adam = torch.optim.Adam([theirs], lr=0.01, eps=1e-12)
    schedule = torch.optim.lr_scheduler.ExponentialLR(adam, 0.9)
    for _ in range(20):
        adam.zero_grad()
        (theirs**4).sum().backward()
        adam.step()
        schedule.step()
    torch.testing.assert_close(ours, theirs.detach(), rtol=0, atol=1e-9)


def test_schedules():
    climb = gl.Adam(steps=100, lr=1.0, decay=0.5, drops=(0.2, 0.6))
    assert [climb.rate(t) for t in (0, 1, 2)] == [1.0, 0.5, 0.25]
    assert climb.rate(20) == pytest.approx(0.5**20 * 0.1)
    assert climb.rate(60) == pytest.approx(0.5**60 * 0.01)


def test_temperature_falls_to_one_in_the_first_half(model, digits):
    x, y = digits
    client = gl.Client(model, gl.GaussianNoise(1.0))
    view = client.release(x, y)
    f = gl.attacks.log_posterior(gl.bayes(client, gl.Flat(), temperature=16.0), view.g, view.y)
    final = client.log_prob(view.g, x, y)
    for step, share in ((0, 1 / 16), (1, 1 / 4), (2, 1.0), (4, 1.0)):
        torch.testing.assert_close(f(x, gl.priors.Moment(step, 4)), final * share)


def test_a_climb_without_a_slope_stands_still_and_spares_the_others():
    def f(x, _):
        return torch.stack([x[0].sum() * torch.nan, -(x[1] - 1).square().sum()])

    found = gl.attacks.maximize(f, torch.zeros(2, 3), gl.Adam(steps=300, decay=0.98))
    assert found[0].tolist() == [0, 0, 0]
    torch.testing.assert_close(found[1], torch.ones(3), rtol=0, atol=1e-2)


def test_client_batches_are_attacked_as_one(model):
    x, y = gl.data.batch("digits", [0, 1, 2, 3])
    client = gl.Client(model, gl.GaussianNoise(1e-3), batch_size=2)
    view = client.release(x.reshape(2, 2, 1, 8, 8), y.reshape(2, 2))
    found = gl.bayes(client, gl.Box(), optimizer=SHORT).attack(view).x
    matched = gl.metrics.match(found, x.reshape(2, 2, 1, 8, 8)).reshape(4, 1, 8, 8)
    assert gl.psnr(matched, x).mean() > 15


def test_a_model_a_loss_and_a_defense_of_ones_own():
    def noisy(gradient):
        return gl.Normal(gradient.map(torch.tanh), scale=0.01)

    torch.manual_seed(0)
    own = nn.Sequential(nn.Conv1d(2, 8, 3), nn.SiLU(), nn.Flatten(), nn.Linear(48, 4))
    x, y = torch.rand(2, 2, 8), torch.rand(2, 4)
    client = gl.Client(own, noisy, loss=nn.functional.mse_loss)
    view = client.release(x, y)
    found = gl.bayes(client, gl.Flat(), optimizer=gl.Adam(steps=200, decay=0.98)).attack(view)
    start = gl.bayes(client, gl.Flat(), optimizer=gl.Adam(steps=0)).attack(view)
    assert (gl.mse(found.x, x) < 0.2 * gl.mse(start.x, x)).all()


def test_bad_attacks_are_refused(model, digits):
    client = gl.Client(model, gl.GaussianNoise(0.1))
    view = client.release(*digits)
    adversary = gl.bayes(client, PRIOR)
    with pytest.raises(ValueError, match="restarts must be a whole number, at least 1"):
        gl.bayes(client, PRIOR, restarts=0)
    with pytest.raises(ValueError, match="temperature must be a number in"):
        gl.bayes(client, PRIOR, temperature=0.5)
    with pytest.raises(ValueError, match="lr must be a number in"):
        gl.Adam(lr=-1.0)
    with pytest.raises(ValueError, match="steps"):
        gl.Adam(steps=-1)
    for other in (gl.l1(client, PRIOR), replace(adversary, restarts=2)):
        with pytest.raises(ValueError, match="differ in floats only"):
            gl.attacks.attack_all([(adversary, view), (other, view)])
    with pytest.raises(ValueError, match="nothing to attack"):
        gl.attacks.attack_all([])
    with pytest.raises(ValueError, match="2 values for 3 clients"):
        gl.dlg(client, PRIOR, scale=torch.tensor([0.1, 0.2])).attack(view)
    for chunk in (0, -2, 1.5, "a", True):
        with pytest.raises(ValueError, match="chunk must be a whole number"):
            gl.attacks.attack_all([(adversary, view)], chunk=chunk)
    with pytest.raises(ValueError, match="view must be a ServerView"):
        adversary.attack(None)


NUMBERS = st.one_of(
    st.floats(max_value=0), st.sampled_from([float("inf"), float("nan"), "a", None, True, 1j, []])
)
COUNTS = st.one_of(st.integers(max_value=-1), st.floats(), st.sampled_from(["a", True, 1j, []]))
SETTINGS = {
    "lr": (gl.Adam, NUMBERS),
    "decay": (gl.Adam, NUMBERS),
    "steps": (gl.Adam, COUNTS),
    "patience": (gl.Adam, COUNTS),
    "drops": (gl.Adam, st.one_of(st.floats(), st.just((float("nan"),)), st.just(("a",)))),
    "signed": (gl.Adam, st.one_of(st.integers(), st.text(), st.none())),
    "radius": (gl.Ball, NUMBERS),
    "temperature": (lambda **s: gl.Adversary(linear_gaussian(), PRIOR, **s), NUMBERS),
    "restarts": (lambda **s: gl.Adversary(linear_gaussian(), PRIOR, **s), COUNTS),
    "optimizer": (lambda **s: gl.Adversary(linear_gaussian(), PRIOR, **s), NUMBERS),
    "prior": (
        lambda **s: gl.Adversary(linear_gaussian(), **s),
        st.one_of(NUMBERS, st.just(gl.Box)),
    ),
    "client": (lambda **s: gl.Adversary(prior=PRIOR, **s), NUMBERS),
}


@pytest.mark.parametrize("name", SETTINGS)
@settings(max_examples=25)
@given(data=st.data())
def test_settings_that_are_none_are_refused_by_name(name, data):
    make, values = SETTINGS[name]
    with pytest.raises(ValueError, match=f"{name} must be"):
        make(**{name: data.draw(values)})


class Logarithm(nn.Module):
    """Takes positive images only, as a network of ones own may."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        return self.head(torch.log(x).flatten(1))


@dataclass(frozen=True)
class Inside(gl.Prior):
    """Pixels lie in [low, 1]."""

    low: float = 0.01

    def log_prob(self, x):
        return x.new_zeros(len(x))

    def project(self, x):
        return x.clamp(self.low, 1)


def first_step_without_a_slope(adversary, view, steps):
    """By climbs that are longer and longer."""
    for step in range(steps):
        climb = replace(adversary.optimizer, steps=step)
        x = replace(adversary, optimizer=climb).attack(view).x
        if not adversary.client.slope(view.g, x, view.y).isfinite().all():
            return step
    return -1


@pytest.mark.filterwarnings("ignore::gradleak.attacks.SlopeWarning")
def test_a_slope_that_is_not_finite_is_told_with_its_step(digits):
    client = gl.Client(Logarithm())
    x, y = digits[0].clamp(0.05, 0.95), digits[1]
    view = client.release(x, y)
    climb = gl.Adam(steps=12, signed=True, lr=0.1)
    attack = gl.inverting_gradients(client, gl.Box(), optimizer=climb)
    found = attack.attack(view)
    for n in range(3):
        expected = first_step_without_a_slope(attack, view[[n]], 12)
        assert found.stopped[n].item() == expected >= 0
    with pytest.warns(gl.attacks.SlopeWarning, match=r"3 of 3 climbs .* from step \d+ on.*project"):
        attack.attack(view)
    inside = replace(attack, prior=Inside()).attack(view)  # the cure
    assert inside.stopped.tolist() == [[-1]] * 3
    assert inside.log_posterior.isfinite().all()
    assert (gl.psnr(inside.x, x) > gl.psnr(found.x, x)).all()


@pytest.mark.filterwarnings("ignore::gradleak.attacks.SlopeWarning")
def test_no_steps_are_wasted_on_climbs_that_stopped_and_the_others_go_on():
    asked = []

    def part(index):
        def f(x, _):
            asked.append(index.tolist())
            walls = torch.where((index == 1) & (x[:, 0] > 0.45), torch.nan, 1.0)
            return walls * -(x - 1).square().sum(1)

        return f, climb, lambda x: x

    climb = gl.Adam(steps=400, lr=0.01)
    start = torch.zeros(3, 2)
    found, stopped, _ = maximise.maximize_parts(part, start, climb)
    assert stopped[[0, 2]].tolist() == [-1, -1]
    assert 40 <= stopped[1] <= 60
    torch.testing.assert_close(found[[0, 2]], torch.ones(2, 2), rtol=0, atol=1e-2)
    assert asked[-1] == [0, 2]
    assert sum(1 in which for which in asked) == 200
    asked.clear()
    alone = replace(climb, patience=7)
    found, stopped, _ = maximise.maximize_parts(part, start, alone, 400)
    assert stopped[1] >= 40
    assert sum(1 in which for which in asked) < 80


def test_a_start_without_a_slope_is_told(model, digits):
    """A first layer that is dead for some of the starts, and one that cuts every slope off."""

    class Cut(nn.Module):
        def __init__(self, cut):
            super().__init__()
            self.cut, self.inner = cut, model

        def forward(self, x):
            return self.inner(self.cut(x))

    halves = gl.Client(Cut(lambda x: torch.where(x[:, :, :1, :1] > 0.5, x, x.detach())))
    climb = gl.inverting_gradients(halves, optimizer=gl.Adam(steps=2), restarts=4)
    x, y = digits
    view = halves.release(x, y)
    with pytest.warns(gl.attacks.SlopeWarning, match=r"of 12 starts g tells nothing"):
        found = climb.attack(view)
    starts = Batch.of([(climb, view)], 0).starts().reshape(3, 4, 64)
    assert torch.equal(found.blind, starts[:, :, 0] <= 0.5)
    steps = gl.Client(Cut(lambda x: (8 * x).round() / 8))
    view = steps.release(x, y)
    for attack in (gl.inverting_gradients(steps), gl.dlg(steps), gl.l1(steps, restarts=2)):
        with pytest.raises(ValueError, match=r"zero at every start.*ignores x"):
            attack.attack(view)
    gl.prior_only(steps, PRIOR, optimizer=gl.Adam(steps=1)).attack(view)


def series_network(channels, length, classes=4):
    torch.manual_seed(0)
    conv = nn.Conv1d(channels, 8, 5, padding=2)
    return nn.Sequential(conv, nn.Sigmoid(), nn.Flatten(), nn.Linear(8 * length, classes))


def test_total_variation_of_a_batch_of_series_is_along_time():
    """Smooth series in channels far apart: along channels or the batch it would pull them together.

    What is climbed is compared with a log-posterior written out here.
    """
    time = torch.linspace(0, 1, 20)
    each = [[0.5 + 0.4 * torch.sin(6 * (1 + b) * time + c) * (-1) ** c for c in range(3)]
            for b in range(2)]  # fmt: skip
    x = torch.stack([torch.stack(series) for series in each])[None]
    y = torch.tensor([[0, 1]])
    client = gl.Client(series_network(3, 20), gl.GaussianNoise(1e-3), batch_size=2)
    view = client.release(x, y)
    adam = gl.Adam(steps=30, lr=0.05)
    found = gl.bayes(client, gl.TotalVariation(100.0), optimizer=adam).attack(view)
    along = found.x.diff(dim=-1).abs().sum()
    expected = client.log_prob(view.g, found.x, y) - 100.0 * along
    torch.testing.assert_close(found.log_posterior, expected, rtol=1e-4, atol=1e-2)
    alone = gl.Client(client.model, gl.GaussianNoise(1e-3))
    view = alone.release(x[0], y[0])
    found = gl.bayes(alone, gl.TotalVariation(100.0), optimizer=adam).attack(view)
    along = found.x.diff(dim=-1).abs().sum((1, 2))
    expected = alone.log_prob(view.g, found.x, y[0]) - 100.0 * along
    torch.testing.assert_close(found.log_posterior, expected, rtol=1e-4, atol=1e-2)


def drawn(shape, batch):
    """A client of a linear network, and two rows of data of a shape."""
    size = math.prod(shape)
    net = nn.Sequential(nn.Flatten(), nn.Linear(size, 5))
    count = (2,) if batch is None else (2, batch)
    x = torch.rand(*count, *shape)
    return gl.Client(net, batch_size=batch), x, torch.zeros(count).long()


@pytest.mark.parametrize("batch", [None, 2])
@pytest.mark.parametrize("shape", [(6,), (1,), (2, 7), (1, 3, 4, 5), (8, 8)])
def test_the_default_prior_of_images_is_refused_for_other_data(shape, batch):
    client, x, y = drawn(shape, batch)
    view = client.release(x, y)
    short = gl.Adam(steps=2, signed=True)
    with pytest.raises(ValueError, match=r"one of images.*prior=gl\.Flat\(\).*prior=gl\.Box\(\)"):
        gl.inverting_gradients(client, optimizer=short).attack(view)
    priors = [gl.Flat(), gl.Box()]
    if len(shape) > 1:
        priors += [gl.TotalVariation(1e-5), gl.Sum((gl.TotalVariation(1e-5), gl.Box()))]
    for prior in priors:
        found = gl.inverting_gradients(client, prior, optimizer=short).attack(view)
        assert found.x.shape == x.shape
    for attack in (gl.dlg, gl.l1):
        assert attack(client, optimizer=short).attack(view).x.shape == x.shape
    if len(shape) == 1:
        with pytest.raises(ValueError, match=r"needs neighbours.*prior=gl\.Box"):
            gl.inverting_gradients(client, gl.TotalVariation(1.0)).attack(view)


def test_the_default_prior_takes_images():
    client, x, y = drawn((1, 4, 4), 2)
    short = gl.Adam(steps=2, signed=True)
    found = gl.inverting_gradients(client, optimizer=short).attack(client.release(x, y)).x
    told = gl.Sum((gl.TotalVariation(1e-5, axes=2), gl.Box()))
    same = gl.inverting_gradients(client, told, optimizer=short).attack(client.release(x, y)).x
    assert torch.equal(found, same)


@pytest.mark.parametrize(("truth", "belief"), [(2, None), (None, 2), (2, 3), (1, None)])
def test_a_belief_in_another_batch_size_is_refused(truth, belief):
    """On rows of a table another one would run in silence."""
    client, x, y = drawn((6,), truth)
    other = replace(client, batch_size=belief)
    with pytest.raises(ValueError, match=rf"batch_size={belief}, those of the view have {truth}"):
        gl.dlg(other, optimizer=gl.Adam(steps=1)).attack(client.release(x, y))


class Words(nn.Module):
    """Looks whole numbers up, which have no slope."""

    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(17, 2), nn.Linear(128, 10)

    def forward(self, x):
        return self.head(self.table((16 * x).long().flatten(1)).flatten(1))


@dataclass(frozen=True)
class Constant:
    """Believes the same of all gradients."""

    def __call__(self, gradient):
        return gl.defenses.Density(lambda g: torch.zeros(gradient.attacks))


@pytest.mark.filterwarnings("ignore::gradleak.gradients.LoopWarning")
@pytest.mark.parametrize("count", [1, 5])  # the chunk is measured before more than three
@pytest.mark.parametrize("prior", [gl.Flat(), gl.Box(), PRIOR])
@pytest.mark.parametrize(("network", "belief"), [(Words, gl.Direction()), (None, Constant())])
def test_a_log_density_without_x_in_it_is_told(model, network, belief, prior, count):
    x, y = gl.data.batch("digits", range(count))
    net = network() if network else model
    view = gl.Client(net).release(x, y)
    with pytest.raises(ValueError, match=r"slope of .* is zero at every start"):
        gl.bayes(gl.Client(net, belief), prior, optimizer=SHORT).attack(view)


def test_of_two_flat_parts_the_start_is_the_answer(model, digits):
    client = gl.Client(model)
    found = gl.prior_only(client, gl.Flat(), optimizer=SHORT).attack(client.release(*digits))
    assert found.x.isfinite().all()


class Bad(gl.Prior):
    """Is no prior any more from a step on."""

    def __init__(self, step, then):
        self.step, self.then = step, then

    def log_prob(self, x):
        return -x.square().flatten(1).sum(1)

    def at(self, moment):
        return self if moment.step < self.step else self.then


@pytest.mark.parametrize("then", [None, 0.5, gl.Box])
@pytest.mark.parametrize("step", [1, 20, 40])  # the last is the end
def test_a_prior_that_turns_bad_later_is_refused_first(model, digits, step, then):
    client = gl.Client(model)
    with pytest.raises(ValueError, match=f"at step {step} must be a Prior"):
        gl.bayes(gl.Client(model, gl.GaussianNoise(0.1)), Bad(step, then), optimizer=SHORT).attack(
            client.release(*digits)
        )


def test_a_prior_without_a_density_names_the_cure(model, digits):
    class Bare(gl.Prior):
        pass

    client = gl.Client(model, gl.GaussianNoise(0.1))
    with pytest.raises(NotImplementedError, match=r"Bare needs a method log_prob.*such as return"):
        gl.bayes(client, Bare(), optimizer=SHORT).attack(client.release(*digits))
