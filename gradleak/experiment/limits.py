"""Climb or posterior: what keeps an attack that climbs from the private image.

A climb that ends at a point less probable than one that is known has missed the maximum, so that
its error tells nothing of the posterior. One that ends at a more probable point than the private
image did what it was asked to, and the posterior is to blame: mostly the prior.
"""

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
from torch import Tensor

from gradleak.attacks import Adversary, attack_all, score_all
from gradleak.client import ServerView

PRIVATE, FROM_PRIVATE = "log_posterior_private", "log_posterior_from_private"
NAT = 1.0  # a difference of log-posteriors that counts
LIMITS = ("climb", "posterior", "neither")


def from_private(
    attacks: Sequence[tuple[Adversary, ServerView]], private: Sequence[Tensor], seed: int = 0
) -> list[dict[str, Tensor]]:
    """The log-posterior of the private images, and of where climbs end that start there, (N,) each.

    private: x of each view, (N, *shape), as the network saw it. A climb from there takes the last
    stage of the attack's own.
    """
    private = [
        x.to(next(iter(view.g.values()))) for x, (_, view) in zip(private, attacks, strict=True)
    ]
    short = [(replace(a, optimizer=a.optimizer.ending(), restarts=1), view) for a, view in attacks]
    ends = [found.x for found in attack_all(short, seed, starts=private)]
    return [
        {PRIVATE: there, FROM_PRIVATE: after}
        for there, after in zip(*(score_all(attacks, x) for x in (private, ends)), strict=True)
    ]


def limit(table: pd.DataFrame) -> pd.Series:
    """What limits each row: "climb", "posterior" or "neither", not a number where it is not known.

    The climb, where the private image or a climb from it is more probable than what was found, by a
    nat; else the posterior, where what was found is more probable than the private image, by a nat.
    """
    if not {PRIVATE, FROM_PRIVATE} <= {*table.columns}:
        return pd.Series(float("nan"), table.index, dtype=object)
    known = table[[PRIVATE, FROM_PRIVATE]]
    missed = known.max(axis=1) - table.log_posterior > NAT
    beyond = table.log_posterior - table[PRIVATE] > NAT
    said = pd.Series("neither", table.index, dtype=object)
    said = said.mask(beyond, "posterior").mask(missed, "climb")
    return said.where(known.notna().all(axis=1), float("nan"))


def limits(table: pd.DataFrame, cell: Sequence[str]) -> str:
    """A line for readers: of each climb, how many cells and images each of them limits.

    cell: the columns that tell cells apart; a cell's limit is that of most of its images.
    """
    said = limit(table)
    rows = table.assign(limit=said)[said.notna()]
    if rows.empty:
        return "Whether the climb or the posterior is the limit was not recorded."
    lines = [_line(str(name), part, list(cell)) for name, part in rows.groupby("climb", sort=False)]
    left = len(table) - len(rows)
    return f"What limits them: {'; '.join(lines)}" + (
        f"; of {left} images more it was not recorded." if left else "."
    )


def _line(climb: str, rows: pd.DataFrame, cell: list[str]) -> str:
    most = rows.groupby(cell).limit.agg(lambda each: each.value_counts().idxmax())
    told = ", ".join(
        f"{'**neither**' if name == 'neither' else f'the **{name}**'} in {(most == name).sum()} "
        f"and {(rows.limit == name).sum()}"
        for name in LIMITS
    )
    return f"{climb} ({len(most)} cells, {len(rows)} images): {told}"
