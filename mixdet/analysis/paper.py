"""Numbers from the MixConv paper. None of them was measured in this project.

Tan and Le, "MixConv: Mixed Depthwise Convolutional Kernels", BMVC 2019, arXiv 1907.09595.
"""

from __future__ import annotations

from typing import NamedTuple


class PaperRow(NamedTuple):
    """A row of a table of the paper, with the numbers as printed.

    Attributes:
        params_m: Millions of parameters.
        madds_b: Billions of multiply-adds.
        ap: COCO box AP in percent.
    """

    params_m: float
    madds_b: float
    ap: float


# Table 1: detection on COCO. The keys are the names of our configs.
TABLE_1 = {
    "ssdlite_mobilenet_v1_3x3_coco": PaperRow(5.12, 1.31, 21.7),
    "ssdlite_mobilenet_v1_5x5_coco": PaperRow(5.20, 1.38, 22.3),
    "ssdlite_mobilenet_v1_mix35_coco": PaperRow(5.16, 1.35, 22.2),
    "ssdlite_mobilenet_v1_7x7_coco": PaperRow(5.32, 1.47, 21.8),
    "ssdlite_mobilenet_v1_mix357_coco": PaperRow(5.22, 1.39, 22.4),
    "ssdlite_mobilenet_v2_3x3_coco": PaperRow(4.35, 0.79, 21.5),
    "ssdlite_mobilenet_v2_5x5_coco": PaperRow(4.47, 0.87, 22.1),
    "ssdlite_mobilenet_v2_mix35_coco": PaperRow(4.41, 0.83, 22.1),
    "ssdlite_mobilenet_v2_7x7_coco": PaperRow(4.64, 0.98, 21.2),
    "ssdlite_mobilenet_v2_mix357_coco": PaperRow(4.49, 0.88, 22.3),
}
