import pytest

import gradleak as gl


def test_the_near_miss_is_named():
    assert gl.names.choose("defense", "laplace", ["gaussian", "laplace"]) == "laplace"
    with pytest.raises(ValueError, match="unknown defense 'laplac'; did you mean 'laplace'"):
        gl.names.choose("defense", "laplac", ["gaussian", "laplace"])
    with pytest.raises(ValueError, match=r"unknown defense 'xyz' \(one of: gaussian\)"):
        gl.names.choose("defense", "xyz", ["gaussian"])
