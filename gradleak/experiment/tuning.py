"""Tuning: one procedure for every adversary, on images that are never evaluated."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gradleak.data import Images
from gradleak.experiment.records import Records
from gradleak.experiment.runs import run
from gradleak.experiment.trials import Trial
from gradleak.scales import check_call, check_kind

Setting = Mapping[str, Any]


def tune(
    trial: Callable[..., Trial],
    cells: Sequence[Setting],
    space: Sequence[Setting],
    evaluated: Images,
    records: Records,
    command: str = "",
) -> list[dict[str, Any]]:
    """The setting of each cell that has the highest mean PSNR; the first of equals.

    trial(**cell, **setting): an attack on the tuning images. cells: what is tuned, such as
        [dict(defense="Laplace", adversary="L2"), ...]. space: the settings, all of which every
        cell tries. evaluated: the images that a table will be made of. The trials become rows of
        the records; see `experiment.run`.

    Raises ValueError if a tuning image is among those evaluated, or if there is nothing to try.
    """
    check_call("trial", trial)
    check_kind("evaluated", evaluated, Images)
    if not cells or not space:
        raise ValueError(f"nothing to tune: {len(cells)} cells and {len(space)} settings")
    trials = [trial(**cell, **setting) for cell in cells for setting in space]
    for images in {id(t.images): t.images for t in trials}.values():
        shared = images.source.shared(evaluated)
        if shared:
            raise ValueError(
                f"images {shared[:5]} of {evaluated.name} ({evaluated.split}) are tuned on and "
                "evaluated; tune on others, such as those of the train split"
            )
    psnr = run(trials, records, command).psnr.fillna(-math.inf).to_numpy()  # of NaN: no image
    each = psnr.reshape(len(cells), len(space), -1).mean(2)
    return [dict(space[best]) for best in each.argmax(1)]
