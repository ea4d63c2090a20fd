"""Networks as ONNX files: up to the raw outputs by torch, NMS as nodes of ONNX's own."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path
from typing import Any

import torch

from mixdet.deploy.network import CandidateNetwork, RawNetwork

OPSET = 18
IR_VERSION = 10

# Selected are (image, class, anchor) triples. Their scores are put back in place among zeros, so
# that one TopK gives every image the same number of places; those left empty get label -1. The
# prefix keeps names apart from those that torch gives.
NMS = """
<ir_version: {ir}, opset_import: ["" : {opset}]>
nms (float[N, {anchors}, 4] candidates, float[N, {anchors}, {classes}] candidate_scores)
    => (float[N, {places}, 4] boxes, float[N, {places}] scores, int64[N, {places}] labels)
<int64 nms_most = {{{places}}}, float nms_iou = {{{iou_thr}}}, float nms_least = {{{score_thr}}},
 int64 nms_count = {{{anchors}}}, int64[1] nms_places = {{{places}}}, int64[2] nms_rows = {{0, -1}},
 int64[1] nms_last = {{2}}, float nms_zero = {{0}}, int64 nms_nothing = {{-1}}>
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
    nms_columns = Unsqueeze (nms_anchors, nms_last)
    nms_four = Concat <axis = 2> (nms_columns, nms_columns, nms_columns, nms_columns)
    boxes = GatherElements <axis = 1> (candidates, nms_four)
}}
"""


def save_onnx(
    network: RawNetwork, path: str | os.PathLike, post: dict[str, Any], metadata: dict[str, str]
) -> None:
    """Write a network as ONNX; a `CandidateNetwork` with its NMS, for any number of images.

    The input is `image`, (N, H, W, 3) uint8 with N = 1 without NMS. Without NMS, the outputs are
    `boxes` (1, A, 4) and `scores` (1, A, classes). With it, they are `boxes` (N, K, 4), `scores`
    (N, K), descending, and `labels` (N, K) int64, which are -1 after the last box; K is
    `max_per_img`.

    Args:
        network: The network.
        path: The file.
        post: What `post_processing` gave.
        metadata: Strings to store in the file.
    """
    import onnx
    from onnx import compose, helper, parser

    with_nms = isinstance(network, CandidateNetwork)
    width, height = network.size
    # A batch of 1 would be taken for a constant
    image = torch.zeros(1 + with_nms, height, width, 3, dtype=torch.uint8)
    # torch 2.6 refuses a dimension without a largest value, and calls it s0
    dynamic = ({0: torch.export.Dim("N", min=1, max=1 << 20)},) if with_nms else None
    names = ["candidates", "candidate_scores"] if with_nms else ["boxes", "scores"]
    torch_log = logging.getLogger("torch.onnx")
    level = torch_log.level
    torch_log.setLevel(logging.ERROR)
    try:
        with torch.no_grad(), warnings.catch_warnings():
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
    finally:
        torch_log.setLevel(level)
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
            places=min(post["max_per_img"], count * classes),
            **post,
        )
        nms = parser.parse_model(text)
        model = compose.merge_models(model, nms, io_map=[(name, name) for name in names])
        del model.opset_import[1:]  # the merger states it twice, which quantizers refuse
    helper.set_model_props(model, metadata)
    onnx.checker.check_model(model)
    Path(path).write_bytes(model.SerializeToString())
