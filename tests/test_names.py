import pytest

import gradleak as gl


def test_the_near_miss_is_named():
    assert gl.names.choose("defense", "laplace", ["gaussian", "laplace"]) == "laplace"
    with pytest.raises(ValueError, match="unknown defense 'laplac'; did you mean 'laplace'"):
        gl.names.choose("defense", "laplac", ["gaussian", "laplace"])
    with pytest.raises(ValueError, match=r"unknown defense 'xyz' \(one of: gaussian\)"):
        gl.names.choose("defense", "xyz", ["gaussian"])


def test_what_is_given_replaces_what_the_profile_says():
    profiles = {"smoke": {"images": 8, "dataset": "digits"}}
    size = gl.experiment.profile("smoke", profiles, images=0, dataset="mnist")
    assert (size.images, size.dataset) == (8, "mnist")
    with pytest.raises(ValueError, match="did you mean 'smoke'"):
        gl.experiment.profile("smok", profiles)


def test_of_few_images_no_more_are_shown():
    profiles = {"smoke": {"images": 8, "shown": 4, "swept": 6}}
    few, many = (gl.experiment.profile("smoke", profiles, images=n) for n in (5, 20))
    assert (few.shown, few.swept) == (4, 5)
    assert (many.shown, many.swept) == (4, 6)
    with pytest.raises(ValueError, match="images must not be negative, got -1"):
        gl.experiment.profile("smoke", profiles, images=-1)
