import hashlib
import math

import pytest
import safetensors.torch
import torch

import gradleak as gl
from gradleak.files import DamagedError
from gradleak.identity import digest
from gradleak.randomness import MODEL, generator


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def test_the_papers_sizes():
    assert parameters(gl.models.cnn((1, 28, 28), 10)) == 333_526
    assert parameters(gl.models.cnn((3, 32, 32), 10)) == 430_102
    assert parameters(gl.models.convbig((3, 32, 32), 10)) == 12_384_018
    assert parameters(gl.models.lenet((3, 32, 32), 10)) == 19_438
    assert parameters(gl.models.convnet((3, 32, 32), 10)) == 2_904_970
    # conv 3x3: 1-32, 32-64, 64-128; dense from 7 x 7 x 128
    assert parameters(gl.models.cnn2((1, 28, 28), 10)) == 320 + 18_496 + 73_856 + 62_730
    assert parameters(gl.models.mlp((1, 28, 28), 10, widths=(5, 6))) == 3925 + 36 + 70


BUILD = [
    gl.models.cnn, gl.models.cnn2, gl.models.convbig, gl.models.lenet, gl.models.convnet,
    gl.models.mlp,
]  # fmt: skip


@pytest.mark.parametrize("build", BUILD)
@pytest.mark.parametrize("shape", [(1, 9, 9), (1, 28, 28), (3, 32, 32)])
def test_models_give_logits_and_are_deterministic(build, shape):
    x = torch.rand(2, *shape)
    a, b, other = (build(shape, 10, seed=s)(x) for s in (0, 0, 1))
    assert a.shape == (2, 10)
    assert torch.equal(a, b)
    assert not torch.equal(a, other)


def test_weights_are_lecun_normal():
    model = gl.models.cnn((3, 32, 32), 10)
    for layer in (model.conv2, model.dense1):
        fan_in = layer.weight[0].numel()
        assert layer.weight.std().item() == pytest.approx(fan_in**-0.5, rel=0.02)
        assert layer.weight.abs().max() <= 2 * fan_in**-0.5 / 0.8796
        assert (layer.bias == 0).all()


# Of each network's weights, both seeds and shapes below. A published number belongs to these bits.
CHECKSUMS = {
    "cnn": "f8833e4a6af1b181",
    "cnn2": "bac283d9ce93f27a",
    "convbig": "8c3dc0bff22a87e5",
    "lenet": "eb6eb51922599a0b",
    "convnet": "f789890df5fea938",
    "mlp": "0482be2c11e641e6",
    "precode_ffn": "cbf3bc2a1ade48fc",
    "precode_lenet": "1f5f1a17875f761a",
}
ROUNDS_ALIKE = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


@pytest.mark.skipif(not ROUNDS_ALIKE, reason="other processors round random numbers otherwise")
@pytest.mark.parametrize("build", [*BUILD, gl.defenses.precode_ffn, gl.defenses.precode_lenet])
def test_a_seed_means_one_network_under_every_version(build):
    weights = hashlib.sha256()
    for shape in ((1, 28, 28), (3, 32, 32)):
        for seed in (0, 1):
            for weight in build(shape, 10, seed=seed).state_dict().values():
                weights.update(weight.numpy().tobytes())
    assert weights.hexdigest()[:16] == CHECKSUMS[build.__name__]


@pytest.mark.skipif(torch.__version__ < "2.14", reason="drew other numbers before 2.14")
@pytest.mark.parametrize("build", [gl.models.cnn, gl.models.cnn2, gl.models.mlp])
@pytest.mark.parametrize("seed", range(3))
def test_truncated_normal_weights_are_those_of_pytorch(build, seed):
    rng = generator(MODEL, seed)
    for layer in build((3, 32, 32), 10, seed=seed):
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
            std = 1 / math.sqrt(layer.weight[0].numel()) / 0.87962566103423978
            theirs = torch.nn.init.trunc_normal_(
                torch.empty_like(layer.weight), std=std, a=-2 * std, b=2 * std, generator=rng
            )
            assert torch.equal(layer.weight, theirs)


def test_strided_padding_is_that_of_the_original():
    """SAME with stride 2 on an even size pads below and to the right only."""
    model = gl.models.cnn2((1, 28, 28), 10)
    assert tuple(model.pad2.padding) == (0, 1, 0, 1)
    assert model[:6](torch.zeros(1, 1, 28, 28)).shape == (1, 64, 14, 14)


def test_normalisation_is_the_first_layer():
    model = gl.models.cnn((3, 32, 32), 10)
    mean = torch.tensor([0.4914, 0.4822, 0.4465]).reshape(1, 3, 1, 1).expand(1, 3, 32, 32)
    assert model.normalize(mean).abs().max() < 1e-6


def test_convnet_tells_how_small_an_image_may_be():
    with pytest.raises(ValueError, match="at least 9x9 pixels, got 8x8"):
        gl.models.convnet((1, 8, 8), 10)


def test_other_channels_are_refused():
    with pytest.raises(ValueError, match="bring your own"):
        gl.models.cnn((2, 28, 28), 10)


def test_networks_are_named_after_the_call_that_made_them():
    shape = (1, 9, 9)
    names = [digest(build(shape, 10)) for build in BUILD]
    names += [digest(build(shape, 10, seed=1)) for build in BUILD]
    names += [digest(gl.models.cnn(shape, 10, activation=torch.nn.Tanh))]
    names += [digest(gl.models.mlp(shape, 10, widths)) for widths in ((5,), (5, 6))]
    names += [digest(gl.defenses.precode_ffn(shape, 10, size=n)) for n in (4, 5)]
    assert len(set(names)) == len(names)
    same = [
        gl.models.cnn(shape, classes=10, seed=0),
        gl.models.cnn(shape, 10, 0, torch.nn.ReLU).double().float(),
    ]
    assert {digest(model) for model in same} == {names[0]}


def test_a_network_with_an_odd_activation_is_named_after_its_weights():
    a, b = (gl.models.cnn((1, 8, 8), 10, s, lambda: torch.nn.LeakyReLU(0.1)) for s in (0, 1))
    again = gl.models.cnn((1, 8, 8), 10, 0, lambda: torch.nn.LeakyReLU(0.1))
    assert digest(a) == digest(again) != digest(b)


def test_a_damaged_network_is_named_with_the_cure(tmp_path):
    path, model = tmp_path / "net.safetensors", gl.models.mlp((1, 8, 8), 10, widths=(4,))
    gl.models.save(model, path, step=1)
    whole = path.read_bytes()
    contents = [whole[:n] for n in (0, 1, 7, 8, 9, 50, len(whole) // 2, len(whole) - 1)]
    contents += [b"garbage" * 99, b"\x80\x04.", whole + b"x", whole[::-1], b"\xff" * 8 + whole]
    contents += [safetensors.torch.save({"a": torch.zeros(2)}),
                 safetensors.torch.save(model.state_dict()),
                 safetensors.torch.save(model.state_dict(), {"facts": "[1"})]  # fmt: skip
    gl.models.save(gl.models.cnn((1, 8, 8), 10), path)
    for content in (path.read_bytes(), *contents):
        path.write_bytes(content)
        with pytest.raises(DamagedError, match=r"net\.safetensors cannot be read.*delete it"):
            gl.models.load(model, path)
    with pytest.raises(FileNotFoundError, match=r"none\.safetensors is not there"):
        gl.models.load(model, tmp_path / "none.safetensors")
    with pytest.raises(DamagedError, match="delete it"):
        gl.models.load(model, tmp_path)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_networks_that_are_not_finite_are_neither_kept_nor_taken(tmp_path, value):
    model, path = gl.models.mlp((1, 8, 8), 10, widths=(4,)), tmp_path / "net.safetensors"
    next(model.parameters()).data[0] = value
    with pytest.raises(ValueError, match=r"not finite.*smaller lr"):
        gl.models.save(model, path)
    assert not path.exists()
    path.write_bytes(safetensors.torch.save(model.state_dict(), {"facts": "{}"}))
    with pytest.raises(DamagedError, match="not finite"):
        gl.models.load(model, path)


def test_what_no_file_holds_is_named(tmp_path):
    model, path = gl.models.mlp((1, 8, 8), 10, (4,)), tmp_path / "m.safetensors"
    with pytest.raises(ValueError, match="or a fact about it"):
        gl.models.save(model, path, fact=torch.ones(1))
    for bad in (None, 3):
        with pytest.raises(ValueError, match="path must be"):
            gl.models.save(model, bad)
        with pytest.raises(ValueError, match="path must be"):
            gl.models.load(model, bad)
    with pytest.raises(ValueError, match="model must be a Module"):
        gl.models.load(None, path)
    for nowhere in (
        tmp_path,
        path / "under",
        tmp_path / "x".ljust(300, "x"),
        "/proc/m.safetensors",
    ):
        path.touch()
        with pytest.raises(OSError, match=r"[Dd]irectory|[Ff]ile|written"):
            gl.models.save(model, nowhere)
    gl.models.save(model, str(path), step=3)
    assert gl.models.load(model, path) == {"step": 3}
    tied = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    gl.models.save(tied, path)
    gl.models.load(tied, path)


@pytest.mark.parametrize("bad", [torch.relu, torch.nn.Threshold, torch.nn.ReLU(), None, lambda: 3])
def test_an_activation_makes_a_module(bad):
    with pytest.raises(ValueError, match="activation must be"):
        gl.models.cnn((1, 8, 8), 10, activation=bad)
