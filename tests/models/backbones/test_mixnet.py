"""Comparison of `MixNet` with the MixNets of timm."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor, nn

from mixdet.models import MixNet
from tests.synthetic import randomize_norms

MIXNET_TAPS = ["stem", "stage1"]
for stage in range(2, 7):
    MIXNET_TAPS += [f"stage{stage}.expansion", f"stage{stage}"]
MIXNET_TAPS += ["head"]
TIMM = {(arch, "symmetric"): f"mixnet_{arch}" for arch in ("s", "m", "l", "xl")}
TIMM |= {(arch, "same"): f"tf_mixnet_{arch}" for arch in ("s", "m", "l")}


def timm_model(name: str) -> nn.Module:
    """Return a timm model in evaluation mode. Its weights and its batch norms are random."""
    torch.manual_seed(0)
    return randomize_norms(timm.create_model(name))


def timm_outputs(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Return what timm's network computes at each of our taps, as a dict from tap to output."""
    modules = {"stem": model.bn1, "head": model.bn2}
    for number, stage in enumerate(model.blocks, 1):
        modules[f"stage{number}"] = stage
        if number > 1:
            modules[f"stage{number}.expansion"] = stage[0].bn1
    outputs = {}
    for name, module in modules.items():
        module.register_forward_hook(
            lambda _module, _args, output, name=name: outputs.update({name: output.clone()})
        )
    with torch.no_grad():
        model(x)
    return outputs


@pytest.mark.parametrize("size", [(224, 224), (321, 289)], ids=["224", "321x289"])
@pytest.mark.parametrize(("arch", "padding"), list(TIMM))
def test_every_output_equals_timm(arch, padding, size):
    theirs = timm_model(TIMM[arch, padding])
    ours = MixNet(arch, taps=MIXNET_TAPS, padding=padding).eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(1, 3, *size)
    expected = timm_outputs(theirs, x)
    with torch.no_grad():
        outputs = dict(zip(MIXNET_TAPS, ours(x), strict=True))
    assert outputs.keys() == expected.keys()
    for tap in MIXNET_TAPS:
        largest = (outputs[tap] - expected[tap]).abs().max() / expected[tap].abs().max()
        assert outputs[tap].shape == expected[tap].shape
        assert largest <= 1e-5, tap


@pytest.mark.parametrize(
    ("arch", "parameters"),
    [("s", 4_134_606), ("m", 5_014_382), ("l", 7_329_252), ("xl", 11_896_768)],
)
def test_the_number_of_parameters_is_the_same_as_in_timm(arch, parameters):
    backbone = MixNet(arch, taps=("head",))
    classifier = 1536 * 1000 + 1000
    assert sum(weight.numel() for weight in backbone.parameters()) + classifier == parameters


@pytest.mark.parametrize(("arch", "padding"), list(TIMM))
def test_timm_loads_our_weights_and_we_load_the_weights_of_timm(arch, padding):
    theirs = timm.create_model(TIMM[arch, padding])
    ours = MixNet(arch, taps=("stage3", "head"), padding=padding)
    assert str(ours.load_state_dict(theirs.state_dict())) == "<All keys matched successfully>"
    back = theirs.load_state_dict(ours.state_dict(), strict=False)
    assert back.missing_keys == ["classifier.weight", "classifier.bias"]
    assert back.unexpected_keys == []


@pytest.mark.parametrize(("arch", "padding"), list(TIMM))
def test_timm_name_is_the_timm_model_with_the_same_arch_and_padding(arch, padding):
    assert MixNet(arch, ("stem",), padding).timm_name.split(".")[0] == TIMM[arch, padding]
    assert MixNet("xl", ("stem",), "same").timm_name is None


def test_stem_head_and_first_two_stages_have_relu_and_the_other_stages_swish():
    backbone = MixNet(taps=("head",))

    def acts(module: nn.Module) -> set[type]:
        return {type(m) for m in module.modules() if isinstance(m, (nn.ReLU, nn.SiLU))}

    assert acts(backbone.act1) == acts(backbone.act2) == {nn.ReLU}
    assert [acts(stage) for stage in backbone.blocks] == [{nn.ReLU}] * 2 + [{nn.SiLU}] * 4
    assert acts(MixNet(taps=("head",), act_cfg=dict(type="ReLU6"))) == set()
