import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from gradleak.defenses import ats_operations
from gradleak.defenses.ats_operations import OPERATIONS, Operation, apply

ENHANCE = {
    "color": ImageEnhance.Color,
    "contrast": ImageEnhance.Contrast,
    "sharpness": ImageEnhance.Sharpness,
    "brightness": ImageEnhance.Brightness,
}


def pillow(name, m, image):
    """The oracle: the same operation by Pillow."""
    side = image.size[0]
    affine = {
        "shear_x": (1, m, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, m, 1, 0),
        "translate_x": (1, 0, m * side, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, m * side),
    }
    if name in affine:
        return image.transform(image.size, Image.Transform.AFFINE, affine[name])
    if name in ENHANCE:
        return ENHANCE[name](image).enhance(1 + m)
    if name == "rotate":
        return image.rotate(m, fillcolor=(128,) * 3)
    if name == "posterize":
        return ImageOps.posterize(image, int(m))
    if name == "solarize":
        return ImageOps.solarize(image, m)
    return getattr(ImageOps, name)(image)


def pictures(n, seed=0):
    """Smooth colour images with 8 bits, (n, 3, 32, 32)."""
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3, 6, 6, generator=rng)
    fine = torch.nn.functional.interpolate(coarse, size=32, mode="bilinear")
    return (255 * (0.9 * fine + 0.1 * torch.rand(n, 3, 32, 32, generator=rng))).byte()


@pytest.mark.parametrize("index", range(50))
def test_operations_are_those_of_pillow(index):
    """On uint8, in a batch, up to one level of 255; with both signs."""
    x = pictures(3)
    rng = torch.Generator().manual_seed(index)
    for name, magnitude in {OPERATIONS[index].drawn(rng) for _ in range(8)}:
        done = apply(name, magnitude, x)
        assert (done.dtype, done.shape) == (x.dtype, x.shape)
        for one, before in zip(done, x, strict=True):
            image = Image.fromarray(before.permute(1, 2, 0).numpy())
            expected = np.asarray(pillow(name, magnitude, image)).astype(int)
            found = one.permute(1, 2, 0).numpy().astype(int)
            differ = (np.abs(found - expected) > 1).mean()
            # A shear by 1/15 meets the border between two pixels, where rounding takes either.
            assert differ <= (0.04 if (name, index) == ("shear_y", 6) else 0), (name, magnitude)


@pytest.mark.parametrize("name", ats_operations.KINDS)
@pytest.mark.parametrize("level", [0, 3, 9])
def test_so_are_those_that_the_published_table_leaves_out_at_other_levels(name, level):
    x, magnitude = pictures(1, seed=level), Operation(name, level).magnitude
    done = apply(name, magnitude, x)[0].permute(1, 2, 0).numpy().astype(int)
    image = Image.fromarray(x[0].permute(1, 2, 0).numpy())
    apart = np.abs(done - np.asarray(pillow(name, magnitude, image)).astype(int)) > 1
    assert apart.mean() <= (0.04 if name.startswith("shear") else 0)


@pytest.mark.parametrize(
    "name", [n for n in ats_operations.KINDS if n not in ("autocontrast", "equalize", "invert")]
)
def test_the_lowest_level_leaves_an_image_as_it_is(name):
    x = pictures(1)
    assert (apply(name, Operation(name, 0).magnitude, x).int() - x.int()).abs().max() <= 1


SMOOTH = [n for n in ats_operations.KINDS if n not in ("posterize", "equalize", "autocontrast")]


@pytest.mark.parametrize("name", SMOOTH)
def test_floating_point_images_give_the_same_up_to_rounding(name):
    x = pictures(2)
    magnitude = Operation(name, 4).magnitude
    found = apply(name, magnitude, (x / 255).double())
    expected = apply(name, magnitude, x).double() / 255
    assert (found - expected).abs().max() <= 1.5 / 255


@pytest.mark.parametrize("name", [n for n in SMOOTH if n != "solarize"])
def test_smooth_operations_have_a_derivative(name):
    x = 0.2 + 0.6 * torch.rand(1, 3, 6, 6, dtype=torch.double)
    magnitude = Operation(name, 3).magnitude
    assert torch.autograd.gradcheck(lambda x: apply(name, magnitude, x), x.requires_grad_())


def test_the_table_is_the_published_one():
    assert len(OPERATIONS) == 50
    assert OPERATIONS[21] == Operation("translate_x", 5)
    assert OPERATIONS[13].magnitude == pytest.approx(0.2778, abs=1e-4)  # brightness +-.28
    assert 32 * OPERATIONS[3].magnitude == pytest.approx(14.5, abs=0.01)  # pixels
    assert 32 * OPERATIONS[7].magnitude == pytest.approx(3.22, abs=0.01)
    assert OPERATIONS[11].magnitude == 6  # bits
    assert OPERATIONS[28].magnitude == 256
    levels = [Operation("rotate", k).magnitude for k in range(10)]
    np.testing.assert_allclose(levels, np.linspace(0, 30, 10))


def test_bad_operations_are_told():
    with pytest.raises(ValueError, match="unknown operation 'zoom'"):
        Operation("zoom", 1)
    for level in (-1, 10, 2.5):
        with pytest.raises(ValueError, match="level"):
            Operation("rotate", level)
    with pytest.raises(ValueError, match="needs colour images, these have 1"):
        apply("color", 0.2, torch.rand(1, 8, 8))
