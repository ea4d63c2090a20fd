"""Files are whole or not there, whenever the process is killed."""

from __future__ import annotations

import itertools
import multiprocessing
from types import SimpleNamespace

import pytest
from mmengine.fileio import get_file_backend
from mmengine.logging import MessageHub

from mixdet.engine import SafeCheckpointHook, write_atomically


def write_for_ever(path) -> None:
    for number in itertools.count():
        write_atomically(path, bytes([number % 256]) * 10**6)


def test_the_backend_writes_bytes_and_text(tmp_path):
    backend = get_file_backend(backend_args={"backend": "atomic"})
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
        raise OSError("disk full")

    monkeypatch.setattr(*(("os.fsync",) if step == "fsync" else ("pathlib.Path.replace",)), fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_killed_process_leaves_a_whole_file(tmp_path):
    path = tmp_path / "file"
    writer = multiprocessing.get_context("fork").Process(target=write_for_ever, args=[path])
    writer.start()
    while not path.exists():
        assert writer.is_alive()
    for _ in range(50):  # whatever moment a reader chooses, the file is whole
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
    """A runner that writes checkpoints of one byte, or fails."""

    fails = False

    def save_checkpoint(self, out_dir, filename, *_, backend_args, **__):
        assert backend_args == {"backend": "atomic"}
        self.seen.append({path.name for path in self.folder.glob("*.pth")})
        if self.fails:
            raise OSError("disk full")
        get_file_backend(backend_args=backend_args).put(b"x", self.folder / filename)


def test_there_is_always_a_whole_checkpoint_that_last_checkpoint_names(tmp_path):
    hub = MessageHub(f"hub of {tmp_path}")
    logger = SimpleNamespace(info=lambda message: None)
    runner = FakeRunner(
        work_dir=str(tmp_path), folder=tmp_path, message_hub=hub, logger=logger, seen=[], iter=0
    )
    hook = SafeCheckpointHook(interval=1, max_keep_ckpts=1)
    hook.before_train(runner)
    for runner.epoch in range(3):
        hook._save_checkpoint(runner)
        assert (tmp_path / "last_checkpoint").read_text() == str(
            tmp_path / f"epoch_{runner.epoch + 1}.pth"
        )
        hook._save_checkpoint(runner)  # as after a best score: the same epoch once more
        assert {path.name for path in tmp_path.glob("*.pth")} == {f"epoch_{runner.epoch + 1}.pth"}
    assert runner.seen[2] == {"epoch_1.pth"}  # while the second is written the first is there
    assert hub.get_info("keep_ckpt_ids") == [3]

    runner.epoch, runner.fails = 3, True
    with pytest.raises(OSError, match="disk full"):
        hook._save_checkpoint(runner)
    assert (tmp_path / "last_checkpoint").read_text() == str(tmp_path / "epoch_3.pth")
    assert (tmp_path / "epoch_3.pth").exists()
