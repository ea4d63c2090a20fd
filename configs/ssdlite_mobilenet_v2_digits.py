"""The baseline of ssdlite_mixnet_s_digits: MobileNetV2, with 3x3 kernels in the predictors too."""

_base_ = "ssdlite_mixnet_s_digits.py"

model = dict(
    backbone=dict(
        _delete_=True,
        type="MixMobileNetV2",
        kernel_sizes=3,
        taps=("stage4.expansion", "stage5"),  # 192 channels at stride 8, 96 at stride 16
        norm_cfg=dict(type="BN", momentum=0.1),
    ),
    bbox_head=dict(kernel_sizes=3),
)
