"""Both sides of the test benchmark find the same boxes in the same pictures."""

from __future__ import annotations

import pytest
import torch
from mmengine.structures import InstanceData

from mixdet.analysis.benchmark.eval import _mmdets
from mixdet.analysis.benchmark.eval import test_runner as runner_of
from mixdet.analysis.benchmark.peers import NETWORKS
from mixdet.engine.launch import load_config
from mixdet.evaluation.coco_scores import BACKENDS
from mixdet.shipped import shipped


def detections(side: str, name: str, source: str, folder: str) -> dict[int, InstanceData]:
    """What `Runner.test` finds at a score of 0.001, by picture."""
    runner = runner_of(side, name, source, 1e-3, folder, 1, BACKENDS[0])
    loop = runner._test_loop = runner.build_test_loop(runner._test_loop)
    process, found = loop.evaluator.process, {}

    def note(data_samples, data_batch):
        found.update({sample.img_id: sample.pred_instances for sample in data_samples})
        process(data_samples=data_samples, data_batch=data_batch)

    loop.evaluator.process = note
    runner.test()
    return found


@pytest.mark.heavy
@pytest.mark.parametrize("name", NETWORKS)
def test_boxes_of_the_coco_sample_equal_mmdets(name, coco_sample, tmp_path):
    """Box for box: a ten-thousandth of the score, a hundredth of a pixel.

    Folding batch norm moves the last digits, so that now and then two boxes change places, or NMS,
    or the cut at 100, takes one for the other.
    """
    mmdet, ours = (
        detections(side, name, str(coco_sample), str(tmp_path / side))
        for side in ("mmdet", "mixdet")
    )
    assert len(ours) == 47
    assert ours.keys() == mmdet.keys()
    alone = total = 0
    for image, want in mmdet.items():
        got = ours[image]
        total += len(want)
        assert len(got) == len(want) > 0
        torch.testing.assert_close(got.scores, want.scores, rtol=0, atol=1e-4)
        same = want.labels[:, None] == got.labels
        same &= (want.scores[:, None] - got.scores).abs() < 1e-4
        same &= (want.bboxes[:, None] - got.bboxes).abs().amax(-1) < 1e-2
        alone += int((~same.any(1)).sum())
    assert alone <= total / 1000


def test_mmdets_side_ends_with_mmdets_own_step():
    """It keeps what the config has the step hand on."""
    cfg = load_config(str(shipped("configs") / "ssdlite_mixnet_s_coco.py"))
    given = [dict(step) for step in cfg.test_dataloader.dataset.pipeline]
    steps = _mmdets(cfg)["test_dataloader"].dataset.pipeline
    assert [step.type for step in steps[:-1]] == [step["type"] for step in given[:-1]]
    assert (given[-1]["type"], steps[-1].type) == ("PackChannelsLast", "PackDetInputs")
    assert steps[-1].meta_keys == given[-1]["meta_keys"]
