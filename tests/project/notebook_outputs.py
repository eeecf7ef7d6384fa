"""Run examples/classify_text.ipynb. `make notebook` keeps its outputs, but for those that show other people's texts."""

import re
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

NOTEBOOK = Path(__file__).parents[2] / "examples/classify_text.ipynb"
PARAMETERS, SHOWS_TEXTS = "parameters", "shows-texts"  # Tags of cells.
CELL_TIMEOUT_S = 4 * 3600  # An epoch of IMDB on a laptop.
TERMINAL_CODES = re.compile(r"\x1b\[[0-9;]*m")


def tagged(cell: NotebookNode, tag: str) -> bool:
    return tag in cell.metadata.get("tags", ())


def read_notebook() -> NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)


def run_notebook(notebook: NotebookNode, folder: Path, timeout_s: int = CELL_TIMEOUT_S) -> None:
    """Run its cells in `folder`, with this Python. Raises nbclient's CellExecutionError for a cell that fails."""
    NotebookClient(
        notebook,
        timeout=timeout_s,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
    ).execute()


def printed(cell: NotebookNode) -> str:
    """What a cell writes to standard output."""
    texts = (output.text for output in cell.outputs if output.output_type == "stream" and output.name == "stdout")
    return TERMINAL_CODES.sub("", "".join(texts))


def remove_what_is_not_kept(notebook: NotebookNode) -> None:
    """Messages on standard error, which are about this machine, and the texts of others."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            outputs = [] if tagged(cell, SHOWS_TEXTS) else cell.outputs
            cell.outputs = [output for output in outputs if output.get("name") != "stderr"]


if __name__ == "__main__":
    read = read_notebook()
    run_notebook(read, NOTEBOOK.parent)
    remove_what_is_not_kept(read)
    nbformat.write(read, NOTEBOOK)
