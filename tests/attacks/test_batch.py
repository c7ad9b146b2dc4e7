"""Attacks that are computed together: replayed or run as they stand, from one thread or several."""

import copy
import importlib
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import zoo
from torch import nn

import gradleak as gl
from gradleak import device
from gradleak.attacks.batch import Batch
from gradleak.gradients import replay

adversary_module = importlib.import_module("gradleak.attacks.adversary")  # a name, too
X, Y = gl.data.batch("digits", range(3))
STEPS = 6


@pytest.fixture
def replays(monkeypatch):
    """Say how many of the climbs that follow were replayed, and whether climbs are."""
    made = []

    class Counted(replay.Replayed):
        def _recorded(self, inputs):
            made.append(self)
            return super()._recorded(inputs)

    def switch(on):
        made.clear()
        monkeypatch.setattr(replay, "repays", lambda calls: on and calls > 1)
        return made

    monkeypatch.setattr(replay, "Replayed", Counted)
    return switch


def client(defense=gl.NoDefense(), **options):
    return gl.Client(gl.models.cnn((1, 8, 8), 10), defense, **options)


def both(replays, adversary, view):
    """What an attack finds replayed, after the same as it stands: equal to the bit."""
    replays(False)
    plain = adversary.attack(view, seed=3)
    made = replays(True)
    found = adversary.attack(view, seed=3)
    assert found.x.equal(plain.x)
    assert found.log_posterior.equal(plain.log_posterior)
    return made


VIEW = client().release(X, Y)
TV = gl.Sum((gl.TotalVariation(0.1), gl.Box()))
BELIEFS = [
    gl.GaussianNoise(0.1), gl.LaplaceNoise(0.1), gl.Direction(), gl.LayerDirections(),
    gl.RandomMask(0.5, gl.GaussianNoise(0.1)), gl.UnknownMask(0.5, gl.LaplaceNoise(0.1)),
    gl.Ignore("conv1", gl.GaussianNoise(0.1)), 
    gl.LayerWeights((1.0, 2.0, 3.0, 4.0), gl.GaussianNoise(0.1)),
    gl.Survivors("dense1", gl.Direction()),
    gl.LearnedNoise((0.1,) * 8), gl.Censored(gl.LaplaceNoise(0.1)),
]  # fmt: skip


@pytest.mark.parametrize("belief", BELIEFS, ids=lambda b: type(b).__name__)
def test_every_belief_is_replayed_to_the_bit(replays, belief):
    (made,) = both(replays, gl.Adversary(client(belief), TV, gl.Adam(steps=STEPS)), VIEW)
    assert not made.refused


PRIORS = [
    gl.Flat(), gl.BoxPenalty(0.1), gl.TotalVariation(0.1, power=2),
    gl.GaussianMixture.fit(gl.data.load("digits", "train").take(range(30)), 2),
]  # fmt: skip


@dataclass(frozen=True)
class Counting(gl.Prior):
    """A prior of one's own that keeps a record."""

    calls: list

    def log_prob(self, x):
        self.calls.append(1)
        return -(x - 0.5).square().flatten(1).sum(1)


@dataclass(frozen=True)
class Growing(gl.TotalVariation):
    """One that says so."""

    def at(self, moment):
        return gl.TotalVariation(self.weight * (1 + moment.progress), axes=2)


@pytest.mark.parametrize("prior", [Growing(0.1), gl.Sum((gl.Box(), Growing(0.1)))])
def test_a_prior_that_changes_on_the_way_is_asked_at_each_step(replays, prior):
    adversary = gl.Adversary(client(gl.GaussianNoise(0.1)), prior, gl.Adam(steps=STEPS))
    (made,) = both(replays, adversary, VIEW)
    assert not made.refused
    steady = replace(adversary, prior=gl.TotalVariation(0.1, axes=2))
    assert not adversary.attack(VIEW).x.equal(steady.attack(VIEW).x)


def test_a_prior_of_ones_own_is_asked_at_each_step_too(replays):
    found = []
    for on in (False, True):
        replays(on)
        prior = Counting([])
        adversary = gl.Adversary(client(gl.GaussianNoise(0.1)), prior, gl.Adam(steps=STEPS))
        found.append((adversary.attack(VIEW).x, len(prior.calls)))
    (plain, calls), (again, counted) = found
    assert calls == counted
    assert plain.equal(again)


@pytest.mark.parametrize("prior", PRIORS, ids=lambda p: type(p).__name__)
def test_so_are_other_priors_and_ways_to_search(replays, prior):
    way = {
        "optimizer": gl.Adam(steps=STEPS, signed=True, patience=2, drops=(0.5,)),
        "restarts": 2,
        "ball": gl.Ball(0.5, samples=2),
    }
    assert both(replays, gl.Adversary(client(gl.GaussianNoise(0.1)), prior, **way), VIEW)
    way["temperature"] = 4.0
    del way["ball"]
    assert both(replays, gl.Adversary(client(gl.GaussianNoise(0.1)), prior, **way), VIEW)


def test_so_are_many_settings_in_one_computation(replays):
    model = client().model
    pairs = [
        (
            gl.Adversary(
                gl.Client(model, gl.GaussianNoise(scale)), gl.Box(), gl.Adam(steps=STEPS, lr=lr)
            ),
            VIEW,
        )
        for scale, lr in ((0.1, 0.1), (0.3, 0.05))
    ]
    replays(False)
    plain = gl.attacks.attack_all(pairs, seed=1, chunk=4)
    made = replays(True)
    found = gl.attacks.attack_all(pairs, seed=1, chunk=4)
    assert len(made) == 2
    for a, b in zip(found, plain, strict=True):
        assert a.x.equal(b.x)


def test_clients_of_several_examples(replays):
    of = client(gl.GaussianNoise(0.1), batch_size=3)
    view = of.release(X[None], Y[None])
    assert both(replays, gl.Adversary(of, TV, gl.Adam(steps=STEPS)), view)


@pytest.mark.parametrize("name", [*sorted(zoo.GENERAL)[:6], *sorted(zoo.LOOP)[:3]])
@pytest.mark.filterwarnings("ignore::gradleak.gradients.LoopWarning")
def test_networks_of_other_paths_are_replayed_unless_in_the_loop(replays, name):
    make, shape = {**zoo.GENERAL, **zoo.LOOP}[name]
    torch.manual_seed(0)
    of = gl.Client(make().eval(), gl.GaussianNoise(0.1))
    x, y = torch.rand(2, *shape).requires_grad_(), torch.tensor([0, 1])
    path = of.path(x, y)
    made = both(replays, gl.Adversary(of, gl.Flat(), gl.Adam(steps=STEPS)), of.release(x, y))
    assert len(made) == (path != "loop")
    # Under older versions vmap itself turns a tensor into another view, which is not recorded.
    older = tuple(map(int, torch.__version__.split(".")[:2])) < (2, 14)
    assert all(not m.refused or (older and "another view" in m.refused) for m in made)


def test_a_network_changed_between_two_attacks_is_another(replays):
    of = client(gl.GaussianNoise(0.1))
    adversary = gl.Adversary(of, TV, gl.Adam(steps=STEPS))
    first = adversary.attack(of.release(X, Y))
    of.model.relu1 = nn.Sigmoid()
    with torch.no_grad():
        of.model.dense2.weight.mul_(2)
    assert both(replays, adversary, of.release(X, Y))
    assert not adversary.attack(of.release(X, Y)).x.equal(first.x)


@pytest.mark.parametrize("name", [None, sorted(zoo.GENERAL)[0]])
@pytest.mark.parametrize("on", [False, True])
def test_threads_share_a_network_and_leave_it_as_it_was(replays, on, name):
    make, shape = zoo.GENERAL[name] if name else (lambda: gl.models.cnn((1, 8, 8), 10), (1, 8, 8))
    torch.manual_seed(0)
    model = make().eval()
    of = gl.Client(model, gl.GaussianNoise(0.1))
    x, y = torch.rand(3, *shape), torch.arange(3)
    view = of.release(x, y)
    adversary = gl.Adversary(of, gl.Flat(), gl.Adam(steps=4 * STEPS))
    before = [(m, copy.copy(vars(m)), dict(m._forward_hooks)) for m in model.modules()]
    held = {k: v.clone() for k, v in model.state_dict().items()}
    replays(on)
    expected = [adversary.attack(view, seed=seed).x for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda seed: adversary.attack(view, seed=seed).x, range(4)))
    for a, b in zip(found, expected, strict=True):
        assert a.equal(b)
    for module, attributes, hooks in before:
        assert vars(module).keys() == attributes.keys()
        assert all(vars(module)[k] is v for k, v in attributes.items())
        assert dict(module._forward_hooks) == hooks
    assert all(v.equal(held[k]) for k, v in model.state_dict().items())


def test_a_client_in_half_precision(replays):
    of = gl.Client(gl.models.cnn((1, 8, 8), 10).half(), gl.GaussianNoise(0.1))
    made = both(replays, gl.Adversary(of, TV, gl.Adam(steps=STEPS)), of.release(X, Y))
    assert [m.refused for m in made] == [""]


@pytest.fixture
def two_threads():
    with device.threads(2):
        yield


def many(belief, **options):
    """Eighteen attacks at once, and one that holds them."""
    of = client(belief)
    view = gl.Client(of.model).release(*gl.data.batch("digits", range(6)))
    return gl.Adversary(of, TV, gl.Adam(steps=STEPS), restarts=3, **options), view


@pytest.mark.parametrize("belief", [gl.GaussianNoise(0.1), gl.Direction()])
def test_side_by_side_answers_are_those_of_one_chunk(replays, monkeypatch, two_threads, belief):
    adversary, view = many(belief)
    replays(True)
    whole = adversary.attack(view, seed=2)
    monkeypatch.setattr("gradleak.attacks.adversary.A_WORKERS", 64)
    made = replays(True)
    found = adversary.attack(view, seed=2)
    assert len(made) == 2  # one for each worker
    assert not any(m.refused for m in made)
    torch.testing.assert_close(found.x, whole.x, rtol=0, atol=1e-5)
    assert found.restarts.argmax(1).equal(whole.restarts.argmax(1))


class Own(gl.Prior):
    """A prior of one's own, which may keep state."""

    def log_prob(self, x):
        self.thread = threading.current_thread()
        return -x.square().flatten(1).sum(1)


def test_parts_of_ones_own_are_asked_from_one_thread(replays, monkeypatch, two_threads):
    monkeypatch.setattr("gradleak.attacks.adversary.A_WORKERS", 64)
    adversary, view = many(gl.GaussianNoise(0.1))
    prior = Own()
    replays(True)
    replace(adversary, prior=prior).attack(view)
    assert prior.thread is threading.main_thread()


@pytest.fixture
def interruptible():
    """A run in the background of a shell ignores what an interrupt says."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("two_threads", "interruptible")
def test_an_interrupt_stops_all_workers(replays, monkeypatch):
    monkeypatch.setattr("gradleak.attacks.adversary.A_WORKERS", 64)
    adversary, view = many(gl.GaussianNoise(0.1))
    endless = replace(adversary, optimizer=gl.Adam(steps=20_000))  # for a minute or more
    replays(True)
    timer = threading.Timer(1.0, signal.raise_signal, [signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        endless.attack(view)
    timer.join()
    assert not [t for t in threading.enumerate() if t.name.startswith("attack")]


def test_what_is_in_flight_is_counted_in_pixels():
    of = client(gl.GaussianNoise(0.1), batch_size=3)
    view = of.release(X[None], Y[None])
    plain = gl.Adversary(of, TV)
    ball = replace(plain, ball=gl.Ball(1.0, samples=5))
    assert [Batch.of([(a, view)], 0).pixels for a in (plain, ball)] == [3 * 64, 15 * 64]


def hard(z, y, least=1.25):
    """The mean over the examples that are hard."""
    each = F.cross_entropy(z, y, reduction="none")
    kept = each[each > least]
    return kept.mean() if len(kept) else each.mean()


def harder(z, y):
    return hard(z, y, 1.0)


def counted(z, y):
    return F.cross_entropy(z, y) * (1 + len((z > 0.3).nonzero()))


def cut(z, y):
    at = z.detach()[:, 0].argmax().clamp(1, 3)[None]
    (a, b), (c, d) = torch.tensor_split(z, at), torch.tensor_split(y, at)
    return F.cross_entropy(a, c) + 0.5 * F.cross_entropy(b, d)


class Clipped(torch.autograd.Function):
    """It reads its slope into NumPy, where nothing of this package looks on."""

    @staticmethod
    def forward(ctx, z):
        return z.clone()

    @staticmethod
    def backward(ctx, slope):
        return slope * (0.3 if np.abs(slope.detach().numpy()).max() > 0.6 else 1.0)


def clipped(z, y):
    return F.cross_entropy(Clipped.apply(z), y)


def told(z, y):
    return F.cross_entropy(z, y) * (1 + float(np.from_dlpack(z.detach()).max() > 0.5))


@pytest.mark.parametrize("loss", [hard, harder, counted, cut, clipped, told])
@pytest.mark.parametrize("seed", [1, 4, 5, 8])
@pytest.mark.filterwarnings("ignore::gradleak.gradients.LoopWarning")
@pytest.mark.filterwarnings("ignore:the climb .* without its record")
def test_a_loss_that_goes_by_its_numbers_is_followed_wherever_it_goes(replays, loss, seed):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).eval()
    x, y = torch.rand(1, 4, 6), torch.randint(0, 3, (1, 4))
    of = gl.Client(model, gl.GaussianNoise(0.01), loss, batch_size=4)
    both(replays, gl.bayes(of, gl.Flat(), optimizer=gl.Adam(steps=120)), of.release(x, y))


@dataclass(frozen=True)
class Clock(gl.Prior):
    """It counts the steps of all climbs, which ask it once each."""

    steps: list

    def log_prob(self, x):
        return x.new_zeros(len(x))

    def project(self, x):
        self.steps.append(1)
        return x.clamp(0, 1)


def test_a_climb_whose_record_went_another_way_begins_again(replays):
    clock = Clock([])

    def turning(z, y):
        return F.cross_entropy(z, y) * (1 if len(clock.steps) < 20 else 2)

    of = client(gl.GaussianNoise(0.1))
    view = of.release(X, Y)
    adversary = gl.Adversary(replace(of, loss=turning), clock, gl.Adam(steps=60))
    replays(True)
    with pytest.warns(UserWarning, match="begins again without its record: what was replayed"):
        found = adversary.attack(view)
    assert turning(torch.ones(1, 2), torch.tensor([0])) > 1
    assert found.x.equal(adversary.attack(view).x)


class Graph(nn.Module):
    """A network on a graph whose neighbours are a sparse matrix."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 5), nn.Linear(5, 3)
        self.register_buffer("near", torch.eye(6).to_sparse())

    def forward(self, x):
        h = torch.tanh(self.a(x)).permute(1, 0, 2).reshape(6, -1)
        return self.b(torch.sparse.mm(self.near, h).view(6, -1, 5).permute(1, 0, 2).mean(1))


def test_tensors_without_memory_to_tell_them_by_are_not_recorded(replays):
    of = gl.Client(Graph().eval(), gl.GaussianNoise(0.01))
    view = of.release(torch.rand(3, 6, 4), torch.tensor([0, 1, 2]))
    (made,) = both(replays, gl.bayes(of, gl.Flat(), optimizer=gl.Adam(steps=STEPS)), view)
    assert "not dense" in made.refused


def test_there_are_no_more_workers_than_cores(replays, monkeypatch):
    replays(True)
    taken, run = [], adversary_module.side_by_side
    monkeypatch.setattr(adversary_module, "A_WORKERS", 1)
    monkeypatch.setattr(
        adversary_module, "side_by_side", lambda *args: taken.append(args[-1]) or run(*args)
    )
    adversary = gl.Adversary(client(gl.GaussianNoise(0.1)), TV, gl.Adam(steps=STEPS))
    with device.threads(1):
        alone = adversary.attack(VIEW)
    with device.threads(64):
        found = adversary.attack(VIEW)
    torch.testing.assert_close(found.x, alone.x, rtol=0, atol=1e-3)
    assert taken == ([device.cores()] if device.cores() > 1 else [])
