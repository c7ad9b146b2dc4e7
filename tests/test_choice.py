import pytest

import gradleak as gl


def test_the_near_miss_is_named():
    assert gl.choose("defense", "laplace", ["gaussian", "laplace"]) == "laplace"
    with pytest.raises(ValueError, match="unknown defense 'laplac'; did you mean 'laplace'"):
        gl.choose("defense", "laplac", ["gaussian", "laplace"])
    with pytest.raises(ValueError, match=r"unknown defense 'xyz' \(one of: gaussian\)"):
        gl.choose("defense", "xyz", ["gaussian"])


def test_what_is_given_replaces_what_the_profile_says():
    profiles = {"smoke": {"images": 8, "dataset": "digits"}}
    size = gl.profile("smoke", profiles, images=0, dataset="mnist")
    assert (size.images, size.dataset) == (8, "mnist")
    with pytest.raises(ValueError, match="did you mean 'smoke'"):
        gl.profile("smok", profiles)
