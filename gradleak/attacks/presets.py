"""The attacks of the literature: each is a belief and a prior, and no code of its own.

The Bayes-optimal adversary believes the true client; every older attack is the same maximisation
under another belief (paper, Table 1).
"""

from dataclasses import replace

from gradleak.attacks.adam import Adam
from gradleak.attacks.adversary import Adversary
from gradleak.client import Client
from gradleak.defenses import Direction, GaussianNoise, LaplaceNoise, Uninformative
from gradleak.priors import IMAGES, Flat, Prior
from gradleak.scales import Scale


def bayes(client: Client, prior: Prior, **options) -> Adversary:
    """The Bayes-optimal adversary: it believes the true client (paper, section 4)."""
    return Adversary(client, prior, **options)


def dlg(client: Client, prior: Prior = Flat(), scale: Scale = 1.0, **options) -> Adversary:
    """L2 matching: believes Gaussian noise (Zhu et al. 2019: with a flat prior)."""
    return Adversary(replace(client, defense=GaussianNoise(scale)), prior, **options)


def l1(client: Client, prior: Prior = Flat(), scale: Scale = 1.0, **options) -> Adversary:
    """L1 matching: believes Laplace noise."""
    return Adversary(replace(client, defense=LaplaceNoise(scale)), prior, **options)


def inverting_gradients(
    client: Client,
    prior: Prior = IMAGES,
    concentration: Scale = 1.0,
    **options,
) -> Adversary:
    """Cosine matching: believes that only the direction tells anything (Geiping et al. 2020).

    As published it climbs with signed Adam, lr 0.1, falling tenfold after 3/8, 5/8 and 7/8. The
    default prior is one of images in [0, 1], total variation and a box; the attack raises
    ValueError for examples of another shape, which want a prior of their own.
    """
    options.setdefault("optimizer", Adam(signed=True, lr=0.1, drops=(3 / 8, 5 / 8, 7 / 8)))
    return Adversary(replace(client, defense=Direction(concentration)), prior, **options)


def prior_only(client: Client, prior: Prior, **options) -> Adversary:
    """The control that never looks at g: what the prior alone makes up."""
    return Adversary(replace(client, defense=Uninformative()), prior, **options)
