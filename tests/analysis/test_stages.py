"""The costs of the stages add up to the whole network, and MixNet-S has the paper's blocks."""

from __future__ import annotations

import pytest

from mixdet.analysis import StageSummary, count_complexity, describe_stages
from mixdet.analysis.stages import stages_table
from tests.conftest import ROOT


@pytest.mark.parametrize(
    "name",
    [
        "table1/ssdlite_mixnet_m_tf_coco",  # the backbone ends with timm's `conv_head`
        "table1/ssdlite_mobilenet_v1_mix357_coco",
        "ssdlite_mixnet_s_digits",  # the backbone ends with its last stage
        "ssdlite_mobilenet_v2_mmdet_digits",  # a network without modules of MixDet
    ],
)
def test_parameters_and_multiply_adds_of_the_stages_add_up_to_the_network(name):
    path = ROOT / f"configs/{name}.py"
    rows, whole = describe_stages(path), count_complexity(path)
    assert all(isinstance(row, StageSummary) for row in rows)
    assert sum(row.params for row in rows) == whole.params
    assert sum(row.madds for row in rows) == whole.madds
    assert f"{whole.params:,}" in stages_table(rows).splitlines()[-1]


def test_the_blocks_of_mixnet_s_equal_those_of_the_paper():
    """The paper shows these blocks in figure 6 (a). The resolutions are for a 320 x 320 image."""
    rows = describe_stages(ROOT / "configs/ssdlite_mixnet_s_coco.py")
    body = [row[:7] for row in rows if row.name.startswith("stage")]
    assert body == [
        ("stage1", 1, [(3, 16)], None, None, "ReLU", (160, 160)),
        ("stage2", 1, [(3, 96)], 6, None, "ReLU", (80, 80)),
        ("stage2", 1, [(3, 72)], 3, None, "ReLU", (80, 80)),
        ("stage3", 1, [(k, 48) for k in (3, 5, 7)], 6, 0.5, "SiLU", (40, 40)),
        ("stage3", 3, [(k, 120) for k in (3, 5)], 6, 0.5, "SiLU", (40, 40)),
        ("stage4", 1, [(k, 80) for k in (3, 5, 7)], 6, 0.25, "SiLU", (20, 20)),
        ("stage4", 2, [(k, 240) for k in (3, 5)], 6, 0.25, "SiLU", (20, 20)),
        ("stage5", 1, [(k, 160) for k in (3, 5, 7)], 6, 0.5, "SiLU", (20, 20)),
        ("stage5", 2, [(k, 90) for k in (3, 5, 7, 9)], 3, 0.5, "SiLU", (20, 20)),
        ("stage6", 1, [(k, 144) for k in (3, 5, 7, 9, 11)], 6, 0.5, "SiLU", (10, 10)),
        ("stage6", 2, [(k, 300) for k in (3, 5, 7, 9)], 6, 0.5, "SiLU", (10, 10)),
    ]
    predictors = [row.kernels for row in rows if row.name == "classes"]
    assert predictors[:3] == [
        [(k, 40) for k in (3, 5, 7)],
        [(k, 512) for k in (3, 5, 7)],
        [(k, 256) for k in (3, 5)],
    ]
