"""What all our backbones share: taps (named outputs), freezing, checkpointing, and tracing."""

from __future__ import annotations

import copy
import math

import pytest
import timm
import torch
from mmdet.registry import MODELS
from mmengine import Config
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torchvision.models.feature_extraction import create_feature_extractor

from mixdet.errors import MixDetError
from mixdet.models import MixMobileNetV1, MixMobileNetV2, MixNet
from mixdet.models.layers import Expansion
from tests.models.backbones.test_mixnet import MIXNET_TAPS, TIMM, timm_model, timm_outputs


def image(*size: int) -> Tensor:
    return torch.randn(2, 3, *(size or (64, 64)))


def norms(module: nn.Module) -> list[nn.BatchNorm2d]:
    return [norm for norm in module.modules() if isinstance(norm, nn.BatchNorm2d)]


def train_step(backbone: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    """Run a forward pass, a backward pass and a gradient step; return the outputs."""
    optimizer = torch.optim.SGD(backbone.parameters(), lr=0.1)
    outputs = backbone(x)
    sum(output.pow(2).mean() for output in outputs).backward()
    optimizer.step()
    return outputs


@pytest.fixture(scope="module")
def all_taps() -> MixNet:
    """A MixNet that returns the output at every tap, in evaluation mode."""
    torch.manual_seed(0)
    backbone = MixNet(taps=MIXNET_TAPS)
    backbone.init_weights()
    backbone(image())  # changes the running statistics from their defaults, 0 and 1
    return backbone.eval()


@pytest.mark.parametrize("tap", MIXNET_TAPS)
def test_a_single_tap_gives_the_same_output_and_leaves_no_unused_weights(all_taps, tap):
    backbone = MixNet(taps=[tap])
    backbone.load_state_dict(all_taps.state_dict())
    x = image(65, 86)
    (output,) = backbone.eval()(x)
    expected = dict(zip(MIXNET_TAPS, all_taps(x), strict=True))[tap]
    torch.testing.assert_close(output, expected, rtol=0, atol=0)
    (stride,) = backbone.out_strides
    assert output.shape[1:] == (backbone.out_channels[0], -(-65 // stride), -(-86 // stride))

    (output,) = backbone.train()(x)
    output.sum().backward()
    unused = [name for name, weight in backbone.named_parameters() if weight.grad is None]
    assert unused == []


def test_outputs_have_the_order_of_the_taps(all_taps):
    backbone = MixNet(taps=("head", "stage3.expansion", "stage6"))
    backbone.load_state_dict(all_taps.state_dict())
    x = image()
    by_name = dict(zip(MIXNET_TAPS, all_taps(x), strict=True))
    for tap, output in zip(backbone.taps, backbone.eval()(x), strict=True):
        assert torch.equal(output, by_name[tap])
    assert backbone.out_channels == (1536, 144, 200)
    assert backbone.out_strides == (32, 4, 32)


@pytest.mark.parametrize("backbone", [MixNet, MixMobileNetV1, MixMobileNetV2])
@pytest.mark.parametrize("padding", ["symmetric", "same"])
def test_default_taps_have_strides_8_16_and_32(backbone, padding):
    backbone = backbone(padding=padding).eval()
    assert backbone.out_strides == (8, 16, 32)
    outputs = backbone(image(70, 45))
    for output, channels, stride in zip(
        outputs, backbone.out_channels, backbone.out_strides, strict=True
    ):
        assert output.shape == (2, channels, math.ceil(70 / stride), math.ceil(45 / stride))


@pytest.mark.parametrize(
    ("make", "kwargs", "message"),
    [
        (MixNet, dict(taps=("stage3", "stage7")), r"taps=.*stage7.*stage6.expansion, stage6, head"),
        (MixNet, dict(taps=("stage1.expansion",)), r"stage1.expansion.* stem, stage1, stage2.exp"),
        (MixNet, dict(taps=()), "taps="),
        (MixNet, dict(taps="stage7"), r"taps=\('stage7',\) must name"),
        (MixMobileNetV1, dict(taps=("head",)), "MixMobileNetV1, which are: stem, .*, stage5$"),
        (MixNet, dict(padding="valid"), r"padding='valid' is unknown: use one of \('symm"),
        (MixNet, dict(taps=5), r"taps=\(5,\) must name"),
        (MixNet, dict(taps=(["stage3"],)), r"taps=\(\['stage3'\],\) must name"),
        (MixNet, dict(frozen_stages=7), "frozen_stages=7 must be a whole number from -1 to 6"),
        (MixNet, dict(frozen_stages="2"), "frozen_stages='2' must be a whole number"),
        (MixNet, dict(frozen_stages=1.5), "frozen_stages=1.5 must be a whole number"),
        (MixNet, dict(arch=["s"]), r"arch=\['s'\] is unknown"),
        (
            MixMobileNetV2,
            dict(widen_factor=float("inf")),
            "inf: give a number above 0",
        ),
        (MixNet, dict(frozen_stages=4, taps=("stage3",)), "from -1 to 3, the last stage that taps"),
        (MixNet, dict(frozen_stages=-2), "frozen_stages=-2"),
        (MixNet, dict(arch="xxl"), r"arch='xxl' is unknown: use one of \['s', 'm', 'l', 'xl'\]"),
        (MixMobileNetV2, dict(widen_factor=0), "widen_factor=0: give a number above 0"),
        (MixMobileNetV1, dict(widen_factor=-1.0), r"widen_factor=-1\.0"),
        (MixMobileNetV2, dict(kernel_sizes=(3, 4)), r"kernel_sizes=\(3, 4\): kernel size 4"),
    ],
    ids=str,
)
def test_wrong_arguments_of_a_backbone_are_refused_in_one_line(make, kwargs, message):
    with pytest.raises(MixDetError, match=message) as info:
        make(**kwargs)
    assert "\n" not in str(info.value)


def test_a_single_tap_may_be_a_string():
    """`--cfg-options model.backbone.taps=stage3` gives a string."""
    assert MixNet(taps="stage3").out_strides == (8,)


@pytest.mark.parametrize("frozen", [-1, 0, 2, 4])
def test_frozen_stages_do_not_learn_and_the_others_do(frozen):
    backbone = MixMobileNetV1(taps=("stage5",), frozen_stages=frozen)
    backbone.init_weights()
    before = copy.deepcopy(backbone.state_dict())
    train_step(backbone.train(), image())
    prefixes = ["conv_stem.", "bn1."] if frozen >= 0 else []
    prefixes += [f"blocks.{i}." for i in range(frozen)]
    for name, value in backbone.state_dict().items():
        if name.startswith(tuple(prefixes)):
            assert torch.equal(value, before[name]), name
        elif name.endswith(("running_mean", "running_var")):
            assert not torch.equal(value, before[name]), name
    for name, weight in backbone.named_parameters():
        assert (weight.grad is None) == name.startswith(tuple(prefixes)), name


def test_stages_are_frozen_when_the_backbone_is_built():
    backbone = MixMobileNetV1(frozen_stages=1)
    assert not backbone.conv_stem.weight.requires_grad
    assert not backbone.bn1.training
    assert backbone.blocks[1][0].conv_dw.weight.requires_grad


def test_norm_eval_keeps_the_statistics_and_trains_the_weights():
    backbone = MixMobileNetV1(norm_eval=True)
    backbone.init_weights()
    for norm in norms(backbone):
        norm.running_mean.normal_()
    x = image()
    before = copy.deepcopy(backbone.state_dict())
    expected = backbone.eval()(x)
    outputs = train_step(backbone.train(), x)
    for output, evaluated in zip(outputs, expected, strict=True):
        torch.testing.assert_close(output, evaluated, rtol=0, atol=0)
    for name, value in backbone.state_dict().items():
        is_statistic = name.endswith(("running_mean", "running_var", "num_batches_tracked"))
        assert torch.equal(value, before[name]) == is_statistic, name
    assert backbone.training


@pytest.mark.parametrize("norm_cfg", [dict(type="BN"), dict(type="GN", num_groups=4)], ids=str)
def test_checkpointing_halves_the_memory_and_changes_no_result(norm_cfg):
    taps = ("stage2", "stage3.expansion", "stage4")
    kwargs = dict(taps=taps, norm_cfg=norm_cfg)
    plain, checkpointed = MixNet(**kwargs), MixNet(with_cp=True, **kwargs)
    plain.init_weights()
    checkpointed.load_state_dict(plain.state_dict())
    x = image()
    results, stored = [], []
    for backbone in (plain, checkpointed):
        storages = {}

        def store(tensor: Tensor, storages=storages) -> Tensor:
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
            return tensor

        backbone.train()
        with torch.autograd.graph.saved_tensors_hooks(store, lambda tensor: tensor):
            outputs = backbone(x)
        loss = sum(output.pow(2).mean() for output in outputs)
        loss.backward()
        stored.append(sum(storages.values()))
        gradients = [weight.grad for weight in backbone.parameters()]
        results.append([*outputs, *gradients, *backbone.buffers()])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert stored[1] < 0.5 * stored[0]


def test_outputs_of_a_checkpointed_backbone_under_no_grad_require_no_grad():
    backbone = MixNet(taps=("stage3.expansion",), with_cp=True).eval()
    with torch.no_grad():
        (output,) = backbone(image())
    assert not output.requires_grad


def test_loading_ignores_only_the_weights_of_layers_after_the_last_tap(all_taps):
    state = {**all_taps.state_dict(), "classifier.weight": torch.zeros(1000, 1536)}
    keys = list(state)
    backbone = MixNet(taps=("stage3", "stage5.expansion"))
    backbone.load_state_dict(state)
    parent = nn.ModuleDict({"backbone": MixNet(taps=("stage3", "stage5.expansion"))})
    parent.load_state_dict({f"backbone.{key}": value for key, value in state.items()})
    assert torch.equal(parent["backbone"].conv_stem.weight, all_taps.conv_stem.weight)
    assert list(state) == keys
    for key in ("blocks.6.0.conv_pw.weight", "blocks.0.0.conv_pwl.weight", "blocks.2.9.bn1.bias"):
        with pytest.raises(RuntimeError, match=f'Unexpected key.*"{key}"'):
            backbone.load_state_dict({**state, key: torch.zeros(1)})
    for key in ("blocks.4.0.bn1.bias", "conv_stem.weight"):
        with pytest.raises(RuntimeError, match=f'Missing key.*"{key}"'):
            backbone.load_state_dict({name: state[name] for name in state if name != key})
    with pytest.raises(RuntimeError, match=r"Missing key.*conv_head.weight"):
        MixNet(taps=("head",)).load_state_dict(backbone.state_dict())


def test_same_padding_sets_the_eps_of_tensorflow_unless_the_config_gives_an_eps():
    def eps(**kwargs) -> set[float]:
        return {norm.eps for norm in norms(MixMobileNetV1(taps=("stage2",), **kwargs))}

    assert eps() == {1e-5}
    assert eps(padding="same") == {1e-3}
    assert eps(padding="same", norm_cfg=dict(type="BN", eps=1e-4)) == {1e-4}
    assert eps(padding="same", norm_cfg=dict(type="BN", momentum=0.01)) == {1e-3}


def test_default_weights_have_the_std_of_he_initialization_with_the_fan_out_per_group():
    torch.manual_seed(0)
    backbone = MixNet(taps=("stage6",))
    backbone.init_weights()
    for name, module in backbone.named_modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 5000:
            fan_out = module.kernel_size[0] ** 2 * module.out_channels / module.groups
            assert module.weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.1), (
                name
            )
    assert all((norm.weight == 1).all() and (norm.bias == 0).all() for norm in norms(backbone))
    depthwise = backbone.blocks[1][0].conv_dw
    assert depthwise.weight.std().item() == pytest.approx(math.sqrt(2 / 9), rel=0.1)


def test_a_config_builds_a_backbone_that_can_be_copied():
    cfg = Config(
        dict(
            backbone=dict(
                type="MixNet",
                arch="s",
                taps=["stage3", "stage4.expansion"],
                padding="same",
                norm_cfg=dict(type="BN", momentum=0.03),
                act_cfg=dict(type="ReLU6"),
            )
        )
    )
    backbone = MODELS.build(cfg.backbone).eval()
    assert {(norm.momentum, norm.eps) for norm in norms(backbone)} == {(0.03, 1e-3)}
    assert not any(isinstance(module, (nn.SiLU, nn.ReLU)) for module in backbone.modules())
    x = image(33, 50)
    for output, again in zip(backbone(x), copy.deepcopy(backbone)(x), strict=True):
        assert torch.equal(output, again)


@pytest.fixture
def timm_mixnet() -> nn.Module:
    """timm's MixNet-S with random weights, in evaluation mode."""
    torch.manual_seed(0)
    return timm.create_model("mixnet_s").eval()


TAPPED = ("stage4.expansion", "stage6")  # stage4.expansion is an output inside blocks.3.0


def with_weights_of(theirs: nn.Module, **kwargs) -> MixNet:
    """Return our MixNet-S in evaluation mode, with the weights of timm's network."""
    ours = MixNet(**dict(taps=TAPPED) | kwargs).eval()
    ours.load_state_dict(theirs.state_dict())
    return ours


def assert_equals_timm(network: nn.Module, theirs: nn.Module, x: Tensor) -> None:
    """Assert that a network with the taps `TAPPED` gives timm's outputs at these taps."""
    expected = timm_outputs(theirs, x)
    for tap, output in zip(TAPPED, network(x), strict=True):
        torch.testing.assert_close(output, expected[tap], rtol=0, atol=1e-4)


@pytest.mark.parametrize("with_cp", [False, True])
@pytest.mark.parametrize("name", ["blocks.2", "blocks.3", "blocks.3.0", "blocks.3.1"])
def test_forward_hooks_on_stages_and_blocks_get_the_outputs_of_timm(timm_mixnet, name, with_cp):
    ours = with_weights_of(timm_mixnet, with_cp=with_cp)
    seen, x = [], image()
    for network in (ours, timm_mixnet):
        module = network.get_submodule(name)
        module.register_forward_hook(lambda _, __, output: seen.append(output.detach().clone()))
        network(x)
    torch.testing.assert_close(*seen, rtol=0, atol=1e-4)


def test_a_hook_can_replace_the_output_of_an_expansion_that_ends_the_network():
    backbone = MixNet(taps=["stage6.expansion"]).eval()
    assert isinstance(backbone.blocks[-1][0], Expansion)
    backbone.blocks[-1][0].register_forward_hook(lambda _, __, output: torch.ones_like(output))
    (output,) = backbone(image())
    assert (output == 1).all()


WRAPPERS = [checkpoint_wrapper, lambda block: torch.compile(block, backend="eager")]


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_wrapped_blocks_give_the_outputs_of_timm(timm_mixnet, wrap):
    ours = with_weights_of(timm_mixnet)
    for stage in ours.blocks:
        stage[0] = wrap(stage[0])
    with torch.no_grad():
        assert_equals_timm(ours, timm_mixnet, image())


@pytest.mark.parametrize("wrap", WRAPPERS)
@pytest.mark.parametrize("taps", [TAPPED, ("stage6.expansion", "stage6")], ids=",".join)
def test_wrapped_blocks_give_the_same_outputs_and_gradients(taps, wrap):
    plain = MixNet(taps=taps)
    wrapped = copy.deepcopy(plain)
    for stage in wrapped.blocks:
        stage[0] = wrap(stage[0])
    x = image()
    for output, expected in zip(wrapped(x), plain(x), strict=True):
        torch.testing.assert_close(output, expected)
        (output.square().mean() + expected.square().mean()).backward(retain_graph=True)
    assert wrapped(x)[-1].shape[1] == 200
    for mine, theirs in zip(wrapped.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("padding", ["symmetric", "same"])
def test_a_backbone_can_be_traced_by_torch_fx(padding):
    theirs = timm_model(TIMM["s", padding])
    traced = torch.fx.symbolic_trace(with_weights_of(theirs, padding=padding))
    for x in (image(), image(33, 50)):
        assert_equals_timm(traced, theirs, x)


def test_the_feature_extractor_of_torchvision_gives_the_features_of_timm(timm_mixnet):
    ours = with_weights_of(timm_mixnet)
    x, nodes = image(), ["blocks.2", "blocks.3", "blocks.5"]
    features = [
        create_feature_extractor(network, nodes).eval()(x) for network in (ours, timm_mixnet)
    ]
    for name in nodes:
        torch.testing.assert_close(features[0][name], features[1][name], rtol=0, atol=1e-4)


def test_a_backbone_can_be_traced_by_torch_jit(timm_mixnet):
    x = image()
    assert_equals_timm(torch.jit.trace(with_weights_of(timm_mixnet), x), timm_mixnet, x)


@pytest.mark.parametrize("with_cp", [False, True])
def test_a_backbone_can_be_exported(timm_mixnet, with_cp):
    x = image()
    program = torch.export.export(with_weights_of(timm_mixnet, with_cp=with_cp), (x,))
    assert_equals_timm(program.module(), timm_mixnet, x)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("with_cp", [False, True])
def test_a_backbone_can_be_compiled_as_one_graph(training, with_cp):
    taps = ("stage2.expansion", "stage2")
    backbone, x = MixNet(taps=taps, with_cp=with_cp).train(training), image()
    compiled = torch.compile(copy.deepcopy(backbone), fullgraph=True, backend="aot_eager")
    results = []
    for network in (compiled, backbone):
        outputs = network(x)
        sum(output.square().mean() for output in outputs).backward()
        results.append([*outputs, *(p.grad for p in network.parameters()), *network.buffers()])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("make", "tap", "theirs"),
    [
        (MixMobileNetV2, "head", "mobilenetv2_100"),
        (MixMobileNetV2, "stage6.expansion", None),
        (MixMobileNetV2, "stem", None),
        (MixMobileNetV1, "stage5", "mobilenetv1_100"),
    ],
)
def test_changing_an_output_of_relu6_in_place_keeps_the_gradients(make, tap, theirs):
    backbone, x = make(3, taps=[tap]), image()
    plain = copy.deepcopy(backbone)
    backbone(x)[0].mul_(2).sum().backward()
    plain(x)[0].mul(2).sum().backward()
    for mine, expected in zip(backbone.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, expected.grad)
    if theirs:
        timm.create_model(theirs).forward_features(x).mul_(2).sum().backward()
