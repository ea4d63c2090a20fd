"""mmengine's `Runner` resumes from our checkpoints, and runs no code in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from mixdet.compat import checkpoint
from tests.compat.checkpoints import make_runner
from tests.states import equal


def test_a_runner_of_mmengine_resumes_from_a_checkpoint_without_code(tmp_path: Path) -> None:
    first = make_runner(tmp_path, f"{tmp_path.name}_first")
    first.train()
    first.message_hub.update_info("best_score", np.float64(0.25))
    first.save_checkpoint(str(tmp_path), "saved.pth", by_epoch=True)

    written = torch.load(tmp_path / "saved.pth", weights_only=True)
    assert set(written) > {"state_dict", "ema_state_dict", "optimizer", "param_schedulers", "meta"}
    assert written["state_dict"]._metadata["layers.1"]["version"] == 2  # `_version` of BatchNorm1d
    assert written["meta"]["dataset_meta"]["palette"] == [[0, 1, 2], [3, 4, 5]]
    assert len(list(tmp_path.glob("epoch_2*.pth"))) == 2  # the second one is the published copy
    for file in tmp_path.glob("epoch_*.pth"):
        torch.load(file, weights_only=True)

    second = make_runner(
        tmp_path, f"{tmp_path.name}_second", resume=True, load_from=str(tmp_path / "saved.pth")
    )
    # The same steps in the same order as in `Runner.train`
    second.optim_wrapper = second.build_optim_wrapper(second.optim_wrapper)
    second.param_schedulers = second.build_param_scheduler(second.param_schedulers)
    second.call_hook("before_run")
    second.load_or_resume()
    assert (second.epoch, second.iter) == (3, first.iter)
    assert second.message_hub.get_info("best_score") == 0.25
    assert equal(dict(first.model.state_dict()), dict(second.model.state_dict()))
    assert equal(first.optim_wrapper.state_dict(), second.optim_wrapper.state_dict())
    for a, b in zip(first.param_schedulers, second.param_schedulers, strict=True):
        assert a.state_dict() == b.state_dict()
    assert (
        set(second.message_hub.log_scalars) == set(first.message_hub.log_scalars) > {"train/loss"}
    )
    for key, buffer in first.message_hub.log_scalars.items():
        restored = second.message_hub.log_scalars[key]
        for old, new in zip(buffer.data, restored.data, strict=True):
            assert old.dtype == new.dtype
            np.testing.assert_array_equal(old, new)
        assert restored.max_length == buffer.max_length
        assert restored.statistics("mean", 2) == buffer.mean(2)
        restored.update(1.0)


def test_the_config_in_a_checkpoint_does_not_run_on_resume(tmp_path: Path) -> None:
    """Without our fix, `Runner.resume` runs the text `meta.config` as Python."""
    payload, file = tmp_path / "ran", tmp_path / "evil.pth"
    first = make_runner(tmp_path, f"{tmp_path.name}_first")
    first.train()
    first.save_checkpoint(str(tmp_path), "evil.pth")
    content = torch.load(file, weights_only=True)
    content["meta"]["config"] = f"x = open({str(payload)!r}, 'w').close()\n"
    torch.save(content, file)
    torch.load(file, weights_only=True)  # torch accepts the file, since the code is only a string
    second = make_runner(tmp_path, f"{tmp_path.name}_second")
    second.optim_wrapper = second.build_optim_wrapper(second.optim_wrapper)
    second.param_schedulers = second.build_param_scheduler(second.param_schedulers)
    second.call_hook("before_run")
    second.resume(str(file))
    assert not payload.exists()
    assert "config" in checkpoint.load(file, trust=True)["meta"]
