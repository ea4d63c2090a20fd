"""Convert networks to ONNX. Networks of the kind `end2end` also get ONNX nodes for NMS."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch

from mixdet.deploy.quiet import errors_only
from mixdet.deploy.raw_network import CandidateNetwork, RawNetwork

if TYPE_CHECKING:
    import onnx

OPSET = 18
IR_VERSION = 10

# NonMaxSuppression selects (image, class, anchor) triples. Their scores are written to a tensor of
# zeros, so that one TopK gives every image the same number of boxes. Entries of the output without
# a box get the label -1. The prefix `nms_` prevents clashes with names that torch gives.
NMS = """
<ir_version: {ir}, opset_import: ["" : {opset}]>
nms (float[N, {anchors}, 4] candidates, float[N, {anchors}, {classes}] candidate_scores)
    => (float[N, {places}, 4] boxes, float[N, {places}] scores, int64[N, {places}] labels)
<int64[1] nms_most = {{{places}}}, float[1] nms_iou = {{{iou_thr}}},
 float[1] nms_least = {{{score_thr}}}, float nms_zero = {{0}}, int64 nms_nothing = {{-1}},
 int64 nms_count = {{{anchors}}}, int64[1] nms_places = {{{places}}},
 int64[2] nms_rows = {{0, -1}}, int64[1] nms_last = {{2}}>
{{
    nms_by_class = Transpose <perm = [0, 2, 1]> (candidate_scores)
    nms_selected = NonMaxSuppression (candidates, nms_by_class, nms_most, nms_iou, nms_least)
    nms_all_shape = Shape (nms_by_class)
    nms_zeros = ConstantOfShape <value = float[1] {{0}}> (nms_all_shape)
    nms_selected_scores = GatherND (nms_by_class, nms_selected)
    nms_remaining = ScatterND (nms_zeros, nms_selected, nms_selected_scores)
    nms_flat = Reshape (nms_remaining, nms_rows)
    scores, nms_pairs = TopK (nms_flat, nms_places)
    nms_pair_labels = Div (nms_pairs, nms_count)
    nms_found = Greater (scores, nms_zero)
    labels = Where (nms_found, nms_pair_labels, nms_nothing)
    nms_anchors = Mod (nms_pairs, nms_count)
    nms_box_rows = Unsqueeze (nms_anchors, nms_last)
    boxes = GatherND <batch_dims = 1> (candidates, nms_box_rows)
}}
"""


def convert_to_onnx(
    network: RawNetwork, postprocess: dict[str, Any], metadata: dict[str, str]
) -> onnx.ModelProto:
    """Convert a network to ONNX. NMS is appended to a `CandidateNetwork`.

    The input is `image`, (N, H, W, 3) uint8. For a `RawNetwork`, N is 1, and the outputs are
    `boxes` (1, A, 4) and `scores` (1, A, classes). For a `CandidateNetwork`, the outputs are
    `boxes` (N, K, 4), `scores` (N, K) in descending order, and `labels` (N, K) int64. The labels
    after the last box are -1. K is `max_per_img`, or the number of pairs of an anchor and a class
    if this number is smaller.

    Args:
        network: The network.
        postprocess: The return value of `postprocess_settings`.
        metadata: Strings to store in the file.

    Returns:
        The network for `mixdet.deploy.onnx_file.write_onnx`. The metadata of its nodes name the
        modules of the nodes, for `mixdet.deploy.quantization.blocks_of_nodes`.
    """
    from onnx import compose, helper, parser

    with_nms = isinstance(network, CandidateNetwork)
    width, height = network.input_wh
    # The example for a variable batch size has 2 images: torch.export treats a size of 1 as fixed.
    image = torch.zeros(1 + with_nms, height, width, 3, dtype=torch.uint8)
    # torch 2.6 needs a maximum for the dimension, and writes the name s0 (replaced by N below).
    dynamic = ({0: torch.export.Dim("N", min=1, max=1 << 20)},) if with_nms else None
    names = ["candidates", "candidate_scores"] if with_nms else ["boxes", "scores"]
    with errors_only("torch.onnx"), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network.eval(),
            (image,),
            input_names=["image"],
            output_names=names,
            dynamic_shapes=dynamic,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    model = program.model_proto
    model.ir_version = IR_VERSION
    if with_nms:
        for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
            for dim in value.type.tensor_type.shape.dim:
                if dim.dim_param:
                    dim.dim_param = dim.dim_param.replace("s0", "N")
        count, classes = len(network.anchors), network.detector.bbox_head.num_classes
        text = NMS.format(
            ir=IR_VERSION,
            opset=OPSET,
            anchors=count,
            classes=classes,
            places=min(postprocess["max_per_img"], count * classes),
            **postprocess,
        )
        nms = parser.parse_model(text)
        model = compose.merge_models(model, nms, io_map=[(name, name) for name in names])
        del model.opset_import[1:]  # merging lists the opset twice, which quantizers refuse
    helper.set_model_props(model, metadata)
    return model
