"""What every published notebook must be."""

import nbformat

from gradleak.book.chapter import read
from gradleak.book.published import cells


def check_published(chapter):
    """Assert that the committed notebook is the script's cells, clean outputs, and no more."""
    notebook = nbformat.read(chapter.published, as_version=4)
    assert cells(notebook) == cells(read(chapter))
    assert [cell.id for cell in notebook.cells] == [cell.id for cell in read(chapter).cells]
    assert chapter.published.stat().st_size < 1.5e6
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert outputs
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
