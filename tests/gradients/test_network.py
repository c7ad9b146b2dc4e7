import copy

import pytest
import torch
import torch.nn.functional as F
import zoo
from torch import nn

import gradleak as gl
from gradleak.gradients import network


class OptimizedLike(nn.Module):
    """What torch.compile returns, without its seconds of import."""

    def __init__(self, model):
        super().__init__()
        self._orig_mod = model


def in_place_compiled(model):
    model.compile(backend="eager")
    return model


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
@pytest.mark.parametrize(
    ("wrap", "cure"),
    [
        (nn.DataParallel, r"its \.module"),
        (lambda m: nn.Sequential(nn.DataParallel(m), nn.ReLU()), r"'0' \(DataParallel\)"),
        (torch.jit.script, "scripted or traced"),
        (lambda m: torch.jit.trace(m, torch.rand(1, 8)), "scripted or traced"),
        (OptimizedLike, r"\._orig_mod"),
        (in_place_compiled, r"\.compile\(\) was not called"),
    ],
)
def test_wrappers_are_named_with_the_cure(wrap, cure):
    with pytest.raises(ValueError, match=cure):
        gl.Client(wrap(zoo.mlp()))


def test_a_network_without_sizes_or_with_complex_weights():
    with pytest.raises(ValueError, match=r"run the model once"):
        gl.Client(nn.Sequential(nn.LazyLinear(3)))
    with pytest.raises(ValueError, match="two real parameters"):
        gl.Client(nn.Linear(3, 2, dtype=torch.cfloat))


@pytest.mark.parametrize("layer", [nn.Dropout(), nn.AlphaDropout(), nn.BatchNorm1d(8)])
def test_train_mode_is_found_when_it_is_used(layer):
    x, y = torch.rand(2, 8), torch.tensor([0, 1])
    client = gl.Client(nn.Sequential(layer, nn.Linear(8, 3)).eval())
    client.release(x, y)
    client.model.train()
    with pytest.raises(ValueError, match=r"'0' .* train mode.*call model.eval\(\) first"):
        client.gradient(x, y)


def test_each_tensor_stands_in_all_of_its_places_and_the_models_own_come_back():
    for make in (zoo.shared, zoo.tied):
        model, x = make(), torch.rand(2, 8)
        own = dict(model.named_parameters())
        halves = {k: p.detach() / 2 for k, p in own.items()}
        found = network.call(model, halves, x)
        assert all(p is own[k] for k, p in model.named_parameters())
        with torch.no_grad():
            for p in model.parameters():
                p.div_(2)
        torch.testing.assert_close(found, model(x))


def test_tokens_are_refused_with_both_cures():
    model = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(12, 3))
    with pytest.raises(ValueError, match=r"attack their embeddings.*gradleak.attacks.tokens"):
        gl.Client(model).release(torch.randint(9, (2, 3)), torch.tensor([0, 1]))


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(
    "hook",
    [
        lambda p: p.register_hook(lambda g: g.clamp(-0.01, 0.01)),
        lambda p: p.register_hook(print),
        lambda p: p.register_post_accumulate_grad_hook(lambda p: p.grad.clamp_(-0.01, 0.01)),
    ],
)
def test_hooks_on_parameters_are_refused_until_they_are_removed(hook, late):
    model, x, y = zoo.mlp(), torch.rand(1, 8), torch.tensor([0])
    client = gl.Client(model) if late else None
    handle = hook(list(model.parameters())[-1])
    with pytest.raises(ValueError, match=r"has a hook.*remove it.*defense"):
        (client or gl.Client(model)).release(x, y)
    handle.remove()
    (client or gl.Client(model)).release(x, y)


def test_a_model_of_inference_mode_is_refused_and_a_copy_of_it_taken():
    with torch.inference_mode():
        model = zoo.mlp()
    with pytest.raises(ValueError, match=r"inference mode.*copy.deepcopy"):
        gl.Client(model)
    gl.Client(copy.deepcopy(model)).release(torch.rand(1, 8), torch.tensor([0]))


@pytest.mark.parametrize("shape", [(0,), (3, 0)])
def test_trainable_parameters_without_numbers_are_refused(shape):
    model = nn.Linear(8, 3)
    model.more = nn.Parameter(torch.zeros(shape))
    with pytest.raises(ValueError, match=r"'more' .* holds no number.*requires_grad_\(False\)"):
        gl.Client(model)
    model.more.requires_grad_(False)
    gl.Client(model).release(torch.rand(1, 8), torch.tensor([0]))


class Scaled(nn.Module):
    """Logits times a learnt number, as in CLIP."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.dense, self.scale = nn.Linear(8, 3), nn.Parameter(torch.tensor(1.5))

    def forward(self, x):
        return self.scale.exp() * self.dense(x)


BELIEFS = [gl.GaussianNoise(0.1), gl.LaplaceNoise(0.1), gl.Direction(), gl.LayerDirections(),
           gl.UnknownMask(0.5, gl.GaussianNoise(0.1)), gl.Censored(gl.GaussianNoise(0.1)),
           gl.Survivors("scale", gl.GaussianNoise(0.1))]  # fmt: skip


@pytest.mark.parametrize("defense", [gl.NoDefense(), gl.GaussianNoise(0.1), gl.LaplaceNoise(0.1),
                                     gl.MagnitudePruning(0.5)])  # fmt: skip
def test_a_number_may_be_a_parameter(defense):
    model, x, y = Scaled(), torch.rand(5, 8), torch.arange(5) % 3
    view = gl.Client(model, defense).release(x, y)
    if defense == gl.NoDefense():
        true = torch.autograd.grad(F.cross_entropy(model(x[:1]), y[:1]), model.scale)
        torch.testing.assert_close(view.g["scale"][:1], torch.stack(true))
    received = gl.Client(model, defense).view(dict(view.g), y, shape=(8,))
    for belief in BELIEFS:
        client = gl.Client(model, belief)
        found = gl.bayes(client, gl.Box(), optimizer=gl.Adam(steps=2)).attack(received)
        assert found.log_posterior.isfinite().all()
    assert gl.fit(view, x).residual.isfinite().all()


def test_a_step_of_such_a_network_is_a_gradient():
    model, x, y = Scaled(), torch.rand(1, 8), torch.tensor([1])
    g = gl.Client(model).release(x, y).g
    after = {k: p.detach() - 0.1 * g[k][0] for k, p in model.named_parameters()}
    found = gl.Client(model).view_of_update(model.state_dict(), after, 0.1, y, shape=(8,)).g
    torch.testing.assert_close(found["scale"], g["scale"], rtol=1e-4, atol=1e-5)


def plain():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 3, 4), nn.Tanh(), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(27, 5)
    ).eval()


def other_bias(net):
    with torch.no_grad():
        net[4].bias[0] += 1e-6


def other_statistics(net):
    net[2].running_mean += 1


def other_layer(net):
    net[1] = nn.Sigmoid()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (other_bias, "'4.bias' differs"),
        (other_statistics, "'2.running_mean' differs"),
        (other_layer, "what comes out of the same weights differs"),
        (lambda net: net.double(), "'0.weight' differs"),
        (lambda net: net[0].requires_grad_(False), "'0.weight' differs"),
        (lambda net: net.append(nn.Linear(5, 5)), "'5.weight' differs"),
    ],
)
def test_another_network_is_told(change, told):
    net = plain()
    x = torch.rand(1, 2, 6, 6)
    other = copy.deepcopy(net)
    network.check_same(other, net, x)
    network.check_same(net, net, x)
    change(other)
    with pytest.raises(ValueError, match=f"{told}.*view.client"):
        network.check_same(other, net, x)
    if "5." not in told:
        with pytest.raises(ValueError, match=told):
            network.check_same(net, other, x)


def test_outputs_that_are_dicts_and_tuples_are_compared():
    class Many(nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.factor, self.linear = factor, nn.Linear(2, 2)

        def forward(self, x):
            return {"a": self.linear(x), "b": (None, self.linear(x) * self.factor)}

    net, other = Many(1), Many(2)
    other.load_state_dict(net.state_dict())
    network.check_same(copy.deepcopy(net), net, torch.rand(1, 2))
    with pytest.raises(ValueError, match="the same weights differs"):
        network.check_same(other, net, torch.rand(1, 2))


def test_cudnn_stays_as_it_was(monkeypatch):
    for enabled in (True, False):
        monkeypatch.setattr(torch.backends.cudnn, "enabled", enabled)
        with network.left_as_found(nn.GRU(2, 2)):
            assert not torch.backends.cudnn.enabled
        with network.left_as_found(nn.Linear(2, 2)):
            assert torch.backends.cudnn.enabled == enabled
        assert torch.backends.cudnn.enabled == enabled
