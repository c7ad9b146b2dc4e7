"""An attack as the package breaching (Geiping et al.) makes it, where that is installed."""

import importlib.util
import math
from types import SimpleNamespace

import torch

from gradleak.bench.floor import seconds
from gradleak.client import ServerView


def step_seconds(view: ServerView, steps: int) -> float:
    """Of its attack "Inverting gradients" on the view's first client; nan without the package.

    And for grey images, of which its total variation knows nothing. The difference of two runs
    leaves out what it does before the first step and after the last.
    """
    if importlib.util.find_spec("breaching") is None or view.shape[0] != 3:
        return math.nan
    device = view.y.device

    def run(steps: int) -> float:
        return seconds(lambda: _attack(view, steps), device, 1)

    return (run(steps + 1) - run(1)) / steps


def _attack(view: ServerView, steps: int) -> None:
    import breaching

    model, shape = view.client.model, view.shape
    config = breaching.get_attack_config("invertinggradients")
    config.optim.max_iterations = steps
    setup = {"device": view.y.device, "dtype": torch.float}
    attack = breaching.attacks.prepare_attack(model, torch.nn.CrossEntropyLoss(), config, setup)
    data = SimpleNamespace(
        shape=shape, classes=10, mean=[0.0] * shape[0], std=[1.0] * shape[0], modality="vision"
    )
    server = {
        "parameters": list(model.parameters()),
        "buffers": list(model.buffers()),
        "metadata": data,
    }
    shared = {
        "gradients": [view.g[name][0] for name, _ in model.named_parameters()],
        "buffers": None,
        "metadata": {"num_data_points": 1, "labels": view.y[:1], "local_hyperparams": None},
    }
    attack.reconstruct([server], [shared], {}, dryrun=False)
