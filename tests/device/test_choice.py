import pytest
import torch

import gradleak as gl


def test_a_device_is_named_and_auto_takes_what_there_is(monkeypatch):
    assert gl.device.named("cpu") == torch.device("cpu")
    for present, kind in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda present=present: present)
        assert gl.device.named().type == kind


@pytest.mark.parametrize("name", ["gpu", "", "cuda:x", "a" * 5000])
def test_other_names_are_refused_with_those_that_do(name):
    with pytest.raises(ValueError, match="take auto, cpu or cuda"):
        gl.device.named(name)


@pytest.mark.parametrize("name", [None, 0, b"cpu"])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(ValueError, match="device must be a str"):
        gl.device.named(name)
