"""Counts of parameters and multiply-adds equal mmengine's analysis and published sizes."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from mmengine.analysis import FlopAnalyzer

from mixdet.analysis import Complexity, count_complexity, count_madds
from mixdet.analysis.complexity import build_for_counting, complexity_table, count_madds_by_module
from mixdet.analysis.paper import TABLE_1, PaperRow
from mixdet.errors import MixDetError
from tests.conftest import ROOT

BASELINE = ROOT / "configs/ssdlite_mobilenet_v2_coco.py"
# Number of parameters that larger kernels (k x k) add to the network with 3x3 kernels: the sum of
# k * k - 9 over all channels. v1 and v2 are MobileNetV1 and MobileNetV2, the columns of the paper's
# table 1. mix35 and mix357 are MixConv with the kernels 3 and 5, and 3, 5 and 7.
ADDED = {
    "v1": {"5x5": 79_360, "mix35": 39_680, "7x7": 198_400, "mix357": 92_176},
    "v2": {"5x5": 114_176, "mix35": 57_088, "7x7": 285_440, "mix357": 133_168},
}


@cache
def row(column: str, kernels: str) -> Complexity:
    return count_complexity(ROOT / f"configs/table1/ssdlite_mobilenet_{column}_{kernels}_coco.py")


@pytest.mark.parametrize("name", ["ssdlite_mixnet_s_digits", "table1/ssdlite_mixnet_m_tf_coco"])
def test_counted_multiply_adds_equal_those_of_mmengine(name):
    """Only convolutions are compared. mmengine also counts batch norm, as a separate operator."""
    path = ROOT / f"configs/{name}.py"
    model, input_hw = build_for_counting(path)
    analysis = FlopAnalyzer(model, torch.zeros(1, 3, *input_hw))
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    operators = analysis.by_operator()
    assert set(operators) == {"conv", "batch_norm"}
    assert count_complexity(path).madds == operators["conv"]


def test_multiply_adds_by_module_equal_a_sum_by_hand():
    """A convolution that runs twice counts twice. A layer counts even if its parent has no count.

    The network calls `head.forward` instead of `head`, which skips the hooks of `head`.
    """

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(2, 2, 3, padding=1)
            self.head = torch.nn.Sequential(torch.nn.Linear(2, 5))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head.forward(self.conv(self.conv(x)).mean((2, 3)))

    network = Network()
    madds = count_madds_by_module(network, torch.zeros(1, 2, 4, 6))
    conv, linear = 2 * (2 * 2 * 9) * (4 * 6), 2 * 5
    assert madds[network.conv] == conv
    assert madds[network.head[0]] == linear
    assert network.head not in madds
    assert madds[network] == count_madds(network, torch.zeros(1, 2, 4, 6)) == conv + linear


def test_the_baseline_has_the_size_that_mmdet_states():
    """mmdet states 4.229 M parameters and 0.746 B multiply-adds for its config of this network."""
    baseline = count_complexity(BASELINE)
    assert baseline.input_hw == (320, 320)
    assert round(baseline.params / 1e6, 3) == 4.229
    assert round(baseline.madds / 1e9, 3) == 0.746


@pytest.mark.parametrize("column", ADDED)
@pytest.mark.parametrize("kernels", ADDED["v1"])
def test_larger_kernels_add_their_weights(column, kernels):
    assert row(column, kernels).params - row(column, "3x3").params == ADDED[column][kernels]


@pytest.mark.parametrize("column", ADDED)
@pytest.mark.parametrize("kernels", ["3x3", *ADDED["v1"]])
def test_the_rows_of_table_1_have_the_sizes_of_the_paper(column, kernels):
    """The tolerance is 0.6 % for the parameters and 1 % for the multiply-adds."""
    counted = row(column, kernels)
    assert counted.params / 1e6 == pytest.approx(counted.paper.params_m, rel=0.006)
    assert counted.madds / 1e9 == pytest.approx(counted.paper.madds_b, rel=0.01)


def test_the_differences_stated_in_the_paper_follow_from_table_1():
    """With MobileNetV1, MixConv {3,5,7} is 0.6 AP above 7x7 and 0.7 AP above 3x3.

    With MobileNetV2, it is 1.1 AP above 7x7 and 0.8 AP above 3x3.
    """
    for column, above_7x7, above_3x3 in (("v1", 0.6, 0.7), ("v2", 1.1, 0.8)):
        ap = {k: TABLE_1[f"ssdlite_mobilenet_{column}_{k}_coco"].ap for k in ("3x3", "7x7")}
        mixed = TABLE_1[f"ssdlite_mobilenet_{column}_mix357_coco"].ap
        assert mixed - ap["7x7"] == pytest.approx(above_7x7)
        assert mixed - ap["3x3"] == pytest.approx(above_3x3)


def test_the_table_shows_the_relative_differences_from_the_paper():
    rows = [
        Complexity("a", (320, 320), 4_337_013, 788_800_000, PaperRow(4.35, 0.79, 21.5)),
        Complexity("longer", (64, 128), 12, 3_000_000, None),
    ]
    assert complexity_table(rows, markdown=True).splitlines() == [
        "| config |   input |    params | paper's |  off by |   MAdds | paper's |  off by |",
        "| ------ | ------: | --------: | ------: | ------: | ------: | ------: | ------: |",
        "| a      | 320x320 | 4,337,013 |  4.35 M | -0.30 % | 0.789 B |  0.79 B | -0.15 % |",
        "| longer |  128x64 |        12 |         |         | 0.003 B |         |         |",
    ]
    text = complexity_table(rows).splitlines()[2]
    assert text == "a       320x320  4,337,013   4.35 M  -0.30 %  0.789 B   0.79 B  -0.15 %"


def test_a_config_without_an_input_size_is_refused(tmp_path):
    config = tmp_path / "sizeless.py"
    config.write_text(
        f"_base_ = {str(BASELINE)!r}\n"
        "test_dataloader = dict(dataset=dict(pipeline=[dict(type='PackDetInputs')]))\n"
    )
    with pytest.raises(MixDetError, match=r"sizeless\.py: .* test pipeline has no Resize"):
        count_complexity(config)
