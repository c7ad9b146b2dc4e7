import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from gradleak.gradients.reading import WRAPPERS, read


def model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3)
    ).eval()


def values(net=None):
    return {k: torch.randn(p.shape) for k, p in (net or model()).named_parameters()}


def same(found, expected):
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[k].float(), expected[k]) for k in expected)


FORMS = {
    "dict": lambda g: g,
    "arrays": lambda g: {k: v.numpy() for k, v in g.items()},
    "read-only arrays": lambda g: {k: np.frombuffer(v.numpy().tobytes(), "f4")
                                   .reshape(v.shape) for k, v in g.items()},
    "big-endian arrays": lambda g: {k: v.numpy().astype(">f4") for k, v in g.items()},
    "views from behind": lambda g: {k: v.numpy()[::-1].copy()[::-1] for k, v in g.items()},
    "nested lists": lambda g: {k: v.tolist() for k, v in g.items()},
    "sparse": lambda g: {k: v.to_sparse() for k, v in g.items()},
    "with a graph": lambda g: {k: v.requires_grad_() * 1 for k, v in g.items()},
    "list": lambda g: list(g.values()),
    "tuple of arrays": lambda g: tuple(v.numpy() for v in g.values()),
    "values": lambda g: g.values(),
    "generator": lambda g: (v for v in g.values()),
    "none beside": lambda g: {**g, "1.running_mean": None, "other": None},
    "buffers beside": lambda g: {**g, "1.running_mean": torch.ones(2), "1.num_batches_tracked": 3},
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same(form):
    g = values()
    expected = {k: v.clone() for k, v in g.items()}
    same(read("gradient", FORMS[form](g), model()), expected)


def test_files(tmp_path):
    g, net = values(), model()
    arrays = {k: v.numpy() for k, v in g.items()}
    save_file(g, tmp_path / "a.safetensors")
    np.savez(tmp_path / "named.npz", **arrays)
    np.savez_compressed(tmp_path / "ordered.NPZ", *arrays.values())
    (tmp_path / "ordered.NPZ.npz").rename(tmp_path / "ordered.NPZ")
    for name in ("a.safetensors", "named.npz", "ordered.NPZ"):
        same(read("gradient", tmp_path / name, net), g)
        same(read("gradient", str(tmp_path / name), net), g)


def test_more_than_ten_arrays_keep_their_order(tmp_path):
    net = nn.Sequential(*(nn.Linear(1, 1) for _ in range(7)))
    g = values(net)
    np.savez(tmp_path / "g.npz", *(v.numpy() for v in g.values()))
    same(read("gradient", tmp_path / "g.npz", net), g)


@given(st.data())
def test_wrappers_do_not_count_wherever_they_are(data):
    """On the side of the gradient and on that of the model."""
    net, g = model(), values()
    wrapped = {}
    for name, value in g.items():
        parts = name.split(".")
        for _ in range(data.draw(st.integers(0, 3))):
            place = data.draw(st.integers(0, len(parts) - 1))
            parts.insert(place, data.draw(st.sampled_from(sorted(WRAPPERS))))
        wrapped[".".join(parts)] = value
    same(read("gradient", wrapped, net), g)


def test_a_wrapped_model_takes_plain_names():
    class Wrapped(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.module = net

    g = values()
    found = read("gradient", g, Wrapped(model()))
    same(found, {f"module.{k}": v for k, v in g.items()})


def test_lists_are_told_by_their_length():
    net = model()
    net[0].requires_grad_(False)
    trainable = {k: torch.randn(p.shape) for k, p in net.named_parameters() if p.requires_grad}
    same(read("gradient", list(trainable.values()), net), trainable)
    every = values(net)
    same(read("gradient", list(every.values()), net), every)
    state = {k: torch.randn(v.shape) for k, v in net.state_dict().items()}
    same(read("gradient", list(state.values()), net), {k: state[k] for k in every})


def test_tied_weights_are_one_parameter():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    g = {k: torch.randn(v.shape) for k, v in net.named_parameters()}
    same(read("weights", {**g, "1.weight": g["0.weight"]}, net), g)
    with pytest.raises(ValueError, match=r"gives '0.weight' twice, and not alike"):
        read("weights", {**g, "1.weight": g["0.weight"] + 1}, net)


BAD = {
    "a flat vector": (lambda g: torch.cat([v.flatten() for v in g.values()]), "torch.split"),
    "a number": (lambda g: 3.0, "must be a dict"),
    "nothing": (lambda g: None, "must be a dict"),
    "a set": (lambda g: set(g.values()), "must be a dict"),
    "a short list": (lambda g: list(g.values())[1:], "list of 5, the model has 6"),
    "an empty list": (lambda g: [], "list of 0"),
    "a list of clients": (lambda g: [g, g], "torch.stack"),
    "a list of pairs": (lambda g: list(g.items()), r"dict\(pairs\)"),
    "a near miss": (lambda g: {**g, "3.wieght": g["3.weight"]}, "did you mean '3.weight'"),
    "another framework's name": (lambda g: {"conv/kernel:0": g["0.weight"]}, "the parameters are"),
    "keys that are no names": (lambda g: {0: g["0.weight"]}, "the parameters are"),
    "a nested dict": (lambda g: {**g, "0.weight": {"a": 1}}, "'0.weight' of the gradient is no"),
    "complex": (lambda g: {**g, "0.bias": g["0.bias"] * 1j}, "'0.bias' of the gradient is no"),
    "complex array": (lambda g: {**g, "0.bias": np.ones(2) * 1j}, "'0.bias' of the gradient is no"),
    "a mask": (lambda g: {**g, "0.bias": g["0.bias"] > 0}, "'0.bias' of the gradient is no"),
    "words": (lambda g: {**g, "0.bias": ["a", "b"]}, "'0.bias' of the gradient is no"),
    "ragged": (lambda g: {**g, "0.bias": [[1.0], [1.0, 2.0]]}, "'0.bias' of the gradient is no"),
    "without data": (lambda g: {**g, "0.bias": g["0.bias"].to("meta")}, "is no tensor"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_what_is_no_gradient_is_refused(what):
    make, cure = BAD[what]
    with pytest.raises(ValueError, match=cure):
        read("gradient", make(values()), model())


def test_both_a_name_and_its_wrapped_form():
    g = values()
    with pytest.raises(ValueError, match="twice"):
        read("gradient", {**g, "module.0.bias": g["0.bias"] + 1}, model())


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
@given(content=st.binary(max_size=200), cut=st.floats(0, 0.99), whole=st.booleans())
def test_damaged_files_are_named(tmp_path_factory, suffix, content, cut, whole):
    """Cut anywhere, or of anything."""
    path = tmp_path_factory.mktemp("damaged") / f"g.{suffix}"
    if whole:
        np.savez(path, **values()) if suffix == "npz" else save_file(values(), path)
        content = path.read_bytes()
        content = content[: int(len(content) * cut)]
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"g.{suffix} is damaged or no .{suffix} file") as found:
        read("gradient", path, model())
    assert "pickle" not in str(found.value)


def test_other_files_are_refused(tmp_path):
    net = model()
    with pytest.raises(FileNotFoundError, match=r"there is no file .*none.npz"):
        read("gradient", tmp_path / "none.npz", net)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read("gradient", tmp_path, net)
    torch.save(values(), tmp_path / "g.pt")
    with pytest.raises(ValueError, match=r"nothing is unpickled here.*save_file"):
        read("gradient", tmp_path / "g.pt", net)
    np.savez(tmp_path / "objects.npz", **{"0.bias": np.array([{}, 1], dtype=object)})
    with pytest.raises(ValueError, match=r"objects.npz is damaged or no .npz file of plain arrays"):
        read("gradient", tmp_path / "objects.npz", net)
    with (tmp_path / "array.npz").open("wb") as file:
        np.save(file, np.ones(3))
    with pytest.raises(ValueError, match=r"array.npz is damaged"):
        read("gradient", tmp_path / "array.npz", net)


ODD = {
    "masked": lambda v: np.ma.masked_array(v.numpy(), v.numpy() > 0),
    "masked rows": lambda v: [np.ma.masked_array(row.numpy()) for row in v],
    "quantised": lambda v: torch.quantize_per_tensor(v, 0.1, 0, torch.qint8),
    "meta": lambda v: v.to("meta"),
    "8 bits": lambda v: v.to(torch.float8_e4m3fn),
    "nested": lambda v: torch.nested.nested_tensor([v]),
}


@pytest.mark.filterwarnings("ignore")  # PyTorch's own, of prototypes
@pytest.mark.parametrize("form", ODD)
def test_tensors_that_hold_no_plain_numbers_are_refused(form):
    g = values()
    with pytest.raises(ValueError, match=r"'3.weight' of the gradient is no tensor or array"):
        read("gradient", {**g, "3.weight": ODD[form](g["3.weight"])}, model())


@pytest.mark.parametrize("path", ["a" * 5000, "a" * 5000 + ".npz", "~nobody-here/x.npz", "a\0.npz"])
def test_paths_that_no_system_has_are_not_there(path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*give a path that exists"):
        read("gradient", path, model())
