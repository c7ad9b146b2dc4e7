from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import gradleak as gl
from gradleak.identity import digest

DIGITS = gl.data.load("digits", "train")


def client(defense=gl.NoDefense()):
    return gl.Client(gl.models.mlp((1, 8, 8), 10, widths=(32,)), defense)


def test_undefended_training_is_plain_sgd():
    *_, ours = gl.train.checkpoints(client(), DIGITS, [0, 3], batch_size=8, lr=0.2, seed=1)
    model = client().model
    sgd = torch.optim.SGD(model.parameters(), lr=0.2)
    batches = gl.train._batches(len(DIGITS), 8, seed=1)
    for _ in range(3):
        index = next(batches)
        sgd.zero_grad()
        F.cross_entropy(model(DIGITS.x[index]), DIGITS.y[index]).backward()
        sgd.step()
    for a, b in zip(ours.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_training_learns_with_a_defense_active():
    test = gl.data.load("digits", "test")
    noisy = client(gl.RandomMask(0.5, then=gl.GaussianNoise(0.1)))
    steps = [gl.train.accuracy(c.model, test) for c in
             gl.train.checkpoints(noisy, DIGITS, [0, 150])]  # fmt: skip
    assert steps[0] < 0.3
    assert steps[1] > 0.7


def test_checkpoints_do_not_depend_on_which_others_are_taken():
    noisy = client(gl.GaussianNoise(0.1))
    few = list(gl.train.checkpoints(noisy, DIGITS, [4]))
    many = list(gl.train.checkpoints(noisy, DIGITS, [4, 2, 0]))
    assert [c.step for c in many] == [0, 2, 4]
    a, b = few[0].model.state_dict(), many[2].model.state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)
    untrained = noisy.model.state_dict()
    assert all(torch.equal(untrained[k], many[0].model.state_dict()[k]) for k in untrained)


def test_noise_is_fresh_in_each_round():
    still = client(gl.GaussianNoise(1.0))
    zero = gl.Client(still.model, still.defense, loss=lambda out, y: 0 * out.sum())
    a, b, c = gl.train.checkpoints(zero, DIGITS, [0, 1, 2], batch_size=2, lr=1.0)
    first = [q - p for p, q in zip(a.model.parameters(), b.model.parameters(), strict=True)]
    second = [q - p for p, q in zip(b.model.parameters(), c.model.parameters(), strict=True)]
    assert not torch.allclose(first[0], second[0])
    # the mean of two clients' noise of scale 1
    assert first[0].std().item() == pytest.approx(0.5**0.5, rel=0.1)


def test_saved_models_come_back_with_their_facts(tmp_path):
    model = gl.models.mlp((1, 8, 8), 10)
    gl.models.save(model, tmp_path / "a" / "model.safetensors", step=7, lr=0.1)
    other = gl.models.mlp((1, 8, 8), 10, seed=1)
    assert gl.models.load(other, tmp_path / "a" / "model.safetensors") == {"step": 7, "lr": 0.1}
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in model.state_dict().items())
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["model.safetensors"]


class Twice(torch.nn.Module):
    """A loss without settings of its own: equal reprs, other values."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, output, y):
        return self.factor * F.cross_entropy(output, y)


def test_training_is_done_once(tmp_path, monkeypatch):
    noisy, other = client(gl.GaussianNoise(0.1)), client(gl.GaussianNoise(0.2))
    first = gl.train.trained(noisy, DIGITS, [0, 3], tmp_path, batch_size=4)
    plain = {c.step: c.model for c in gl.train.checkpoints(noisy, DIGITS, [0, 3], batch_size=4)}
    loss = [gl.Client(noisy.model, loss=Twice(factor)) for factor in (1.0, 2.0)]
    gl.train.trained(loss[0], DIGITS, [3], tmp_path, batch_size=4)
    monkeypatch.setattr(gl.train, "_batches", None)
    again = gl.train.trained(noisy, DIGITS, [3], tmp_path, batch_size=4, lr=0.1)
    for name, value in plain[3].state_dict().items():
        assert torch.equal(value, first[3].state_dict()[name])
        assert torch.equal(value, again[3].state_dict()[name])
    same = {"batch_size": 4}
    adam = {"optimizer": torch.optim.Adam}
    moved = DIGITS.x.clone()
    moved[7, 0, 3, 3] += 0.01
    changed = [
        (other, DIGITS, same),
        (loss[1], DIGITS, same),
        (noisy, DIGITS.take(range(9)), same),
        (noisy, replace(DIGITS, x=moved), same),
        *((noisy, DIGITS, same | other) for other in ({"batch_size": 5}, {"lr": 0.2}, adam)),
    ]
    for who, images, options in changed:
        with pytest.raises(TypeError, match="not callable"):
            gl.train.trained(who, images, [3], tmp_path, **options)


def test_trained_networks_are_named_after_their_training(tmp_path):
    """On this machine from training or from the file, on another from a file that differs."""
    noisy = client(gl.GaussianNoise(0.1))
    first, again = (gl.train.trained(noisy, DIGITS, [0, 3], tmp_path) for _ in range(2))
    plain = {c.step: c.model for c in gl.train.checkpoints(noisy, DIGITS, [3])}
    assert digest(first[0]) == digest(noisy.model)
    name = digest(first[3])
    assert name == digest(again[3]) == digest(plain[3])
    (path,) = tmp_path.iterdir()
    bits = {k: v * (1 + 1e-7) for k, v in first[3].state_dict().items()}
    first[3].load_state_dict(bits)
    assert digest(first[3]) != name
    facts = gl.models.load(again[3], path)
    gl.models.save(first[3], path, **facts)
    assert digest(gl.train.trained(noisy, DIGITS, [3], tmp_path)[3]) == name
    start = gl.models.mlp((1, 8, 8), 10, widths=(32,), seed=1)
    others = [
        gl.train.checkpoints(gl.Client(start, noisy.defense), DIGITS, [3]),
        gl.train.checkpoints(noisy, DIGITS, [4]),
        gl.train.checkpoints(noisy, DIGITS, [3], lr=0.2),
        gl.train.checkpoints(noisy, DIGITS, [3], seed=1),
    ]
    assert len({name, *(digest(next(c).model) for c in others)}) == 5


def test_training_without_a_name_is_not_kept(tmp_path):
    odd = gl.Client(client().model, loss=lambda out, y: F.cross_entropy(out, y))
    with pytest.raises(ValueError, match=r"client's loss is a lambda.*make it a frozen"):
        gl.train.trained(odd, DIGITS, [1], tmp_path)
    with pytest.raises(ValueError, match="the optimizer is a lambda"):
        gl.train.trained(
            client(), DIGITS, [1], tmp_path, optimizer=lambda p, lr: torch.optim.SGD(p, lr=lr)
        )
    (step,) = gl.train.checkpoints(odd, DIGITS, [1])
    (named,) = gl.train.checkpoints(client(), DIGITS, [1])
    for a, b in zip(step.model.parameters(), named.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert digest(step.model) != digest(named.model)  # by its weights


def test_bad_training_is_refused():
    with pytest.raises(ValueError, match="at least 0"):
        list(gl.train.checkpoints(client(), DIGITS, [-1]))
    for count in (0, 2):
        with pytest.raises(ValueError, match="larger than"):
            list(gl.train.checkpoints(client(), DIGITS.take(range(count)), [1], batch_size=3))
    with pytest.raises(ValueError, match="no images"):
        gl.train.accuracy(client().model, DIGITS.take([]))


@pytest.mark.parametrize("steps", [[], [-1], [1.5], [True], ["a"], [None], [0, float("nan")]])
def test_steps_are_whole_numbers(steps, tmp_path):
    for go in (lambda: list(gl.train.checkpoints(client(), DIGITS, steps)),
               lambda: gl.train.trained(client(), DIGITS, steps, tmp_path)):  # fmt: skip
        with pytest.raises(ValueError, match="whole numbers of at least 0"):
            go()


@pytest.mark.parametrize(
    "options",
    [*({"lr": lr} for lr in (float("nan"), float("inf"), -0.1, "0.1", None, 10**400)),
     *({"batch_size": size} for size in (0, -3, 2.0, "4", None))],
)  # fmt: skip
def test_rates_and_batches_that_are_none_are_refused(options):
    with pytest.raises(ValueError, match=r"(lr|batch_size) must be"):
        next(gl.train.checkpoints(client(), DIGITS, [1], **options))


def test_a_network_that_training_has_blown_up_is_not_kept(tmp_path):
    with pytest.raises(ValueError, match=r"after at most 30 .*not finite.*smaller rate than lr=1e"):
        gl.train.trained(client(), DIGITS, [30], tmp_path, lr=1e30)
    assert not list(tmp_path.iterdir())
    assert next(gl.train.checkpoints(client(), DIGITS, [np.int64(1)])).step == 1


@pytest.mark.parametrize(
    "options",
    [
        {"steps": None}, {"steps": 3}, {"batch_size": True}, {"batch_size": 0}, {"lr": 10**400},
        {"lr": "a"}, {"optimizer": None}, {"optimizer": "sgd"}, {"optimizer": torch.optim.LBFGS},
        {"optimizer": lambda parameters, lr: None}, {"client": None}, {"images": DIGITS.x},
        {"optimizer": torch.optim.Optimizer}, {"optimizer": lambda: None}, {"images": None},
    ],
)  # fmt: skip
def test_what_cannot_train_is_refused_by_name(options, tmp_path):
    (name,) = options
    given = {"client": client(), "images": DIGITS, "steps": [1], "batch_size": 4} | options
    with pytest.raises(ValueError, match=name):
        list(gl.train.checkpoints(**given))
    with pytest.raises(ValueError, match=name):
        gl.train.trained(**given, folder=tmp_path)


@pytest.mark.parametrize("defense", [gl.NoDefense(), gl.GaussianNoise(0.1)])
@pytest.mark.parametrize(
    ("shape", "classes", "reduction"),
    [((1, 28, 28), 10, "mean"), ((3, 9, 9), 10, "mean"), ((1, 8, 8), 2, "mean"),
     ((1, 8, 8), 10, "none")],
)  # fmt: skip
def test_what_does_not_fit_the_images_is_refused(shape, classes, reduction, defense):
    loss = torch.nn.CrossEntropyLoss(reduction=reduction)
    odd = gl.Client(gl.models.mlp(shape, classes, (4,)), defense, loss)
    with pytest.raises(ValueError, match="the model and its loss do not take x"):
        next(gl.train.checkpoints(odd, DIGITS, [1]))


@pytest.mark.parametrize("folder", [None, 3])
def test_a_folder_of_networks_is_one(folder, tmp_path):
    with pytest.raises(ValueError, match="folder must be a str or a Path"):
        gl.train.trained(client(), DIGITS, [1], folder)
    assert set(gl.train.trained(client(), DIGITS, [1], str(tmp_path))) == {1}
    (tmp_path / "file").touch()
    for lies in (tmp_path / "file", tmp_path / "file" / "under"):
        with pytest.raises(OSError, match="file"):
            gl.train.trained(client(), DIGITS, [1], lies)


def test_accuracy_is_of_a_network_at_rest():
    drops = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(), torch.nn.Linear(64, 10))
    with pytest.raises(ValueError, match=r"train mode.*model.eval\(\)"):
        gl.train.accuracy(drops, DIGITS)
    gl.train.accuracy(drops.eval(), DIGITS)
    for bad in (0, "3", 1.5, None):
        with pytest.raises(ValueError, match="batch_size must be"):
            gl.train.accuracy(drops, DIGITS, bad)
    whole = torch.nn.Flatten(0)
    for wrong in (torch.nn.Linear(3, 10), gl.models.mlp((1, 9, 9), 10), torch.nn.Identity(), whole):
        with pytest.raises(ValueError, match="does not give logits"):
            gl.train.accuracy(wrong, DIGITS)
    assert 0 <= gl.train.accuracy(torch.nn.Flatten(), DIGITS) <= 1  # without a parameter
