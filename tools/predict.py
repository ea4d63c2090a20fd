"""Detect objects in images, videos or a camera; write predictions.json and images with boxes."""

from __future__ import annotations

import argparse

from mixdet.errors import run_tool


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", help="a trained detector (.pth), or an exported folder")
    parser.add_argument("inputs", nargs="*", metavar="INPUT", help="image, folder or video")
    parser.add_argument(
        "--camera", type=int, metavar="N", help="read the camera with this number, until Ctrl-C"
    )
    parser.add_argument(
        "--frames", type=int, metavar="N", help="stop the camera after this many frames"
    )
    parser.add_argument(
        "--config", help="config of the detector (default: the config stored in the checkpoint)"
    )
    parser.add_argument(
        "--out",
        default="outputs/predict",
        help="folder for predictions.json and the drawn images; small images are enlarged "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--score-thr",
        type=float,
        default=0.3,
        help="leave out detections with a lower score (default: %(default)s)",
    )
    parser.add_argument(
        "--device",
        default="cpu",
        help="device for a checkpoint: cpu, cuda:0, ... (default: %(default)s)",
    )
    parser.add_argument(
        "--runtime",
        metavar="NAME",
        help="runtime for an exported folder: onnx, openvino, ncnn, litert or executorch "
        "(default: the first of these that has a file in the folder and is installed)",
    )
    parser.add_argument(
        "--threads", type=int, metavar="N", help="CPU threads (default: the runtime chooses)"
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        default=8,
        metavar="N",
        help="number of images in a batch (default: %(default)s)",
    )
    parser.add_argument(
        "--trust-checkpoint",
        action="store_true",
        help="load a checkpoint with pickled objects: only from a source that you trust",
    )
    args = parser.parse_args()
    if not args.inputs and args.camera is None:
        parser.error("name an image, a folder or a video, or use --camera N")
    if args.batch_size < 1:
        parser.error("--batch-size has to be at least 1")
    if args.threads is not None and args.threads < 1:
        parser.error("--threads has to be at least 1")
    return args


def main() -> None:
    args = parse_args()
    # These imports load NumPy and OpenCV, which --help does not need.
    from mixdet.inference import Detector
    from mixdet.inference.predict import predict_files

    detector = Detector(
        args.checkpoint,
        args.config,
        args.device,
        trust_checkpoint=args.trust_checkpoint,
        runtime=args.runtime,
        threads=args.threads,
    )
    cameras = [] if args.camera is None else [args.camera]
    entries = predict_files(
        detector,
        [*args.inputs, *cameras],
        args.out,
        score_thr=args.score_thr,
        batch_size=args.batch_size,
        frames=args.frames,
    )
    boxes = sum(len(entry["boxes"]) for entry in entries)
    images = f"{len(entries)} image{'s' * (len(entries) != 1)}"
    print(f"{boxes} detections in {images}; {args.out} has the drawn images and predictions.json")


if __name__ == "__main__":
    run_tool(main)
