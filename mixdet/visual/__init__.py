"""Drawing of boxes, figures and text tables.

`boxes` draws detections on an image. `contact_sheet` draws a grid of images with detections and
true boxes. `html_page` fills in the pages of reports. `svg` turns a matplotlib figure into SVG.
`tables` lays out text tables.
"""

from mixdet.visual.boxes import draw_detections
from mixdet.visual.contact_sheet import (
    SheetImage,
    write_contact_sheet,
    write_contact_sheet_from_results,
)
from mixdet.visual.tables import text_table

__all__ = [
    "SheetImage",
    "draw_detections",
    "text_table",
    "write_contact_sheet",
    "write_contact_sheet_from_results",
]
