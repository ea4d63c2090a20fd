"""A file is complete or absent, even if the process is killed while it writes the file."""

from __future__ import annotations

import errno
import itertools
import multiprocessing
import shutil
from types import SimpleNamespace

import pytest
from mmengine.fileio import get_file_backend
from mmengine.logging import MessageHub
from mmengine.runner import find_latest_checkpoint

from mixdet.engine import AtomicBackend, SafeCheckpointHook, write_last_checkpoint
from mixdet.errors import MixDetError
from mixdet.outputs import write_atomically


def write_again_and_again(path) -> None:
    for number in itertools.count():
        write_atomically(path, bytes([number % 256]) * 10**6)


def test_the_backend_writes_bytes_and_text(tmp_path):
    backend = get_file_backend(backend_args={"backend": "atomic"})
    assert isinstance(backend, AtomicBackend)
    backend.put(b"\x00\x01", tmp_path / "new folder" / "a")
    backend.put_text("é", tmp_path / "b")
    assert (tmp_path / "new folder" / "a").read_bytes() == b"\x00\x01"
    assert backend.get_text(tmp_path / "b") == "é"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "new folder"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_alone(tmp_path, monkeypatch, step):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def fail(*_):
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr(*(("os.fsync",) if step == "fsync" else ("pathlib.Path.replace",)), fail)
    with pytest.raises(MixDetError, match="disk full"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_killed_process_leaves_a_complete_file(tmp_path):
    path = tmp_path / "file"
    writer = multiprocessing.get_context("fork").Process(target=write_again_and_again, args=[path])
    writer.start()
    while not path.exists():
        assert writer.is_alive()
    for _ in range(50):  # during the writing, a reader sees only complete files
        content = path.read_bytes()
        assert len(content) == 10**6
        assert len(set(content)) == 1
    writer.kill()
    writer.join()
    content = path.read_bytes()
    assert len(content) == 10**6
    assert len(set(content)) == 1
    assert set(tmp_path.iterdir()) <= {path, tmp_path / ".file.part"}


class FakeRunner(SimpleNamespace):
    """A runner that writes checkpoints of one byte, or fails to write them if `fails` is set."""

    fails = False
    iter = epoch = 0
    val_loop = None

    def __init__(self, folder):
        folder.mkdir(exist_ok=True)
        hub = MessageHub(f"hub of {folder}")
        logger = SimpleNamespace(info=lambda message: None)
        super().__init__(
            work_dir=str(folder), folder=folder, message_hub=hub, logger=logger, seen=[]
        )

    def save_checkpoint(self, out_dir, filename, *_, backend_args, **__):
        assert backend_args == {"backend": "atomic"}
        self.seen.append(names(self.folder))
        if self.fails:
            raise OSError(errno.ENOSPC, "disk full")
        get_file_backend(backend_args=backend_args).put(b"x", self.folder / filename)


def names(folder):
    return {path.name for path in folder.glob("*.pth")}


def test_mmengine_finds_the_last_checkpoint_that_was_recorded(tmp_path):
    write_last_checkpoint(tmp_path, tmp_path / "epoch_2.pth")
    assert find_latest_checkpoint(tmp_path) == str(tmp_path / "epoch_2.pth")


def test_last_checkpoint_always_names_a_complete_checkpoint(tmp_path):
    runner = FakeRunner(tmp_path)
    hook = SafeCheckpointHook(interval=1, max_keep_ckpts=1)
    hook.before_train(runner)
    for runner.epoch in range(3):
        hook.after_train_epoch(runner)
        assert (tmp_path / "last_checkpoint").read_text() == str(
            tmp_path / f"epoch_{runner.epoch + 1}.pth"
        )
        hook.after_train_epoch(runner)  # saving an epoch twice keeps its checkpoint
        assert names(tmp_path) == {f"epoch_{runner.epoch + 1}.pth"}
    assert runner.seen[2] == {"epoch_1.pth"}  # stays until epoch_2.pth is written
    assert runner.message_hub.get_info("keep_ckpt_ids") == [3]

    runner.epoch, runner.fails = 3, True
    with pytest.raises(OSError, match="disk full"):
        hook.after_train_epoch(runner)
    assert (tmp_path / "last_checkpoint").read_text() == str(tmp_path / "epoch_3.pth")
    assert (tmp_path / "epoch_3.pth").exists()


METRICS = {"one": "a", "two": ["a", "b"], "first": "auto"}


def best_hook(runner, metrics):
    hook = SafeCheckpointHook(save_best=metrics, rule="greater")
    hook.before_train(runner)
    return hook


def validate(hook, runner, epoch, a, b):
    runner.epoch = epoch
    hook.after_val_epoch(runner, {"a": a, "b": b})


@pytest.mark.parametrize("metrics", METRICS.values(), ids=METRICS)
def test_the_best_checkpoint_stays_until_the_next_one_is_written(tmp_path, metrics):
    runner = FakeRunner(tmp_path)
    hook = best_hook(runner, metrics)
    other_metric = {"best_b_epoch_1.pth"} if "b" in metrics else set()
    for epoch, a, best in ((1, 0.1, 1), (2, 0.3, 2), (3, 0.2, 2), (4, 0.4, 4)):
        validate(hook, runner, epoch, a, b=-a)
        assert names(tmp_path) == {f"best_a_epoch_{best}.pth"} | other_metric
    assert runner.seen[-1] == {"best_a_epoch_2.pth"} | other_metric  # before the last write

    runner.fails = True
    with pytest.raises(OSError, match="disk full"):
        validate(hook, runner, 5, 0.5, b=-1)
    assert names(tmp_path) == {"best_a_epoch_4.pth"} | other_metric


@pytest.mark.parametrize("metrics", METRICS.values(), ids=METRICS)
@pytest.mark.parametrize("copied", [True, False], ids=["copied folder", "other folder"])
def test_another_folders_best_checkpoint_is_left_alone(tmp_path, metrics, copied):
    first = FakeRunner(tmp_path / "first")
    validate(best_hook(first, metrics), first, 2, 0.5, 0.5)
    kept = names(first.folder)
    assert kept
    if copied:
        shutil.copytree(first.folder, tmp_path / "second")
    second = FakeRunner(tmp_path / "second")
    second.message_hub.load_state_dict(first.message_hub.state_dict())  # as resuming does
    hook = best_hook(second, metrics)
    where = second if copied else first
    info = second.message_hub.runtime_info
    paths = {path for name, path in info.items() if name.startswith("best_ckpt")}
    assert paths == {str(where.folder / name) for name in kept}

    validate(hook, second, 2, 0.6, 0.6)  # the new file has the name of the old one
    assert names(second.folder) == kept
    validate(hook, second, 3, 0.7, 0.7)
    assert names(second.folder) == {name.replace("epoch_2", "epoch_3") for name in kept}
    assert names(first.folder) == kept
