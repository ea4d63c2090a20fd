from __future__ import annotations

import copy
import http.server
import io
import os
import re
import threading
import zipfile
from collections import OrderedDict, defaultdict, namedtuple
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.model import BaseModel, BaseModule
from mmengine.optim import scheduler as schedulers
from mmengine.runner import Runner, load_checkpoint
from mmengine.runner import checkpoint as mmengine_checkpoint
from torch import nn

from mixdet import compat
from mixdet.compat import checkpoint
from mixdet.compat.checkpoint import plain, trust_checkpoints
from mixdet.errors import MixDetError

compat.prepare()


@pytest.fixture(autouse=True)
def _distrust() -> Iterator[None]:
    yield
    trust_checkpoints(False)


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path, call: Callable) -> None:
        self.folder, self.call = folder, call

    def __reduce__(self) -> tuple:
        return self.call, (str(self.folder),)


def harmless_looking(folder: str) -> int:
    os.mkdir(folder)  # noqa: PTH102
    return 0


def through_torch(value: object) -> object:
    """What a reader who trusts nobody sees of what we write."""
    buffer = io.BytesIO()
    checkpoint.save(value, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


# --- what is written -----------------------------------------------------------------------------


class Data(torch.utils.data.Dataset):
    def __init__(self) -> None:
        self.metainfo = {"palette": np.arange(6).reshape(2, 3), "n": np.float64(0.5)}

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.full((3,), float(index))


class Model(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))

    def forward(self, *inputs: torch.Tensor, mode: str = "loss") -> dict:
        return {"loss": self.layers(torch.stack(inputs)).square().mean()}


def make_runner(folder: Path, name: str, **options) -> Runner:
    return Runner(
        model=Model(),
        work_dir=str(folder),
        experiment_name=name,
        train_dataloader={
            "dataset": Data(),
            "batch_size": 2,
            "sampler": {"type": "DefaultSampler"},
        },
        train_cfg={"by_epoch": True, "max_epochs": 2},
        optim_wrapper={"optimizer": {"type": "AdamW", "lr": 0.1}},
        param_scheduler=[
            {"type": "OneCycleLR", "eta_max": 0.1, "total_steps": 10, "by_epoch": False},
            {"type": "CosineAnnealingLR", "T_max": 4},
        ],
        custom_hooks=[{"type": "EMAHook"}],
        default_hooks={"checkpoint": {"type": "CheckpointHook", "published_keys": ["state_dict"]}},
        log_level="ERROR",
        default_scope="mmdet",  # mmengine keeps it: other tests in this process build from it
        **options,
    )


def equal(a: object, b: object) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def test_a_run_of_mmengine_is_read_without_code_and_resumes_as_it_was(tmp_path: Path) -> None:
    first = make_runner(tmp_path, f"{tmp_path.name}_first")
    first.train()
    first.message_hub.update_info("best_score", np.float64(0.25))
    first.save_checkpoint(str(tmp_path), "saved.pth", by_epoch=True)

    written = torch.load(tmp_path / "saved.pth", weights_only=True)
    assert set(written) > {"state_dict", "ema_state_dict", "optimizer", "param_schedulers", "meta"}
    assert written["state_dict"]._metadata["layers.1"]["version"] == 2  # of batch norm
    assert written["meta"]["dataset_meta"]["palette"] == [[0, 1, 2], [3, 4, 5]]
    assert len(list(tmp_path.glob("epoch_2*.pth"))) == 2  # one of them published at the end
    for file in tmp_path.glob("epoch_*.pth"):
        torch.load(file, weights_only=True)

    second = make_runner(
        tmp_path, f"{tmp_path.name}_second", resume=True, load_from=str(tmp_path / "saved.pth")
    )
    second.optim_wrapper = second.build_optim_wrapper(second.optim_wrapper)  # in `train`'s order
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
        again = second.message_hub.log_scalars[key]
        for old, new in zip(buffer.data, again.data, strict=True):
            assert old.dtype == new.dtype
            np.testing.assert_array_equal(old, new)
        assert again.max_length == buffer.max_length
        assert again.statistics("mean", 2) == buffer.mean(2)
        again.update(1.0)


def test_an_mmengine_without_mixdet_resumes_too_and_skips_the_history(tmp_path: Path) -> None:
    hub = MessageHub(tmp_path.name)
    hub.update_scalar("train/loss", 2.0)
    hub.update_info("epoch", 7)
    other = MessageHub(f"{tmp_path.name}_other")
    other.load_state_dict(through_torch(hub.state_dict()))
    assert other.get_info("epoch") == 7
    assert not other.log_scalars


@pytest.mark.parametrize(
    "make",
    [
        partial(schedulers.OneCycleLR, eta_max=0.5, total_steps=12),
        partial(schedulers.OneCycleLR, eta_max=0.5, total_steps=12, anneal_strategy="linear"),
        partial(schedulers.CosineAnnealingLR, T_max=12),
        partial(schedulers.LinearLR, start_factor=0.1, end=8),
        partial(schedulers.MultiStepLR, milestones=[3, 8]),
        partial(schedulers.PolyLR, eta_min=0.01, end=12),
        partial(schedulers.CosineRestartLR, periods=[4, 8], restart_weights=[1, 0.5], eta_min=0),
        partial(schedulers.ConstantMomentum, factor=0.5, end=7),
    ],
)
def test_a_scheduler_goes_on_where_it_was(make: Callable) -> None:
    def start() -> tuple[torch.optim.Optimizer, object]:
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9)
        return optimizer, make(optimizer)

    def walk(optimizer: torch.optim.Optimizer, scheduler: object, steps: int) -> list:
        seen = []
        for _ in range(steps):
            optimizer.step()
            scheduler.step()
            seen.append([optimizer.param_groups[0][key] for key in ("lr", "momentum")])
        return seen

    one, two = start(), start()
    walk(*one, 5)
    two[0].load_state_dict(through_torch(one[0].state_dict()))
    two[1].load_state_dict(through_torch(one[1].state_dict()))
    assert walk(*one, 6) == walk(*two, 6)


def test_what_has_no_plain_form_is_left_out_and_the_rest_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(checkpoint, "print_log", lambda text, **options: said.append(text))
    point = namedtuple("Point", "x y")
    shared = torch.ones(2)
    value = {
        "kept": [np.int64(1), (np.bool_(True), np.str_("s")), {np.int8(3)}, torch.Size([2])],
        "config": ConfigDict(a={"b": [1]}),
        "default": defaultdict(list, {"k": [1.5]}),
        "point": point(1, 2),
        "path": tmp_path,
        "ordered": OrderedDict(z=1, a=2),
        "twice": [shared, shared],
        "object": object(),
        "inside": {"deep": [object()], "next": 1},
        "function": len,
    }
    read = through_torch(value)
    assert read["kept"] == [1, (True, "s"), {3}, torch.Size([2])]
    assert read["config"] == {"a": {"b": [1]}}
    assert type(read["config"]) is dict
    assert read["default"] == {"k": [1.5]}
    assert read["point"] == (1, 2)
    assert read["path"] == str(tmp_path)
    assert list(read["ordered"]) == ["z", "a"]
    assert read["twice"][0].data_ptr() == read["twice"][1].data_ptr()
    assert not {"object", "function"} & set(read)
    assert read["inside"] == {"next": 1}
    through_torch(value)  # says nothing twice
    assert [text.split(" is ")[0] for text in said] == [
        "checkpoint.object (object)",
        "checkpoint.inside.deep[0] (list)",
    ]


@pytest.mark.parametrize("history", [[], [1, 2, 3], [0.5, float("nan"), 1e300]])
def test_a_history_comes_back_as_it_was(tmp_path: Path, history: list) -> None:
    buffer = HistoryBuffer(history, [1] * len(history), max_length=50)
    hub = {"message_hub": {"log_scalars": {"a": buffer}, "runtime_info": {}, "resumed_keys": {}}}
    checkpoint.save(hub, tmp_path / "h.pth")
    again = checkpoint.load(tmp_path / "h.pth")["message_hub"]["log_scalars"]["a"]
    for old, new in zip(buffer.data, again.data, strict=True):
        np.testing.assert_array_equal(old, new)
        assert old.dtype == new.dtype
    assert again.max_length == 50


def test_saving_changes_nothing_of_what_is_saved() -> None:
    value = {"message_hub": {"log_scalars": {"a": HistoryBuffer([1.0], [1])}}, "f": len}
    before = copy.copy(value)
    plain(value)
    assert value == before
    assert isinstance(value["message_hub"]["log_scalars"]["a"], HistoryBuffer)


# --- what is read --------------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("call", "wanted"), [(os.mkdir, "posix.mkdir"), (harmless_looking, "harmless_looking")]
)
def test_code_in_a_checkpoint_does_not_run(
    tmp_path: Path, call: Callable, wanted: str, zipped: bool
) -> None:
    made, file = tmp_path / "made", tmp_path / "file.pth"
    content = {"state_dict": {}, "meta": Payload(made, call)}
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(MixDetError) as caught:
        load_checkpoint(nn.Linear(1, 1), str(file))
    message = str(caught.value)
    assert message.startswith(f"{file} is not loaded: it would have to run code")
    assert wanted in message
    assert "--trust-checkpoint" in message
    assert "\n" not in message
    assert not made.exists()
    trust_checkpoints()
    load_checkpoint(nn.Linear(1, 1), str(file))
    assert made.exists()


def test_a_checkpoint_of_mmengine_itself_needs_trust(tmp_path: Path) -> None:
    file = tmp_path / "plain_mmengine.pth"
    torch.save(
        {"state_dict": {}, "message_hub": {"log_scalars": {"a": HistoryBuffer([1.0], [1])}}}, file
    )
    with pytest.raises(MixDetError, match=r"plain_mmengine.pth.*HistoryBuffer.*--trust-checkpoint"):
        mmengine_checkpoint._load_checkpoint(str(file))
    trust_checkpoints()
    read = mmengine_checkpoint._load_checkpoint(str(file))
    assert read["message_hub"]["log_scalars"]["a"].current() == 1.0


def damaged(kind: str) -> bytes:
    buffer = io.BytesIO()
    if kind == "other zip":
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("readme.txt", "hello")
    elif kind == "list":
        torch.save([1, 2], buffer)
    elif kind == "script":
        torch.jit.save(torch.jit.script(nn.Linear(1, 1)), buffer)
    else:
        torch.save({"state_dict": {"a": torch.ones(1000)}}, buffer)
    content = buffer.getvalue()
    texts = {"empty": b"", "text": b"hello, no checkpoint\n", "page": b"<!DOCTYPE html><html>"}
    return texts.get(kind, content[: len(content) // 2] if kind == "truncated" else content)


@pytest.mark.parametrize("trusted", [True, False])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kind", ["empty", "text", "page", "truncated", "other zip", "list"])
def test_a_file_that_is_no_checkpoint_is_refused_by_name(
    tmp_path: Path, kind: str, suffix: str, trusted: bool
) -> None:
    file = tmp_path / f"broken{suffix}"
    file.write_bytes(damaged(kind))
    trust_checkpoints(trusted)
    with pytest.raises(MixDetError) as caught:
        mmengine_checkpoint._load_checkpoint(str(file))
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)
    assert "trust" not in str(caught.value)


def test_a_script_module_is_no_checkpoint(tmp_path: Path) -> None:
    file = tmp_path / "scripted.pt"
    file.write_bytes(damaged("script"))
    with pytest.raises(MixDetError, match=r"scripted.pt cannot be read.*TorchScript"):
        checkpoint.load(file)


@pytest.mark.parametrize("name", ["none.pth", "none.safetensors", "."])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    for load in (mmengine_checkpoint._load_checkpoint, checkpoint.load):
        with pytest.raises(MixDetError, match=re.escape(str(file))):
            load(str(file))


def test_safetensors_are_a_state_dict(tmp_path: Path) -> None:
    state = nn.Linear(3, 2).state_dict()
    safetensors.torch.save_file(state, tmp_path / "weights.safetensors")
    model = nn.Linear(3, 2)
    load_checkpoint(model, str(tmp_path / "weights.safetensors"), map_location="cpu", strict=True)
    assert equal(dict(state), dict(model.state_dict()))


def test_pretrained_initialisation_refuses_code(tmp_path: Path) -> None:
    made, file = tmp_path / "made", tmp_path / "file.pth"
    torch.save({"state_dict": {"x.w": Payload(made, os.mkdir)}}, file)
    for prefix in ({}, {"prefix": "x."}):
        module = BaseModule({"type": "Pretrained", "checkpoint": str(file), **prefix})
        with pytest.raises(MixDetError, match=r"posix\.mkdir"):
            module.init_weights()
    assert not made.exists()


# --- over the network ----------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A folder and the address that serves it; torch's and mmengine's caches are empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("MMENGINE_HOME", str(tmp_path / "mmengine"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = tmp_path / "site"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Quiet, directory=str(folder))
    ) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def fill(folder: Path, made: Path) -> None:
    torch.save({"state_dict": {"a": torch.ones(2)}}, folder / "good.pth")
    torch.save({"state_dict": {"a": Payload(made, os.mkdir)}}, folder / "bad.pth")
    for number in (1, 2):
        (folder / str(number)).mkdir()
        tensors = {"a": torch.full((2,), float(number))}
        safetensors.torch.save_file(tensors, folder / f"{number}/model.safetensors")


@pytest.mark.parametrize("scheme", ["http", "torchvision", "open-mmlab", "mmcls", "local mmlab"])
def test_every_scheme_reads_data_and_refuses_code(
    site: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    folder, url = site
    fill(folder, tmp_path / "made")
    models = {name: f"{url}/{name}.pth" for name in ("good", "bad")}
    if scheme == "local mmlab":  # a name that mmengine's own folder answers
        models = {name: str(folder / f"{name}.pth") for name in models}
    for finder in ("get_torchvision_models", "get_external_models", "get_mmcls_models"):
        monkeypatch.setattr(mmengine_checkpoint, finder, lambda: models)
    prefix = {"http": f"{url}/", "local mmlab": "open-mmlab://"}.get(scheme, f"{scheme}://")
    suffix = ".pth" if scheme == "http" else ""
    read = mmengine_checkpoint._load_checkpoint(f"{prefix}good{suffix}")["state_dict"]
    assert scheme == "mmcls" or read["a"].tolist() == [1, 1]
    with pytest.raises(MixDetError, match=r"bad.pth is not loaded.*posix.mkdir"):
        mmengine_checkpoint._load_checkpoint(f"{prefix}bad{suffix}")
    assert not (tmp_path / "made").exists()


def test_two_models_of_one_file_name_are_not_mixed_up(site: tuple[Path, str]) -> None:
    folder, url = site
    fill(folder, folder / "made")
    for number in (1, 2, 1):
        read = mmengine_checkpoint._load_checkpoint(f"{url}/{number}/model.safetensors")
        assert read["a"].tolist() == [number, number]


def test_a_download_is_kept(site: tuple[Path, str]) -> None:
    folder, url = site
    fill(folder, folder / "made")
    mmengine_checkpoint._load_checkpoint(f"{url}/good.pth")
    (folder / "good.pth").unlink()
    assert mmengine_checkpoint._load_checkpoint(f"{url}/good.pth")["state_dict"]


def test_what_cannot_be_fetched_is_named(site: tuple[Path, str]) -> None:
    for name in (f"{site[1]}/none.pth", "http://127.0.0.1:9/a.pth"):
        with pytest.raises(MixDetError, match=rf"{name} cannot be fetched"):
            mmengine_checkpoint._load_checkpoint(name)
    with pytest.raises(MixDetError, match="knows no model named 'nosuch'"):
        mmengine_checkpoint._load_checkpoint("open-mmlab://nosuch")


def test_a_config_that_mmengine_would_run_on_resume_is_dropped(tmp_path: Path) -> None:
    """`Runner.resume` hands `meta.config` to `Config.fromstring`, which runs it as Python."""
    payload, file = tmp_path / "ran", tmp_path / "evil.pth"
    first = make_runner(tmp_path, f"{tmp_path.name}_first")
    first.train()
    first.save_checkpoint(str(tmp_path), "evil.pth")
    content = torch.load(file, weights_only=True)
    content["meta"]["config"] = f"x = open({str(payload)!r}, 'w').close()\n"
    torch.save(content, file)
    torch.load(file, weights_only=True)  # torch sees plain values
    second = make_runner(tmp_path, f"{tmp_path.name}_second")
    second.optim_wrapper = second.build_optim_wrapper(second.optim_wrapper)
    second.param_schedulers = second.build_param_scheduler(second.param_schedulers)
    second.call_hook("before_run")
    second.resume(str(file))
    assert not payload.exists()
    trust_checkpoints()
    assert "config" in checkpoint.load(file)["meta"]
