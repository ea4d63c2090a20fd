"""An ablation changes the kernels of one block at a time."""

from __future__ import annotations

import pytest
from mmdet.registry import MODELS

from mixdet.comparison import (
    Plan,
    plan_ablation,
    train_all,
    write_ablation_report,
    write_report,
)
from mixdet.config.read import load_config
from mixdet.errors import MixDetError
from tests.conftest import ROOT
from tests.tiny import write_config, write_images

V2 = str(ROOT / "configs/table1_digits/ssdlite_mobilenet_v2_3x3_digits.py")
BACKBONE = """
model['backbone'] = dict(
    type='MixMobileNetV2', kernel_sizes=3, widen_factor=0.25, taps=('stage3', 'stage4'))
model['bbox_head']['in_channels'] = (8, 16)
"""


def shapes(config: str, *options: str) -> dict[str, tuple[int, ...]]:
    model = MODELS.build(load_config(config, options).model)
    return {name: tuple(weight.shape) for name, weight in model.state_dict().items()}


def test_each_config_changes_the_kernels_of_one_block_only(tmp_path):
    plan = plan_ablation(Plan((V2,), (0, 1)), [9, 2], (5,), tmp_path / "out")
    base, *configs = plan.configs
    assert (base, plan.seeds) == (V2, (0, 1))
    plain = shapes(base)
    for config, name, channels in zip(
        configs, ["blocks.1.0", "blocks.3.2"], [96, 384], strict=True
    ):
        name = f"backbone.{name}.conv_dw.weight"
        assert plain[name] == (channels, 1, 3, 3)
        assert shapes(config) == plain | {name: (channels, 1, 5, 5)}
    option = "model.backbone.block_kernel_sizes.9=5"
    assert shapes(configs[1]) == shapes(base, option)


@pytest.mark.parametrize(
    ("config", "block", "kernels", "words"),
    [
        (V2, 14, (3, 5), "no block 14"),  # the backbone ends with block 13
        (V2, 2, (4,), "kernel size 4"),
        (V2.replace("mobilenet_v2_3x3", "mixnet_s_plainhead"), 2, (5,), "MixNet cannot change"),
    ],
)
def test_wrong_blocks_and_kernels_are_refused_before_anything_is_written(
    tmp_path, config, block, kernels, words
):
    with pytest.raises(MixDetError, match=words):
        plan_ablation(Plan((config,), (0,)), [2, block], kernels, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.heavy
def test_an_ablation_trains_and_reports_every_block(tmp_path):
    config = write_config(tmp_path, write_images(tmp_path / "data"), epochs=1, extra=BACKBONE)
    out = tmp_path / "out"
    plan = plan_ablation(Plan((str(config),), (0,)), [2, 7], (3, 7), out)
    comparison = train_all(plan, out)
    write_report(comparison, images=0)
    text = write_ablation_report(comparison, [2, 7])
    assert (out / "ablation.md").read_text() == text
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()[2:]]
    # Block 2 and block 7 both expand 8 channels to 48. Half of the 48 get 7x7 kernels, which have
    # 7 * 7 - 3 * 3 = 40 more weights each: 24 * 40 = 960.
    assert [row[:3] + row[4:5] for row in rows] == [
        ["2", "2", "2", "+960"],
        ["7", "4", "2", "+960"],
    ]
    assert all("not separable" in row[3] for row in rows)  # one seed gives no interval
    assert "change in mAP" in (out / "ablation.svg").read_text()
