"""Both sides of the test benchmark find the same boxes in the same images."""

from __future__ import annotations

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.structures import InstanceData

from benchmarks.eval import _mmdets
from benchmarks.eval import test_runner as runner_of
from benchmarks.peers import NETWORKS
from mixdet.config.read import load_config
from mixdet.config.shipped import shipped_folder
from mixdet.evaluation.coco_scores import BACKENDS

# The last digits move when batch norm is folded, and now and then two boxes change places, or NMS,
# or the cut at 100, takes one for the other.
FLOAT32 = (torch.float32, 1e-2, 1e-3)


def detections(
    side: str, name: str, source: str, folder: str, dtype: torch.dtype
) -> dict[int, InstanceData]:
    """What `Runner.test` finds at a score of 0.001, by image, computing in `dtype`."""
    runner = runner_of(side, name, source, 1e-3, folder, 1, BACKENDS[0])
    runner.model.to(dtype).data_preprocessor.register_forward_hook(
        lambda module, args, data: {**data, "inputs": data["inputs"].to(dtype)}
    )
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
@pytest.mark.parametrize(("dtype", "pixels", "share"), [(torch.float64, 1e-4, 0), FLOAT32])
def test_boxes_of_the_coco_sample_equal_mmdets(
    name, dtype, pixels, share, coco_sample, tmp_path, monkeypatch
):
    """Box for box: a ten-thousandth of the score, and so many pixels."""
    left_out = []
    monkeypatch.setattr(MMLogger, "warning", lambda self, text, *args: left_out.append(text))
    mmdet, ours = (
        detections(side, name, str(coco_sample), str(tmp_path / side), dtype)
        for side in ("mmdet", "mixdet")
    )
    assert not any("FuseHook" in text for text in left_out)
    assert len(ours) == 47
    assert ours.keys() == mmdet.keys()
    alone = total = 0
    for image, want in mmdet.items():
        got = ours[image]
        total += len(want)
        assert len(got) == len(want) > 0
        assert got.bboxes.dtype == dtype
        torch.testing.assert_close(got.scores, want.scores, rtol=0, atol=1e-4)
        same = want.labels[:, None] == got.labels
        same &= (want.scores[:, None] - got.scores).abs() < 1e-4
        same &= (want.bboxes[:, None] - got.bboxes).abs().amax(-1) < pixels
        alone += int((~same.any(1)).sum())
    assert alone <= share * total


def test_mmdets_side_ends_with_mmdets_own_step():
    """It keeps what the config has the step hand on."""
    cfg = load_config(str(shipped_folder("configs") / "ssdlite_mixnet_s_coco.py"))
    given = [dict(step) for step in cfg.test_dataloader.dataset.pipeline]
    steps = _mmdets(cfg)["test_dataloader"].dataset.pipeline
    assert [step.type for step in steps[:-1]] == [step["type"] for step in given[:-1]]
    assert (given[-1]["type"], steps[-1].type) == ("PackChannelsLast", "PackDetInputs")
    assert steps[-1].meta_keys == given[-1]["meta_keys"]
