"""What every chapter begins and ends with: its sizes, data, records and true command."""

from __future__ import annotations

import ast
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import torch
from torch import nn

from gradleak import data, metrics, models, train
from gradleak.attacks import Adam
from gradleak.client import Client
from gradleak.data import Images
from gradleak.device import named
from gradleak.experiment.markdown import code, words
from gradleak.experiment.records import Records
from gradleak.experiment.runs import measured, run
from gradleak.experiment.trials import Trial, grid
from gradleak.experiment.tuning import Setting, tune
from gradleak.metrics import Interval, Paired
from gradleak.names import choose


@dataclass(frozen=True)
class Page:
    """One chapter at one profile; command: what makes its records, size: see `sizes`."""

    size: SimpleNamespace
    command: str
    records: Records
    device: torch.device

    @cached_property
    def train(self) -> Images:
        """The images that networks and attackers learn from."""
        return data.load(self.size.dataset, "train")

    @cached_property
    def test(self) -> Images:
        """The images of which some are attacked."""
        return data.load(self.size.dataset, "test")

    @cached_property
    def tuned_on(self) -> Images:
        """Training images on which settings are chosen."""
        return self.train.take(range(self.size.tuning))

    @cached_property
    def evaluated(self) -> Images:
        """Test images that tables are made of, from the size's `first` on."""
        return self.test.take(range(self.size.first, self.size.first + self.size.images))

    @cached_property
    def few(self) -> Images:
        """The first of them, which pictures show."""
        return self.test.take(range(self.size.first, self.size.first + self.size.shown))

    @property
    def search(self) -> Adam:
        """How the attacks of this page climb."""
        return self.signed(self.size.steps)

    @staticmethod
    def signed(steps: int) -> Adam:
        """Signed Adam, whose rate falls to a twentieth."""
        return Adam(steps=steps, lr=0.1, decay=0.05 ** (1 / steps) if steps else 1.0, signed=True)

    def beside(self, kind: str) -> Page:
        """The same page with its records of another kind, such as `unseen`."""
        return replace(self, records=self.records.beside(kind))

    def run(self, trials: Sequence[Trial]) -> pd.DataFrame:
        """The rows of the trials, of which those that are not there are computed."""
        return run(trials, self.records, self.command)

    def tuned(
        self, trial: Callable[..., Trial], cells: Sequence[Setting], **space: Iterable[Any]
    ) -> list[dict[str, Any]]:
        """Each cell with the setting that is best on `tuned_on`; space: name -> what is tried."""
        tried = partial(trial, self.tuned_on), cells, grid(**space)
        best = tune(*tried, self.evaluated, self.records, self.command)
        return [{**cell, **setting} for cell, setting in zip(cells, best, strict=True)]

    def network(self, *allowed: str, **options: Any) -> nn.Module:
        """The untrained network of `models` that the size names; ValueError if not `allowed`."""
        build = getattr(models, choose("network", self.size.network, allowed))
        net = build(self.test.shape, self.test.classes, seed=self.size.seed, **options)
        return net.to(self.device)

    def networks(self, client: Client, steps: Iterable[int], **how: Any) -> dict[int, nn.Module]:
        """{training steps: network}, trained on the data set; see `train.trained`."""
        return train.trained(client, self.train, steps, self.records.folder / "models", **how)

    def accuracies(
        self, networks: Sequence[tuple[Setting, nn.Module]], most: int = 0, **same: Any
    ) -> pd.DataFrame:
        """The test accuracy of networks: (labels of its row, network), and `same` labels of all.

        most: how many images, the first of the test split; 0: all.
        """
        shown = self.test.take(range(len(self.test))[: most or None])
        what = {"dataset": shown.name, "split": shown.split, "images": len(shown), **same}
        cells = [({**what, **labels}, (net, shown.digests),
                  lambda net=net: {"accuracy": train.accuracy(net, shown)})
                 for labels, net in networks]  # fmt: skip
        return measured(cells, self.records.beside("accuracy"), self.command, self.device)

    def floors(self, public: Images | None = None, **also: Sequence[float]) -> dict[str, Interval]:
        """What can be had without a gradient, and `also` other attacks without one."""
        others = {name.replace("_", " "): metrics.interval(v) for name, v in also.items()}
        return metrics.floors(self.evaluated.x, (public or self.train).x) | others

    def caption(
        self, what: str, floors: Mapping[str, Interval] | None = None, tried: int = 0, how: str = ""
    ) -> str:
        """What a reader has to know of a table. tried: settings that each attack chose from.

        how: its attacks climb, if not as the page's size says.
        """
        size = self.size
        how = how or f"{size.steps} iterations of signed Adam, {size.restarts} start(s)"
        tuned = f", {tried} tuning trials each on {size.tuning} other images" if tried else ""
        text = (
            f"Mean PSNR in dB and 95 % bootstrap interval over **{size.images} images** of "
            f"{size.dataset}; {what}; {how}{tuned}; "
            f"{words(self.records.facts()['hardware'])}."
        )
        if floors:
            listed = ", ".join(f"{name} {value.mean:.1f}" for name, value in floors.items())
            text += f" Data-free floors: {listed}; a dagger marks what is below the highest."
        return text

    def elsewhere(
        self, show: Callable[[pd.DataFrame], object], also: Sequence[str] = (), **same: Any
    ) -> None:
        """Show the committed records of this chapter's other runs, each under its caption.

        also: kinds of records whose rows are added. same: columns that a row must have with these
        values, or with one of a list of them. What is not there is left out, with a word.
        """
        from IPython.display import Markdown, display

        for other in self.records.others():
            files = [other, *(other.beside(kind) for kind in also)]
            rows = pd.concat([each.read() for each in files if each.path.exists()])
            rows, facts = rows[rows.split == "test"], other.facts()
            for column, value in same.items():
                wanted = value if isinstance(value, list | tuple) else [value]
                rows = rows[rows[column].isin(wanted)]
            what = words(", ".join(f"{column} {value}" for column, value in same.items()))
            display(Markdown(
                f"{code(facts['command'])} has no rows of {what}: left out." if rows.empty else
                f"**{rows['index'].nunique()} images** of {words(facts['dataset'])}, "
                f"{words(facts['hardware'])}, {code(facts['command'])}"
            ))  # fmt: skip
            if not rows.empty:
                show(rows)

    @property
    def minutes(self) -> str:
        """How long the attacks of this page took."""
        return f"{self.records.facts()['seconds'] / 60:.0f} minutes"


def page(
    name: str,
    profiles: Mapping[str, Mapping[str, Any]],
    values: Mapping[str, Any],
    part_of: str = "",
) -> Page:
    """A chapter's page from its parameters; see `sizes`.

    values: the chapter's `globals()`, of which the parameters of its script are taken; of a
    notebook without its script, whatever is plain. part_of: the chapter whose records it shares.
    Raises ValueError for an unknown profile or data set and for sizes below 0.
    """
    plain = [k for k, v in values.items() if isinstance(v, str | float | int | list)]
    names = defaults(name) or [k for k in plain if k != "In" and not k.startswith("_")]
    given = {k: values[k] for k in names}
    profile, device, results = (given.pop(k) for k in ("profile", "device", "results"))
    size = sizes(profile, profiles, **given)
    choose("dataset", size.dataset, data.NAMES)
    folder, called = Path(results or "../_build/results"), f"{part_of or name}-{profile}"
    records = Records(folder, f"{called}-{size.dataset}", Path("../book/results"), name)
    return Page(size, command(name, profile, given), records, named(device))


def sizes(name: str, profiles: Mapping[str, Mapping[str, Any]], **given: Any) -> SimpleNamespace:
    """The sizes of a profile, with those that were given (not empty and not 0) in their place.

    Of few `images`, no more can be `shown` or `swept` by a slider. Lists come sorted. Images are
    counted from `first` on, the test split's own first if a profile does not say.
    """
    usual = profiles[choose("profile", name, profiles)]
    found = {"first": 0} | given | dict(usual) | {k: v for k, v in given.items() if v}
    for what, value in found.items():
        each = value if isinstance(value, list) else [value]
        if any(isinstance(v, int) and v < 0 for v in each):
            raise ValueError(f"{what} must not be negative, got {value}; 0 takes the profile's")
        if what in given and isinstance(value, list):
            found[what] = sorted(value)
    for part in found.keys() & {"shown", "swept"}:
        found[part] = min(found[part], found["images"])
    return SimpleNamespace(**found)


def command(chapter: str, profile: str, given: Mapping[str, Any]) -> str:
    """What makes the records of a run: with each parameter that is not the script's default."""
    usual = defaults(chapter)
    own = {k: v for k, v in given.items() if (v != usual[k] if k in usual else v)}
    words = [word for key, value in own.items() for word in ("-p", f"{key}={value}")]
    return shlex.join(["gradleak", "run", chapter, "--profile", profile, *words])


def defaults(chapter: str) -> dict[str, Any]:
    """The parameters of a chapter's script and their values; none where there is no script."""
    for script in Path.cwd().glob("[0-9]*_*.py"):
        if script.stem.partition("_")[2] != chapter:
            continue
        _, _, cell = script.read_text().partition('# %% tags=["parameters"]\n')
        lines = ast.parse(cell.partition("\n# %%")[0]).body
        return {ast.unparse(line.target if isinstance(line, ast.AnnAssign) else line.targets[0]):
                ast.literal_eval(line.value) for line in lines}  # fmt: skip
    return {}


def said(pairs: Mapping[str, Mapping[Any, Paired]], row: str, column: Any) -> str:
    """A paired difference in words."""
    if column not in pairs.get(row, {}):
        return "not run here"
    difference = pairs[row][column].difference
    return f"{difference.mean:+.1f} dB [{difference.low:+.1f}, {difference.high:+.1f}]"
