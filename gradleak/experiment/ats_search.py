"""The search for ATS policies: how private, how learnable (Gao et al. 2021, sections 4.2 and 4.3).

Both scores need gradients only, and no training of a network for each policy.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from gradleak.data import Images
from gradleak.defenses import ATS, OPERATIONS
from gradleak.experiment.records import Records
from gradleak.experiment.runs import measured
from gradleak.gradients import gradient
from gradleak.identity import digest
from gradleak.randomness import SEARCH, generator

MIXES = 20  # steps from noise to the transformed image
RIDGE = 1e-5  # added to the eigenvalues, as published


def candidates(count: int, seed: int = 0, channels: int = 3) -> list[str]:
    """Random policies of one to three operations, each different.

    Each of three places draws one of the fifty operations or nothing, as published; a policy of
    nothing is drawn again. Grey images get no operation on colour.
    """
    rng, found = generator(SEARCH, seed), {}
    allowed = [i for i, o in enumerate(OPERATIONS) if o.name != "color" or channels == 3]
    while len(found) < count:
        places = torch.randint(-1, len(allowed), (3,), generator=rng).tolist()
        found["-".join(str(allowed[place]) for place in places if place >= 0)] = True
        found.pop("", None)
    return list(found)


def privacy_score(model: nn.Module, policy: str, images: Images, seed: int = 0) -> float:
    """How alike gradients of T(x) and of images on the way to it are; lower is more private.

    The area under the mean cosine of the parameters' gradients, as an image goes from noise to
    T(x), averaged over the images. At most 1.
    """
    x = _transformed(policy, images, seed)
    device = next(model.parameters()).device
    share = torch.linspace(0, 1, MIXES + 1).view(-1, 1, 1, 1)
    noise = torch.rand(images.shape, dtype=torch.float32, generator=generator(SEARCH, seed, 1))
    areas = []
    for one, y in zip(x, images.y, strict=True):
        mixes = (share * one + (1 - share) * noise).to(device).unsqueeze(1)
        g = gradient(model, mixes, y.to(device).expand(len(mixes), 1))
        alike = [torch.cosine_similarity(v.flatten(1), v[-1:].flatten(1)) for v in g.values()]
        areas.append(torch.trapezoid(torch.stack(alike).mean(0), dx=1 / MIXES))
    return float(torch.stack(areas).mean())


def accuracy_score(model: nn.Module, policy: str, images: Images, seed: int = 0) -> float:
    """How differently the network reacts to different T(x); higher promises more accuracy.

    From the eigenvalues v of the correlations between the images' input gradients,
    -sum log(v + k) + 1 / (v + k) (Mellor et al. 2021, eq. 3).
    """
    x = _transformed(policy, images, seed).to(next(model.parameters()).device)
    x.requires_grad_()
    (slope,) = torch.autograd.grad(model(x).sum(), x)
    values = np.linalg.eigvalsh(np.corrcoef(slope.flatten(1).double().cpu().numpy()))
    values = values.clip(0) + RIDGE
    return float(-(np.log(values) + 1 / values).sum())


def search(
    model: nn.Module, policies: Sequence[str], images: Images, records: Records, command: str = "",
    *, private: int = 5, runs: int = 10, each: int = 100, seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """Both scores of every policy: one row for each, as `experiment.run` keeps them.

    The first `private` images make the privacy score; after them come `runs` times `each` images,
    whose accuracy scores are averaged. Raises ValueError if there are fewer.
    """
    if len(images) < private + runs * each:
        raise ValueError(
            f"{private} + {runs} x {each} images are needed, there are {len(images)}: give more, "
            "or ask for fewer runs"
        )
    few, used = images.take(range(private)), images.take(range(private + runs * each))
    parts = [used.take(range(k, k + each)) for k in range(private, len(used), each)]

    def scores(policy: str) -> dict[str, float]:
        found = [accuracy_score(model, policy, part, seed) for part in parts]
        privacy = privacy_score(model, policy, few, seed)
        return {"privacy": privacy, "accuracy": float(np.mean(found))}

    labels = {"dataset": images.name, "private": private, "runs": runs, "each": each, "seed": seed}
    decides = digest(model, used.digests)
    cells = [({"policy": p, **labels}, decides, lambda p=p: scores(p)) for p in policies]
    return measured(cells, records, command, next(model.parameters()).device)


def selected(table: pd.DataFrame, threshold: float = -85.0) -> pd.DataFrame:
    """The policies whose accuracy score reaches the threshold, the most private first."""
    return table[table.accuracy >= threshold].sort_values("privacy")


def _transformed(policy: str, images: Images, seed: int) -> Tensor:
    return ATS(policy)(images.x, [(seed, i) for i in images.index])
