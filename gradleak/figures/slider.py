"""The strength slider: the same pictures at every strength of a defense, to be moved by hand.

One object with two faces. The static face is a piece of HTML that needs no kernel, no network and
no other file: it moves in the published book, in JupyterLab and in a saved notebook. The live
face adds a panel that runs the attack at a strength of the reader's own; it appears in a running
kernel when `live` is given, unless the environment sets GRADLEAK_STATIC.
"""

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from gradleak.figures.html import STYLE, Frame, Row, named, render, spoken
from gradleak.names import choose as one_of

__all__ = ["Frame", "Live", "Row", "StrengthSlider", "strength"]

# Without scripts the slider would be dead: leave it out and show the first pictures.
NO_SCRIPT = """<noscript><style>.gl-strength input,.gl-strength .gl-ticks{display:none}
.gl-strength select{appearance:none;border:0;pointer-events:none}</style></noscript>"""

# JupyterLab would take the arrow keys for moving between cells.
KEYS = "data-lm-suppress-shortcuts='true'"

# An `oninput` attribute, because it runs wherever HTML is shown; front ends treat script elements
# each in its own way. The select and the slider are inside, so their events arrive here.
MOVE = """
const all = JSON.parse(this.querySelector('script').textContent);
const select = this.querySelector('select'), range = this.querySelector('input');
const output = this.querySelector('output');
const [ticks, frames] = all[select ? select.selectedIndex : 0];
if (event.target === select) {
  range.max = frames.length - 1;
  const same = frames.findIndex(frame => frame[0] === output.value);
  if (same >= 0) range.value = same;
  this.querySelector('.gl-ticks').innerHTML = ticks;
}
const [label, spoken, pictures] = frames[range.value];
output.value = label;
range.setAttribute('aria-valuetext', spoken);
this.querySelector('.gl-frame').innerHTML = pictures;
"""

Live = Callable[[str, float], Frame]


@dataclass(frozen=True, eq=False)
class StrengthSlider:
    """What `strength` returns; a notebook shows it as the value of a cell, or by `display`."""

    frames: Mapping[str, Sequence[Frame]] = field(repr=False)
    name: str
    choose: str
    start: str
    unit: str
    live: Live | None = field(repr=False)

    def html(self) -> str:
        """The static face: the same text for the same pictures, whenever it is made."""
        rows = {f: render(f, self.unit) for group in self.frames.values() for f in group}
        # The private images are the same everywhere, so they are written once, above the rest.
        everywhere = set.intersection(*map(set, rows.values()))
        fixed = "".join(row for row in next(iter(rows.values())) if row in everywhere)
        moving = {f: "".join(row for row in rows[f] if row not in everywhere) for f in rows}
        data = [
            (_ticks(group), [(f.label, self._spoken(f), moving[f]) for f in group])
            for group in self.frames.values()
        ]
        stored = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
        # What could end the script element, or change how it is read, too early.
        stored = stored.replace("</", "<\\/").replace("<!", "\\u003c!")
        ticks, frames = data[0]
        at = [label for label, *_ in frames].index(self.start)
        label, words, pictures = frames[at]
        options = "".join(f"<option>{escape(choice)}</option>" for choice in self.frames)
        menu = f"<select autocomplete='off' {KEYS}>{options}</select>"
        if len(self.frames) == 1:
            menu = f"<b>{escape(*self.frames)}</b>"
        name = escape(self.name)
        return f"""<style>{STYLE}</style>{NO_SCRIPT}
<div class="gl-strength" oninput="{escape(MOVE)}">
<div class="gl-bar"><label>{escape(self.choose)} {menu}</label>
<span>{name} <output aria-live="off">{escape(label)}</output></span></div>
<input type="range" min="0" max="{len(frames) - 1}" value="{at}" autocomplete="off" {KEYS}
 aria-label="{name}" aria-valuetext="{escape(words)}">
<div class="gl-ticks" aria-hidden="true">{ticks}</div>
{fixed}<div class="gl-frame">{pictures}</div>
<script type="application/json">{stored}</script></div>"""

    def text(self) -> str:
        """The mean scores, one line for each frame, for readers who see no HTML."""
        every = [(choice, frame) for choice, group in self.frames.items() for frame in group]
        return "\n".join(f"{choice}, {self._spoken(frame)}" for choice, frame in every)

    def panel(self) -> Any:
        """The live face: an `ipywidgets.VBox` with the choice, the strength and a Run button.

        Raises ValueError if the slider was made without `live`.
        """
        if self.live is None:
            raise ValueError("this slider shows stored frames only: make it with live=...")
        import ipywidgets as w  # only a live panel needs it

        wide = {"description_width": "initial"}
        choice = w.Dropdown(options=list(self.frames), description=self.choose, style=wide)
        value = w.FloatText(value=_number(self.start), description=self.name, style=wide)
        button = w.Button(description="Run the attack", button_style="primary")
        status, result = w.Label(), w.HTML()

        def run(_: w.Button) -> None:
            button.disabled, status.value, began = True, "running ...", time.perf_counter()
            try:
                frame = self.live(choice.value, value.value)
                if not isinstance(frame, Frame):
                    raise TypeError(f"live must return a Frame, not {type(frame).__name__}")
                rows = "".join(render(frame, self.unit))
                result.value = f"<style>{STYLE}</style><div class='gl-strength'>{rows}</div>"
                took = time.perf_counter() - began
                status.value = f"{choice.value}, {self._spoken(frame)} ({took:.1f} s)"
            except (Exception, KeyboardInterrupt) as error:  # whatever, the reader may try again
                first = (str(error).splitlines() or [""])[0]
                result.value, status.value = "", f"{type(error).__name__}: {first}"
            finally:
                button.disabled = False

        button.on_click(run)
        shown = [choice, value, button] if len(self.frames) > 1 else [value, button]
        return w.VBox([w.HBox(shown, layout={"flex_flow": "row wrap"}), status, result])

    def _spoken(self, frame: Frame) -> str:
        return spoken(frame, self.name, self.unit)

    def _ipython_display_(self) -> None:
        from IPython import get_ipython
        from IPython.display import display

        display({"text/html": self.html(), "text/plain": self.text()}, raw=True)
        in_kernel = getattr(get_ipython(), "kernel", None) is not None
        if self.live is not None and in_kernel and not os.environ.get("GRADLEAK_STATIC"):
            display(self.panel())


def strength(
    frames: Mapping[str, Sequence[Frame]],
    *,
    name: str = "noise scale",
    choose: str = "defense",
    start: str | None = None,
    unit: str = "dB",
    live: Live | None = None,
) -> StrengthSlider:
    """A slider over `frames`, with a menu of their keys if there are several.

    frames: for each choice, such as "Gaussian noise", its frames in the slider's order. Rows that
        are the same in every frame are stored once and stand on top.
    name: what the slider changes.
    choose: what the menu chooses.
    start: label of the frame of the first choice that is shown first; default, its first one.
    unit: of the scores.
    live: `live(choice, strength)` runs the attack and returns the frame to show. It makes the
        panel appear in a running kernel, and wants labels that are numbers.

    Raises ValueError if frames or labels are missing, repeated or, for `live`, not numbers.
    """
    frames = {choice: tuple(group) for choice, group in frames.items()}
    if not frames:
        raise ValueError("no frames: give at least one choice, {'Gaussian noise': [Frame(...)]}")
    for choice, group in frames.items():
        named("a choice", choice)
        labels = [frame.label for frame in group]
        if not group:
            raise ValueError(f"'{choice}' has no frames: leave it out or give it some")
        if len(set(labels)) < len(labels):
            raise ValueError(f"'{choice}' has two frames of the same label: {', '.join(labels)}")
    labels = [frame.label for frame in next(iter(frames.values()))]
    start = labels[0] if start is None else one_of("start", start, labels)
    if live is not None:
        _number(start)
    return StrengthSlider(frames, name, choose, start, unit, live)


def _number(label: str) -> float:
    try:
        return float(label)
    except ValueError:
        raise ValueError(
            f"start '{label}' is not a number, but a live slider starts from it: label the frames "
            "by their strength, such as '0.1'"
        ) from None


def _ticks(frames: Sequence[Frame]) -> str:
    every = math.ceil(len(frames) / 8)  # more labels would touch on a phone
    labels = [escape(f.label) if i % every == 0 else "" for i, f in enumerate(frames)]
    return "".join(f"<span>{label}</span>" for label in labels)
