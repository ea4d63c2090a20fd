"""The two sides of the benchmark `eval`, mmdet and MixDet, find the same boxes in each image."""

from __future__ import annotations

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.structures import InstanceData

from benchmarks.networks import NETWORKS
from benchmarks.testing import make_test_runner, mmdet_settings
from mixdet.config.read import load_config
from mixdet.config.shipped import shipped_folder

# Type, tolerated distance in pixels, tolerated fraction of unmatched boxes. In float32, folding
# batch norm changes the last digits of the scores. Two boxes may then swap their order. NMS or the
# limit of 100 boxes may then keep the other one of the two.
FLOAT32 = (torch.float32, 1e-2, 1e-3)


def detections(
    side: str, name: str, source: str, folder: str, dtype: torch.dtype
) -> dict[int, InstanceData]:
    """Return the detections of `Runner.test` above a score of 0.001, by image id."""
    runner = make_test_runner(side, name, source, 1e-3, folder)
    runner.model.to(dtype).data_preprocessor.register_forward_hook(
        lambda module, args, data: {**data, "inputs": data["inputs"].to(dtype)}
    )
    evaluator, instances = runner.test_loop.evaluator, {}
    process = evaluator.process

    def record(data_samples, data_batch):
        instances.update({sample.img_id: sample.pred_instances for sample in data_samples})
        process(data_samples=data_samples, data_batch=data_batch)

    evaluator.process = record
    runner.test()
    return instances


@pytest.mark.heavy
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("dtype", "pixels", "tolerated"), [(torch.float64, 1e-4, 0), FLOAT32])
def test_boxes_of_the_coco_sample_equal_mmdets(
    name, dtype, pixels, tolerated, coco_sample, tmp_path, monkeypatch
):
    """For each box of mmdet, MixDet finds a box of the same class and nearly the same score.

    The two boxes differ by less than `pixels`. At most the fraction `tolerated` of mmdet's boxes
    has no such partner.
    """
    warnings = []
    monkeypatch.setattr(MMLogger, "warning", lambda self, text, *args: warnings.append(text))
    mmdet, ours = (
        detections(side, name, str(coco_sample), str(tmp_path / side), dtype)
        for side in ("mmdet", "mixdet")
    )
    assert not any("FuseHook" in text for text in warnings)
    assert len(ours) == 47
    assert ours.keys() == mmdet.keys()
    unmatched = total = 0
    for image, expected in mmdet.items():
        instances = ours[image]
        total += len(expected)
        assert len(instances) == len(expected) > 0
        assert instances.bboxes.dtype == dtype
        torch.testing.assert_close(instances.scores, expected.scores, rtol=0, atol=1e-4)
        same = expected.labels[:, None] == instances.labels
        same &= (expected.scores[:, None] - instances.scores).abs() < 1e-4
        same &= (expected.bboxes[:, None] - instances.bboxes).abs().amax(-1) < pixels
        unmatched += int((~same.any(1)).sum())
    assert unmatched <= tolerated * total


def test_the_pipeline_for_mmdet_ends_with_pack_det_inputs():
    """Only the last step of the pipeline is replaced, and its `meta_keys` are kept."""
    cfg = load_config(str(shipped_folder("configs") / "ssdlite_mixnet_s_coco.py"))
    before = [dict(step) for step in cfg.test_dataloader.dataset.pipeline]
    steps = mmdet_settings(cfg)["test_dataloader"].dataset.pipeline
    assert [step.type for step in steps[:-1]] == [step["type"] for step in before[:-1]]
    assert (before[-1]["type"], steps[-1].type) == ("PackChannelsLast", "PackDetInputs")
    assert steps[-1].meta_keys == before[-1]["meta_keys"]
