"""`TimmPretrained` loads the right ImageNet weights of timm, and refuses wrong ones."""

from __future__ import annotations

import copy
import io
import pickle
from pathlib import Path

import huggingface_hub.constants
import pytest
import timm
import torch
from mmdet.registry import MODELS
from mmengine.model import initialize
from safetensors.torch import save_file
from torch import Tensor, nn

from mixdet.errors import MixDetError
from mixdet.models import MixMobileNetV1, MixMobileNetV2, MixNet, TimmPretrained
from mixdet.models.weight_init import timm_normalization

IMAGENET = ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
INCEPTION = ([127.5] * 3, [127.5] * 3)


def timm_state(name: str) -> dict[str, Tensor]:
    """Return a state dict of a timm model with random values in every tensor."""
    torch.manual_seed(0)
    state = timm.create_model(name).state_dict()
    for tensor in state.values():
        if tensor.is_floating_point():
            tensor.normal_()
        else:
            tensor.random_(1, 10_000)
    return state


def write(state: dict[str, Tensor], file: Path) -> str:
    if file.suffix == ".safetensors":
        save_file(state, file)
    else:
        torch.save(state, file)
    return str(file)


def assert_equals_file(backbone: nn.Module, state: dict[str, Tensor]) -> None:
    own = backbone.state_dict()
    assert len(own) > 100
    for name, tensor in own.items():
        assert torch.equal(tensor, state[name]), name


@pytest.fixture
def hub(monkeypatch) -> list[str]:
    """A list of the pages that are requested from a fake Hugging Face hub."""
    pages = []

    def fetch(page: str, **kwargs) -> dict[str, Tensor]:
        pages.append(page)
        return timm_state(page.removeprefix("timm/").split(".")[0])

    monkeypatch.setattr(timm.models, "load_state_dict_from_hf", fetch)
    monkeypatch.setattr("socket.create_connection", lambda *args: io.BytesIO())
    return pages


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("detector_init", [None, dict(type="Constant", layer="Conv2d", val=0.5)])
def test_the_backbone_has_the_weights_of_the_file_after_the_detectors_init(
    tmp_path, suffix, detector_init
):
    state = timm_state("mixnet_s")
    file = write(state, tmp_path / f"model{suffix}")
    detector = MODELS.build(
        dict(
            type="FCOS",
            backbone=dict(
                type="MixNet",
                norm_eval=True,
                frozen_stages=1,
                init_cfg=dict(type="TimmPretrained", checkpoint=file),
            ),
            neck=dict(type="FPN", in_channels=[40, 120, 200], out_channels=32, num_outs=3),
            bbox_head=dict(
                type="FCOSHead",
                num_classes=2,
                in_channels=32,
                feat_channels=32,
                stacked_convs=1,
                strides=[8, 16, 32],
            ),
            init_cfg=detector_init,
        )
    )
    before = copy.deepcopy(detector.state_dict())
    detector.init_weights()
    detector.train()
    assert_equals_file(detector.backbone, state)
    for name in ("neck.fpn_convs.0.conv.weight", "bbox_head.conv_cls.weight"):
        assert not torch.equal(detector.state_dict()[name], before[name])


@pytest.mark.parametrize(
    ("make", "kwargs", "page"),
    [
        (MixNet, dict(arch="s"), "timm/mixnet_s.ft_in1k"),
        (MixNet, dict(arch="m"), "timm/mixnet_m.ft_in1k"),
        (MixNet, dict(arch="l"), "timm/mixnet_l.ft_in1k"),
        (MixNet, dict(arch="xl"), "timm/mixnet_xl.ra_in1k"),
        (MixNet, dict(arch="s", padding="same"), "timm/tf_mixnet_s.in1k"),
        (MixNet, dict(arch="m", padding="same"), "timm/tf_mixnet_m.in1k"),
        (MixNet, dict(arch="l", padding="same"), "timm/tf_mixnet_l.in1k"),
        (MixMobileNetV1, dict(), "timm/mobilenetv1_100.ra4_e3600_r224_in1k"),
        (MixMobileNetV2, dict(kernel_sizes=3), "timm/mobilenetv2_100.ra_in1k"),
    ],
    ids=str,
)
def test_arch_and_padding_choose_the_weights(hub, make, kwargs, page):
    backbone = make(**kwargs, init_cfg=dict(type="TimmPretrained"))
    backbone.init_weights()
    assert hub == [page]
    assert_equals_file(backbone, timm_state(page.removeprefix("timm/").split(".")[0]))


def test_the_argument_model_chooses_the_weights(hub):
    override = dict(type="TimmPretrained", model="tf_mixnet_l.in1k")
    MixNet("l", padding="same", init_cfg=override).init_weights()
    assert hub == ["timm/tf_mixnet_l.in1k"]


@pytest.mark.parametrize(
    ("kwargs", "model", "message"),
    [
        (dict(), "tf_mixnet_s.in1k", "for padding='same'"),
        (dict(padding="same"), "mixnet_s.ft_in1k", "for padding='symmetric'"),
        (dict(norm_cfg=dict(type="BN", eps=1e-3)), None, "for norm_cfg.eps=1e-05"),
    ],
)
def test_weights_for_another_padding_or_eps_are_refused(hub, kwargs, model, message):
    backbone = MixNet("s", **kwargs, init_cfg=dict(type="TimmPretrained", model=model))
    with pytest.raises(MixDetError, match=message):
        backbone.init_weights()
    assert hub == []


def test_a_list_of_initializers_runs_in_order(hub):
    backbone = MixNet(
        taps=("stage6",),
        init_cfg=[dict(type="Constant", layer="Conv2d", val=0.5), dict(type="TimmPretrained")],
    )
    backbone.init_weights()
    assert_equals_file(backbone, timm_state("mixnet_s"))


@pytest.mark.parametrize(
    ("make", "kwargs", "initializer", "message"),
    [
        (MixNet, dict(arch="m"), dict(model="mixnet_s.ft_in1k"), "mixnet_s.*not fit.*Missing key"),
        (MixNet, dict(arch="l"), dict(model="mixnet_m"), "mixnet_m do not fit.*size mismatch"),
        (MixMobileNetV2, dict(), dict(model="mobilenetv2_100"), r"do not fit.*conv_dw\.0"),
        (MixMobileNetV2, dict(kernel_sizes=5), dict(model="mobilenetv2_100"), "size mismatch"),
        (
            MixMobileNetV2,
            dict(),
            dict(),
            r"no ImageNet .* this MixMobileNetV2, because of its kernel sizes",
        ),
        (
            MixNet,
            dict(arch="xl", padding="same"),
            dict(),
            "timm has no ImageNet weights for this MixNet, because",
        ),
        (nn.Identity, dict(), dict(), "timm has no ImageNet weights for this Identity"),
        (MixNet, dict(), dict(model="mixnet_s.ft_in22k"), "'mixnet_s.ft_in22k': timm has no such"),
        (MixNet, dict(), dict(model="mixnet"), "'mixnet': timm has no such weights; a name looks"),
        (MixNet, dict(), dict(model="mixnet_xxl"), "'mixnet_xxl': timm has no such weights"),
    ],
    ids=str,
)
def test_weights_that_do_not_fit_are_refused_in_one_line(hub, make, kwargs, initializer, message):
    with pytest.raises(MixDetError, match=message) as info:
        initialize(make(**kwargs), dict(type="TimmPretrained", **initializer))
    assert "\n" not in str(info.value)
    assert len(str(info.value)) < 1000


@pytest.mark.parametrize("case", ["offline", "no network"])
def test_without_a_network_the_error_says_how_to_get_the_file(monkeypatch, tmp_path, case):
    if case == "offline":
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    else:

        def connect(*args):
            raise OSError("no route to host\nat all")

        def fetch(*args, **kwargs):
            raise AssertionError("the hub's client must not be called: it would retry many times")

        monkeypatch.setattr("socket.create_connection", connect)
        monkeypatch.setattr("urllib.request.getproxies", dict)
        monkeypatch.setattr(timm.models, "load_state_dict_from_hf", fetch)
    with pytest.raises(MixDetError) as info:
        MixNet("m", init_cfg=dict(type="TimmPretrained")).init_weights()
    message = str(info.value)
    assert "\n" not in message
    for part in ("mixnet_m.ft_in1k", "model.safetensors", "timm/mixnet_m.ft_in1k", "checkpoint"):
        assert part in message


def test_weights_in_the_cache_need_no_network(monkeypatch, tmp_path):
    """The cache has the layout of `huggingface_hub`. If a file is damaged, the error names it."""
    page = tmp_path / "models--timm--mixnet_m.ft_in1k"
    (page / "refs").mkdir(parents=True)
    (page / "refs" / "main").write_text("c0ffee")
    (page / "snapshots" / "c0ffee").mkdir(parents=True)
    state = timm_state("mixnet_m")
    write(state, page / "snapshots" / "c0ffee" / "model.safetensors")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))

    def connect(*args):
        raise AssertionError("no network is needed")

    monkeypatch.setattr("socket.create_connection", connect)
    backbone = MixNet("m", init_cfg=dict(type="TimmPretrained"))
    backbone.init_weights()
    assert_equals_file(backbone, state)
    (page / "snapshots" / "c0ffee" / "model.safetensors").write_bytes(b"half a file")
    with pytest.raises(MixDetError, match=r"c0ffee/model\.safetensors"):
        MixNet("m", init_cfg=dict(type="TimmPretrained")).init_weights()


def test_a_missing_file_is_refused(tmp_path):
    file = str(tmp_path / "model.safetensors")
    with pytest.raises(MixDetError, match=r"init_cfg.checkpoint: .*model.safetensors: no such"):
        TimmPretrained(checkpoint=file)(MixNet())


class Trap:
    """An object that creates a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple:
        return Path.touch, (self.file,)


def test_a_file_with_objects_is_refused_and_nothing_in_it_runs(tmp_path):
    trapped = tmp_path / "trapped"
    torch.save(
        {"state_dict": timm_state("mixnet_s"), "meta": Trap(trapped)}, tmp_path / "model.pth"
    )
    with pytest.raises(MixDetError, match="without unpickling objects") as info:
        TimmPretrained(checkpoint=str(tmp_path / "model.pth"))(MixNet())
    assert "\n" not in str(info.value)
    assert not trapped.exists()
    pickle.loads(pickle.dumps(Trap(trapped)))
    assert trapped.exists()  # unpickling does create the file


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_text("<html>not found</html>")
    with pytest.raises(MixDetError, match=r"checkpoint: .*model.safetensors"):
        TimmPretrained(checkpoint=str(file))(MixNet())


@pytest.mark.parametrize(
    ("make", "kwargs", "expected"),
    [
        (MixNet, dict(arch="s"), IMAGENET),
        (MixNet, dict(arch="xl"), IMAGENET),
        (MixNet, dict(arch="l", padding="same"), IMAGENET),
        (MixMobileNetV2, dict(kernel_sizes=3), IMAGENET),
        (MixMobileNetV1, dict(), INCEPTION),
    ],
    ids=str,
)
def test_normalization_is_the_one_that_the_weights_were_trained_with(make, kwargs, expected):
    assert timm_normalization(make(**kwargs).timm_name) == expected


def test_normalization_of_an_unknown_model_is_refused():
    with pytest.raises(MixDetError, match="timm has no such weights"):
        timm_normalization("mixnet_z.in1k")
