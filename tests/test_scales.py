import torch

from gradleak.scales import per_attack


def test_a_number_for_each_attack_multiplies_its_row():
    like = torch.rand(3, 2, 4, dtype=torch.double)
    scale = torch.tensor([1.0, 10.0, 100.0])
    found = per_attack(scale, like) * like
    torch.testing.assert_close(
        found, torch.stack([s * v for s, v in zip(scale, like, strict=True)])
    )
    assert found.dtype == like.dtype


def test_one_number_stays_as_it_is():
    assert per_attack(0.5, torch.rand(3, 2)) == 0.5
    one = torch.tensor(0.5)
    assert per_attack(one, torch.rand(3, 2)) is one
