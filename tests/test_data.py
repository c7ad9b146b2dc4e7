import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from stored import load_or_skip

import gradleak as gl


@pytest.mark.parametrize(
    ("name", "split", "count", "shape"),
    [
        ("digits", "train", 1297, (1, 8, 8)),
        ("digits", "test", 500, (1, 8, 8)),
        ("mnist", "train", 60_000, (1, 28, 28)),
        ("mnist", "test", 10_000, (1, 28, 28)),
        ("cifar10", "test", 10_000, (3, 32, 32)),
    ],
)
def test_images_are_in_the_box_and_labelled(name, split, count, shape):
    images = load_or_skip(name, split)
    assert (len(images), images.shape) == (count, shape)
    assert (images.x.min(), images.x.max()) == (0, 1)
    assert images.y.unique().tolist() == list(range(10))
    assert images.classes == 10


def test_first_mnist_digit_is_a_seven():
    images = load_or_skip("mnist", "test")
    x, y = gl.data.batch("mnist", [0])
    assert torch.equal(x, images.x[:1])
    assert y.item() == 7


def test_taking_keeps_the_index_in_the_split():
    part = gl.data.load("digits").take([5, 3]).take([1])
    assert part.index == (3,)
    x, y = gl.data.batch("digits", [3])
    assert torch.equal(part.x, x)
    assert torch.equal(part.y, y)


def test_splits_share_no_image():
    train, test = (gl.data.load("digits", s).x.flatten(1) for s in ("train", "test"))
    assert torch.cdist(test, train).min() > 0


def test_a_missing_dataset_says_where_it_was_looked_for_and_what_to_set(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADLEAK_DATA", str(tmp_path / "nowhere"))

    monkeypatch.setattr("torchvision.datasets.MNIST.download", offline)
    with pytest.raises(FileNotFoundError, match=r"nowhere.*GRADLEAK_DATA.*digits"):
        gl.data.load("mnist")


def offline(*_):
    raise RuntimeError("no network")


def test_the_home_folder_is_meant_by_its_sign(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for said, meant in (("~/data", tmp_path / "data"), ("~", tmp_path), ("a/~", Path("a/~"))):
        monkeypatch.setenv("GRADLEAK_DATA", said)
        assert gl.data.root() == meant


@pytest.mark.parametrize("content", [b"", b"garbage", b"x" * 5000, b"\0\0\x08\x03" + b"\0" * 9])
@pytest.mark.parametrize("name", ["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_damaged_data_are_named_with_the_cure(tmp_path, monkeypatch, name, content):
    monkeypatch.setenv("GRADLEAK_DATA", str(tmp_path))
    monkeypatch.setattr("torchvision.datasets.MNIST._check_exists", lambda _: True)
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for kind, dims in (("images-idx3", (2, 28, 28)), ("labels-idx1", (2,))):
        head = bytes([0, 0, 8, len(dims)]) + b"".join(n.to_bytes(4, "big") for n in dims)
        (raw / f"t10k-{kind}-ubyte").write_bytes(head + b"\1" * math.prod(dims))
    assert gl.data.load("mnist").y.tolist() == [1, 1]
    gl.data._load.cache_clear()
    (raw / name).write_bytes(content)
    with pytest.raises(FileNotFoundError, match=f"mnist cannot be read in {tmp_path}.*delete"):
        gl.data.load("mnist")


@given(st.lists(st.one_of(st.integers(-9, 9), st.floats(), st.booleans(), st.text(), st.none())))
def test_images_are_taken_by_whole_numbers_in_the_split_and_nothing_else(index):
    part = gl.data.load("digits").take(range(5))
    if all(type(i) is int and 0 <= i < 5 for i in index):
        found = part.take(index)
        assert found.index == tuple(index)
        assert torch.equal(found.x, part.x[torch.tensor(index, dtype=torch.long)])
    else:
        with pytest.raises((ValueError, IndexError), match=r"positions|has images 0 to 4"):
            part.take(index)


def test_positions_may_come_from_numpy_and_pytorch():
    part = gl.data.load("digits").take(range(5))
    for index in (np.array([3, 1]), torch.tensor([3, 1]), [np.int64(3), torch.tensor(1)], (3, 1)):
        assert part.take(index).index == (3, 1)
    for index in (range(10**15), range(-(10**15), 3), range(4, -2, -1)):
        with pytest.raises(IndexError, match="has images 0 to 4"):
            part.take(index)
    masks = np.array([True] * 5), torch.tensor([True] * 5)
    for index in (3, None, torch.tensor(3), np.array(3), [[1]], np.zeros((2, 2), int), *masks):
        with pytest.raises(ValueError, match="positions"):
            part.take(index)


def test_every_image_has_a_label_and_an_index():
    digits = gl.data.load("digits").take(range(3))
    for wrong in ({"x": digits.x[:2]}, {"y": digits.y[:2]}, {"index": (0, 1)}):
        with pytest.raises(ValueError, match="give each image a label and an index"):
            replace(digits, **wrong)


def test_unknown_names_are_refused_with_the_near_miss():
    with pytest.raises(ValueError, match="did you mean 'cifar10'"):
        gl.data.load("cifar")
    with pytest.raises(ValueError, match="unknown split 'tset'; did you mean 'test'"):
        gl.data.load("digits", "tset")
    with pytest.raises(IndexError, match="has images 0 to 499"):
        gl.data.batch("digits", [500])


def test_photographs_are_patches_of_the_asked_shape():
    grey, colour = (gl.data.photographs((c, 8, 8), 40, seed=3) for c in (1, 3))
    assert grey.shape == (1, 8, 8)
    torch.testing.assert_close(grey.x, colour.x.mean(1, keepdim=True))
    assert 0 <= colour.x.min() < 0.2 < 0.8 < colour.x.max() <= 1
    again = gl.data.photographs((3, 8, 8), 20, seed=3)
    assert torch.equal(again.x, colour.x[:20])
    assert len(colour.x.unique(dim=0)) == 40


def test_a_source_tells_which_images_are_shared():
    train, test = gl.data.load("digits", "train"), gl.data.load("digits")
    known = train.take([3, 5, 9]).source
    assert known.shared(train.take([9, 4, 3])) == [3, 9]
    assert known.shared(test.take([3, 5])) == []


def test_every_image_has_a_digest_of_its_own():
    digits = gl.data.load("digits").take(range(50))
    assert len(set(digits.digests)) == 50
    assert digits.take([7, 3]).digests == (digits.digests[7], digits.digests[3])
    unasked = gl.data.load("digits").take(range(50)).take([7, 3])
    assert unasked.digests == digits.take([7, 3]).digests
    named = replace(digits, name="mine", split="train", index=tuple(range(100, 150)))
    assert named.digests == digits.digests


def test_no_images_have_no_digests():
    assert gl.data.load("digits").take([]).digests == ()


def test_a_changed_image_has_another_digest():
    digits = gl.data.load("digits").take(range(5))
    before = digits.digests
    for change in (lambda d: d.x[2, 0, 4, 4].add_(1e-6), lambda d: d.y[2].add_(1)):
        part = gl.data.load("digits").take(range(5))
        assert part.digests == before
        change(part)  # in place
        assert [a == b for a, b in zip(part.digests, before, strict=True)] == [1, 1, 0, 1, 1]
    assert not set(replace(digits, x=digits.x.double()).digests) & set(before)
    assert not set(replace(digits, x=digits.x.view(5, 1, 4, 16)).digests) & set(before)


def test_what_one_writes_into_images_is_not_anothers():
    before = gl.data.batch("digits", [3])[0]
    gl.data.load("digits").x.mul_(0.5)
    assert torch.equal(gl.data.batch("digits", [3])[0], before)
    gl.data.load("digits").x[3].zero_()
    assert torch.equal(gl.data.batch("digits", [3])[0], before)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_images_are_loaded_in_every_mode(mode):
    gl.data._load.cache_clear()
    with mode():
        first = gl.data.batch("digits", [3])[0]
        gl.data.load("digits").x.zero_()
    assert torch.equal(gl.data.batch("digits", [3])[0], first)
    assert first.any()


@pytest.mark.parametrize(
    "changes",
    [
        {"x": [[1.0]]}, {"x": np.ones((1, 1, 2, 2))}, {"y": [0]}, {"index": torch.tensor(0)},
        {"x": torch.rand(1, 1, 2, 2, requires_grad=True)}, {"x": torch.rand(1, 4).to_sparse()},
        {"index": (0.5,)}, {"index": ("a",)}, {"index": None}, {"x": torch.tensor(1.0)},
        {"y": torch.tensor(0)}, {"x": torch.rand(1, 1, 2, 2, device="meta")}, {"name": None},
        {"split": 3}, {"classes": None}, {"classes": "2"}, {"classes": 0}, {"classes": True},
    ],
)  # fmt: skip
def test_images_that_are_none_are_refused(changes):
    given = {"name": "mine", "split": "test", "x": torch.rand(1, 1, 2, 2), "y": torch.tensor([0]),
             "index": (0,), "classes": 2} | changes  # fmt: skip
    with pytest.raises(ValueError, match=r"must be|positions"):
        gl.data.Images(**given)


def test_indices_become_a_tuple():
    for index in ([0, 1], np.arange(2), torch.arange(2), range(2)):
        images = gl.data.Images("mine", "test", torch.rand(2, 3), torch.zeros(2), index, 2)
        assert images.index == (0, 1)


@pytest.mark.parametrize(
    ("shape", "count"),
    [((2, 8, 8), 1), ((3, 8), 1), ((3, 9999, 8), 1), (8, 1), ((3, 8, 8), 0), ((3, 8, 8), 1.5),
     ((3, 8, -1), 1), (None, 1)],
)  # fmt: skip
def test_photographs_have_a_size_and_a_number(shape, count):
    with pytest.raises(ValueError, match=r"(shape|count) must be"):
        gl.data.photographs(shape, count)


def test_a_home_of_nobody_is_named(monkeypatch):
    monkeypatch.setenv("GRADLEAK_DATA", "~nobody-of-this-name/x")
    with pytest.raises(FileNotFoundError, match="GRADLEAK_DATA is ~nobody"):
        gl.data.load("digits")
