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

# Selected are (picture, class, anchor) triples. Their scores are put back in place among zeros, so
# that one TopK gives every picture the same number of places; those left empty get label -1.
NMS = """
<ir_version: {ir}, opset_import: ["" : {opset}]>
nms (float[N, {anchors}, 4] candidates, float[N, {anchors}, {classes}] candidate_scores)
    => (float[N, {places}, 4] boxes, float[N, {places}] scores, int64[N, {places}] labels)
<int64 most = {{{places}}}, float iou = {{{iou_thr}}}, float least = {{{score_thr}}},
 int64 count = {{{anchors}}}, int64[1] places = {{{places}}}, int64[2] flat_shape = {{0, -1}},
 int64[1] last = {{2}}, float zero = {{0}}, int64 nothing = {{-1}}>
{{
    by_class = Transpose <perm = [0, 2, 1]> (candidate_scores)
    selected = NonMaxSuppression (candidates, by_class, most, iou, least)
    all_shape = Shape (by_class)
    zeros = ConstantOfShape <value = float[1] {{0}}> (all_shape)
    selected_scores = GatherND (by_class, selected)
    remaining = ScatterND (zeros, selected, selected_scores)
    flat = Reshape (remaining, flat_shape)
    scores, pairs = TopK (flat, places)
    pair_labels = Div (pairs, count)
    found = Greater (scores, zero)
    labels = Where (found, pair_labels, nothing)
    anchors = Mod (pairs, count)
    columns = Unsqueeze (anchors, last)
    four = Concat <axis = 2> (columns, columns, columns, columns)
    boxes = GatherElements <axis = 1> (candidates, four)
}}
"""


def save_onnx(
    network: RawNetwork, path: str | os.PathLike, post: dict[str, Any], metadata: dict[str, str]
) -> None:
    """Write a network as ONNX; a `CandidateNetwork` with its NMS, for any number of pictures.

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
    dynamic = ({0: torch.export.Dim("N", min=1)},) if with_nms else None
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
        count, classes = len(network.anchors), network.detector.bbox_head.num_classes
        text = NMS.format(
            ir=IR_VERSION,
            opset=OPSET,
            anchors=count,
            classes=classes,
            places=min(post["max_per_img"], count * classes),
            **post,
        )
        nms = compose.add_prefix(parser.parse_model(text), "nms_", False, False)
        model = compose.merge_models(model, nms, io_map=[(name, name) for name in names])
    helper.set_model_props(model, metadata)
    onnx.checker.check_model(model)
    Path(path).write_bytes(model.SerializeToString())
