"""Both sides of the test benchmark find the same boxes in the same pictures."""

from __future__ import annotations

import pytest
import torch

from mixdet.analysis.benchmark.eval import test_runner as runner_of
from mixdet.analysis.benchmark.peers import NETWORKS


@pytest.mark.heavy
@pytest.mark.parametrize("name", NETWORKS)
def test_boxes_of_the_coco_sample_equal_mmdets(name, coco_sample, tmp_path):
    found = {}
    for side in ("mmdet", "mixdet"):
        runner = runner_of(side, name, str(coco_sample), 1e-3, str(tmp_path / side))
        seen = found[side] = {}
        loop = runner.build_test_loop(runner._test_loop)
        runner._test_loop = loop
        keep = loop.evaluator.process

        def process(data_samples, data_batch, seen=seen, keep=keep):
            seen.update({sample.img_id: sample.pred_instances for sample in data_samples})
            keep(data_samples=data_samples, data_batch=data_batch)

        loop.evaluator.process = process
        runner.test()
    assert len(found["mixdet"]) == 47
    for image, want in found["mmdet"].items():
        got = found["mixdet"][image]
        assert len(want) == 100
        torch.testing.assert_close(got.scores, want.scores, rtol=0, atol=1e-4)
        torch.testing.assert_close(got.bboxes, want.bboxes, rtol=0, atol=1e-2)
        assert torch.equal(got.labels, want.labels)
