"""Put drawn cells on one picture: the grid that all contact sheets share."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw

OUTLINE = (226, 229, 233)


def lay_out(cells: Sequence[Image.Image], columns: int) -> Image.Image:
    """Lay cells of one width on a grid, row by row, each with an outline.

    Args:
        cells: at least one, RGB.
        columns: most cells of a row.
    Returns:
        RGB image; rows are as high as their highest cell.
    """
    width, columns = cells[0].width, min(columns, len(cells))
    rows = [cells[i : i + columns] for i in range(0, len(cells), columns)]
    heights = [max(cell.height for cell in row) for row in rows]
    sheet = Image.new("RGB", (columns * width, sum(heights)), "white")
    draw, top = ImageDraw.Draw(sheet), 0
    for row, height in zip(rows, heights, strict=True):
        for column, cell in enumerate(row):
            left = column * width
            sheet.paste(cell, (left, top))
            draw.rectangle((left, top, left + width - 1, top + height - 1), outline=OUTLINE)
        top += height
    return sheet
