import importlib.util
import math

import pytest
import torch

from gradleak.bench import breaching, cases

INSTALLED = importlib.util.find_spec("breaching") is not None


def view(channels=3):
    return cases.released(("cnn", (channels, 32, 32), 1, None), torch.device("cpu"))


@pytest.mark.skipif(INSTALLED, reason="breaching is installed")
def test_without_the_package_there_is_no_number():
    assert math.isnan(breaching.step_seconds(view(), 3))


@pytest.mark.skipif(not INSTALLED, reason="breaching is not installed: pip install breaching")
@pytest.mark.filterwarnings("ignore")  # its own
def test_a_step_of_it_takes_time():
    assert breaching.step_seconds(view(), 20) > 0
    assert math.isnan(breaching.step_seconds(view(1), 20))
