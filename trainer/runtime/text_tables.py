"""Tables of plain text, as commands print them."""

from collections.abc import Sequence


def align_columns(cells: Sequence[Sequence[str]]) -> str:
    """Rows of cells as columns, the first one to the left."""
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    )
