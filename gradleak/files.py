"""Files: written whole or not at all; those that cannot be read are named, with what to do."""

import os
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class DamagedError(ValueError):
    """A file cannot be read as what it should be; the message names it, and the cure."""


@contextmanager
def sound(path: Path | str, what: str, cure: str, *errors: type[Exception]) -> Iterator[None]:
    """Say DamagedError, with the file's name and the cure, where reading it inside goes wrong.

    what: it should be, such as "a table". errors: those besides ValueError and OSError by which
    its reader says that it is not. One that is not there is a FileNotFoundError.
    """
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(f"{path} is not there: {cure}") from error
    except (OSError, ValueError, *errors) as error:
        said = (error.strerror if isinstance(error, OSError) else "") or str(error)
        why = textwrap.shorten(said, 300) or type(error).__name__
        raise DamagedError(f"{path} cannot be read as {what} ({why}): {cure}") from error


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield a path to write to, which takes the place of `path` once all is written.

    Raises OSError, with the file's name and the cure, where it cannot be written.
    """
    scratch = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield scratch
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)
    except OSError as error:
        if Path(str(error.filename)) not in (scratch, path, *path.parents):
            raise  # of another file
        why = error.strerror or str(error)
        raise OSError(
            error.errno, f"{path} cannot be written ({why}): name a file in a folder of your own"
        ) from error
