"""Random numbers belong to their key."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from gradleak import randomness
from gradleak.randomness import generator, seeded

KEY = st.lists(st.integers(0, 1000), min_size=1, max_size=4)


@given(one=KEY, other=KEY)
def test_equal_keys_give_equal_numbers_and_others_others(one, other):
    a, b = (torch.rand(4, generator=generator(*key)) for key in (one, other))
    # a seed sequence takes trailing zeros for nothing said
    same = one + [0] * (4 - len(one)) == other + [0] * (4 - len(other))
    assert torch.equal(a, b) == same


@given(key=KEY)
def test_inside_modules_follow_the_key_and_outside_nothing_is_touched(key):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    with seeded(*key):
        inside = torch.rand(2)
    assert torch.equal(torch.rand(3), expected)
    with seeded(*key):
        assert torch.equal(torch.rand(2), inside)


def test_each_purpose_has_a_number_of_its_own():
    purposes = [v for name, v in vars(randomness).items() if name.isupper()]
    assert len(purposes) > 10
    assert len(set(purposes)) == len(purposes)
