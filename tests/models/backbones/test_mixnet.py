"""MixNet against timm's."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor, nn

from mixdet.models.backbones import MixNet

TAPS = ["stem", "stage1"]
for stage in range(2, 7):
    TAPS += [f"stage{stage}.expansion", f"stage{stage}"]
TAPS += ["head"]
TIMM = {(arch, "symmetric"): f"mixnet_{arch}" for arch in ("s", "m", "l", "xl")}
TIMM |= {(arch, "same"): f"tf_mixnet_{arch}" for arch in ("s", "m", "l")}


def timm_model(name: str) -> nn.Module:
    """With random weights and random batch norm statistics."""
    torch.manual_seed(0)
    model = timm.create_model(name).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return model


def timm_outputs(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """What each of our taps is in timm's network."""
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
def test_every_output_equals_timms(arch, padding, size):
    theirs = timm_model(TIMM[arch, padding])
    ours = MixNet(arch, taps=TAPS, padding=padding).eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(1, 3, *size)
    expected = timm_outputs(theirs, x)
    with torch.no_grad():
        outputs = dict(zip(TAPS, ours(x), strict=True))
    assert outputs.keys() == expected.keys()
    for tap in TAPS:
        largest = (outputs[tap] - expected[tap]).abs().max() / expected[tap].abs().max()
        assert outputs[tap].shape == expected[tap].shape
        assert largest <= 1e-5, tap


@pytest.mark.parametrize(
    ("arch", "parameters"),
    [("s", 4_134_606), ("m", 5_014_382), ("l", 7_329_252), ("xl", 11_896_768)],
)
def test_the_classifiers_parameters_to_the_digit(arch, parameters):
    backbone = MixNet(arch, taps=("head",))
    classifier = 1536 * 1000 + 1000
    assert sum(weight.numel() for weight in backbone.parameters()) + classifier == parameters


@pytest.mark.parametrize(("arch", "padding"), list(TIMM))
def test_weights_go_both_ways_without_renaming(arch, padding):
    theirs = timm.create_model(TIMM[arch, padding])
    ours = MixNet(arch, taps=("stage3", "head"), padding=padding)
    assert str(ours.load_state_dict(theirs.state_dict())) == "<All keys matched successfully>"
    back = theirs.load_state_dict(ours.state_dict(), strict=False)
    assert back.missing_keys == ["classifier.weight", "classifier.bias"]
    assert back.unexpected_keys == []


@pytest.mark.parametrize(("arch", "padding"), list(TIMM))
def test_timm_name_is_the_model_that_it_equals(arch, padding):
    assert MixNet(arch, ("stem",), padding).timm_name.split(".")[0] == TIMM[arch, padding]
    assert MixNet("xl", ("stem",), "same").timm_name is None


def test_relu_at_both_ends_and_swish_between():
    backbone = MixNet(taps=("head",))

    def acts(module: nn.Module) -> set[type]:
        return {type(m) for m in module.modules() if isinstance(m, (nn.ReLU, nn.SiLU))}

    assert acts(backbone.act1) == acts(backbone.act2) == {nn.ReLU}
    assert [acts(stage) for stage in backbone.blocks] == [{nn.ReLU}] * 2 + [{nn.SiLU}] * 4
    one = MixNet(taps=("head",), act_cfg=dict(type="ReLU6"))
    assert acts(one) == set()
