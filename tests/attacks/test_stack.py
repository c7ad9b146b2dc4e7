from dataclasses import dataclass

import pytest
import torch

from gradleak.attacks.stack import merge, mergeable


@dataclass(frozen=True)
class Inner:
    weight: float | torch.Tensor
    power: int = 1


@dataclass(frozen=True)
class Outer:
    parts: tuple[Inner, ...]
    scale: float | torch.Tensor = 1.0


Inner.__module__ = Outer.__module__ = "gradleak.toy"  # only the package's own are merged


# The rows of two settings of two and three clients.
ROWS = [(0, 0, 0), (0, 1, 0), (1, 0, 0), (1, 1, 0), (1, 2, 0)], (2, 3)
LIKE = torch.zeros(1, dtype=torch.double)


def test_equal_settings_stay_numbers():
    a = Outer((Inner(1.0), Inner(2.0)))
    assert merge([a, Outer((Inner(1.0), Inner(2.0)))], *ROWS, LIKE) is a


def test_numbers_that_differ_become_one_for_each_attack():
    merged = merge([Outer((Inner(1.0),)), Outer((Inner(3.0),))], *ROWS, LIKE)
    assert merged.parts[0].weight.tolist() == [1, 1, 3, 3, 3]
    assert merged.parts[0].weight.dtype == torch.double
    assert merged.scale == 1.0
    assert merged.parts[0].power == 1


def test_tensors_hold_one_for_each_client():
    settings = [Outer((), torch.tensor([5.0, 6.0])), Outer((), 1.0)]
    assert merge(settings, *ROWS, LIKE).scale.tolist() == [5, 6, 1, 1, 1]
    with pytest.raises(ValueError, match="2 values for 3 clients"):
        merge([Outer((), torch.tensor([5.0, 6.0]))] * 2, *ROWS, LIKE)


@pytest.mark.parametrize(
    "other",
    [Outer((Inner(1.0, power=2),)), Outer(()), Inner(1.0), Outer((Outer(()),))],
)
def test_whatever_else_differs_is_refused(other):
    settings = [Outer((Inner(1.0),)), other]
    assert not mergeable(settings)
    with pytest.raises(ValueError, match="differ in floats only"):
        merge(settings, *ROWS, LIKE)


def test_classes_of_ones_own_are_not_merged():
    """They need not know of a number for each attack."""

    @dataclass(frozen=True)
    class Own:
        limit: float

    assert not mergeable([Own(0.1), Own(0.2)])
    assert mergeable([Own(0.1), Own(0.1)])
