from dataclasses import replace

import pytest
import torch
from scipy.stats import multivariate_normal

import gradleak as gl
from gradleak.priors.gaussians import GaussianMixture, Mixture


def test_the_density_is_the_sum_of_its_parts():
    rng = torch.Generator().manual_seed(0)
    a = torch.randn(3, 9, 9, generator=rng, dtype=torch.double)
    covariances = a @ a.mT / 9 + 0.1 * torch.eye(9).double()
    means, chances = torch.rand(3, 9, generator=rng).double(), torch.tensor([0.2, 0.3, 0.5])
    roots = torch.linalg.cholesky(covariances)
    prior = GaussianMixture(Mixture(chances.double(), means, roots), "toy", weight=0.5)
    x = torch.rand(5, 1, 3, 3, dtype=torch.double)
    parts = zip(chances.tolist(), means.numpy(), covariances.numpy(), strict=True)
    flat = x.flatten(1).numpy()
    density = sum(c * multivariate_normal(m, cov).pdf(flat) for c, m, cov in parts)
    torch.testing.assert_close(prior.log_prob(x), 0.5 * torch.from_numpy(density).log())
    pairs = torch.rand(2, 4, 1, 3, 3, dtype=torch.double)
    each = prior.log_prob(pairs.flatten(0, 1)).view(2, 4)
    torch.testing.assert_close(prior.log_prob(pairs), each.sum(1))


def test_a_fit_prefers_images_to_noise():
    train, test = gl.data.load("digits", "train"), gl.data.load("digits").x
    prior = GaussianMixture.fit(train, 5)
    shuffled = test.flatten(1)[:, torch.randperm(64)].view_as(test)
    assert (prior.log_prob(test[:100]) > prior.log_prob(shuffled[:100])).float().mean() > 0.98
    assert prior.log_prob(test).mean() > prior.log_prob(torch.rand_like(test)).mean()
    with pytest.raises(ValueError, match="fitted to images of 64 pixels, these have 784"):
        prior.log_prob(torch.rand(1, 1, 28, 28))


def test_attacks_climb_it_and_images_it_was_fitted_to_are_refused(tmp_path):
    train, test = gl.data.load("digits", "train"), gl.data.load("digits")
    client = gl.Client(gl.models.mlp((1, 8, 8), 10), gl.GaussianNoise(0.3))
    mixture = GaussianMixture.fit(train.take(range(100, 1200)), 5)
    climb = gl.Adam(steps=80, lr=0.05, decay=0.97)

    def trial(weight, images):
        prior = gl.Sum((replace(mixture, weight=weight), gl.Box()))
        return gl.Trial(client, gl.bayes(client, prior, optimizer=climb), images, {"w": weight})

    rows = gl.experiment.run(
        [trial(w, test.take(range(8))) for w in (1e-3, 1.0)], gl.experiment.Records(tmp_path, "a")
    )
    psnr = rows.groupby("w").psnr.mean()
    assert psnr[1.0] > psnr[1e-3] + 1.5
    trial(1.0, train.take([3, 99]))
    with pytest.raises(ValueError, match=r"images \[100, 101\] of digits \(train\) are attacked"):
        trial(1.0, train.take([99, 100, 101]))


@pytest.mark.parametrize("seed", [2**32, 10**400])
def test_seeds_that_scikit_learn_does_not_take_are_refused(seed):
    few = gl.data.load("digits").take(range(20))
    with pytest.raises(ValueError, match=r"seed must be a number in .*scikit-learn"):
        gl.GaussianMixture.fit(few, 1, seed=seed)
