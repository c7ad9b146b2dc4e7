"""The `gradleak` command: run chapters, build the book, publish its outputs."""

import os
from pathlib import Path

# Before torch loads: threads that wait let others compute (book/gotchas.md).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import click

from gradleak import book
from gradleak.book.chapter import DEVICES, PROFILE_HELP, PROFILES, summary
from gradleak.book.pages import duration
from gradleak.book.record import runs_here, runs_published
from gradleak.book.values import assignments
from gradleak.files import DamagedError
from gradleak.version import __version__

PROFILE = click.Choice(PROFILES)
# Options that several commands have.


def _present(ctx: click.Context, option: click.Parameter, device: str) -> str:
    if device == "cuda":
        from gradleak.device import named

        try:
            named(device)
        except ValueError as error:
            raise click.BadParameter(str(error)) from error
    return device


on_device = click.option("--device", type=click.Choice(DEVICES), default="auto",
                         callback=_present, help="auto takes a GPU if there is one")  # fmt: skip
with_values = click.option("-p", "given", metavar="NAME=VALUE", multiple=True,
                           help="a parameter of the chapter; may be repeated")  # fmt: skip


class ChapterGroup(click.Group):
    """A group with one command per chapter of the clone that holds the working folder."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the short names of the chapters, in reading order."""
        return [chapter.name for chapter in book.chapters(book.root())]

    def get_command(self, ctx: click.Context, name: str) -> click.Command:
        """Return the command that runs one chapter; raises `BookError` if there is none."""
        return _run_command(book.find(name))


class Command(click.Group):
    """A group in which a damaged file is one short message."""

    def invoke(self, ctx: click.Context) -> object:
        """Run what was asked for; raises `BookError` that names the file, and the cure."""
        try:
            return super().invoke(ctx)
        except DamagedError as error:
            raise book.BookError(str(error)) from error


@click.group(cls=Command, context_settings={"show_default": True})
@click.version_option(__version__, prog_name="gradleak", message="%(prog)s %(version)s")
def main() -> None:
    """Gradient leakage as an executable book."""


@main.command("list")
def list_() -> None:
    """Show the chapters, the profiles and what each costs."""
    home = book.root()
    runs = runs_published(home) + runs_here(home)
    for chapter in book.chapters(home):
        title, sentence = summary(chapter)
        # What ran here comes last, and so replaces what the published run took.
        took = {run.profile: duration(run.seconds) for run in runs if run.chapter == chapter.stem}
        times = ", ".join(f"{profile} {time}" for profile, time in took.items())
        click.echo(f"{click.style(chapter.name, bold=True)}: {title}")
        click.echo(f"  {sentence}\n  took: {times or 'not run yet'}")
    click.echo(f"Profiles: {PROFILE_HELP}.")


@main.group(cls=ChapterGroup)
def run() -> None:
    """Run one chapter; `gradleak run CHAPTER --help` lists its parameters."""


def _run_command(chapter: book.Chapter) -> click.Command:
    title, sentence = summary(chapter)
    own = [p for p in book.parameters(chapter).values() if p.name not in ("profile", "device")]
    left = [f"{p.name} = {p.default!r}" for p in own]
    width = max(map(len, left), default=0)
    listing = "\n".join(f"  {text:<{width}}  {p.help}" for text, p in zip(left, own, strict=True))
    help_ = f"{title}\n\n{sentence}\n\n\b\nParameters (-p name=value):\n{listing}"

    @click.command(chapter.name, help=help_, short_help=title)
    @click.option("--profile", type=PROFILE, default="smoke", help=PROFILE_HELP)
    @on_device
    @with_values
    def execute_chapter(profile: str, device: str, given: tuple[str, ...]) -> None:
        values = assignments(chapter, given)
        notebook = book.run(chapter.name, profile, device, values, chapter.root)
        click.echo(f"Executed: {notebook}\nSee it:   gradleak book --profile {profile}")

    return execute_chapter


@main.command("book")
@click.option("--profile", type=PROFILE, help="Run what has changed in it and render that.")
@click.option("--published", is_flag=True, help="Show the committed outputs; run nothing.")
def book_(profile: str | None, published: bool) -> None:
    """Show the book and run all of it as a check.

    Without options the published book is rendered first, then every chapter runs in smoke.
    """
    if profile and published:
        raise book.BookError("Give --profile or --published, not both.")
    if profile:
        click.echo(f"Open {book.build(profile)}")
        return
    shown = book.build(published=True)
    click.echo(f"Open {shown}")
    if not published:
        click.echo("Now every chapter runs in smoke, as a check; this may take minutes.")
        click.echo(f"All ran. Open {shown} (the book) or {book.build('smoke')} (the check's toys)")


@main.command()
@on_device
@click.option("--rounds", default=3, type=click.IntRange(1), help="Turns of engine and loop.")
@click.option("--compiled", is_flag=True, help="Measure torch.compile instead of the usual loop.")
@click.option("--output", type=click.Path(), help="Record file; default: one in book/results.")
def bench(device: str, rounds: int, compiled: bool, output: str | None) -> None:
    """Measure what attacks cost, against the usual loop; minutes on a CPU."""
    from gradleak.bench import cases, measure, reach
    from gradleak.device import named

    on = named(device)
    command = f"gradleak bench --device {on.type} --rounds {rounds}{' --compiled' * compiled}"
    name = f"{'compiled' if compiled else 'bench'}-{on.type}.csv"
    path = Path(output) if output else book.root() / "book" / "results" / name
    if compiled:
        wanted = {path: measure.run_compiled(on, cases.busy(on)[0], rounds)}
    else:
        wanted = {path: measure.run(on, cases.every(on), rounds)}
        try:
            wanted[reach.beside(path)] = reach.run(reach.attacked(), on, rounds)
        except FileNotFoundError as missing:  # known before anything is measured
            click.echo(f"No seconds to a PSNR: {missing}", err=True)
    for path, rows in wanted.items():
        click.echo(f"Written: {measure.write(path, rows, on, command)}")


@main.command()
@click.argument("names", metavar="[CHAPTER]...", nargs=-1)
@click.option("--profile", type=PROFILE, default="quick")
@click.option("--records", is_flag=True, help="Only the records, of a run with any parameters.")
def publish(names: tuple[str, ...], profile: str, records: bool) -> None:
    """Write a profile's outputs into the committed notebooks (default: every chapter)."""
    if records and not names:
        raise book.BookError("Name the chapters whose records are to be kept.")
    of_records = (path for name in names for path in book.publish_records(name, profile))
    for path in of_records if records else book.publish(profile, names):
        click.echo(f"Published: {path}")


@main.command()
@click.argument("names", metavar="CHAPTER...", nargs=-1, required=True)
@click.option("--profile", type=PROFILE, default="quick")
@with_values
def carry(names: tuple[str, ...], profile: str, given: tuple[str, ...]) -> None:
    """Give committed records of an older layout the names that rows have now.

    Runs the chapters, all that share records together, with the parameters that made them. Three
    rows of each cell are computed again; where they agree, the cell's other rows are believed.
    """
    os.environ["GRADLEAK_CARRY"] = "1"  # the chapters' kernels see it
    chapters = [book.find(name) for name in names]
    for chapter in chapters:
        book.run(chapter.name, profile, parameters=assignments(chapter, given), home=chapter.root)
    for chapter in chapters:
        for path in book.publish_records(chapter.name, profile):
            click.echo(f"Carried over: {path}")
