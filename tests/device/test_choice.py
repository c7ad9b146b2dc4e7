import pytest
import torch

import gradleak as gl


def test_a_device_is_named_and_auto_takes_what_there_is(monkeypatch):
    assert gl.device.named("cpu") == torch.device("cpu")
    for present, kind in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda present=present: present)
        assert gl.device.named().type == kind
    with pytest.raises(RuntimeError, match="gpu"):
        gl.device.named("gpu")
