"""Detect in images, folders, videos or a camera; writes drawn images and predictions.json."""

from __future__ import annotations

import argparse
from pathlib import Path

from mixdet.errors import run_tool


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", help="a trained detector (.pth), or an exported folder")
    parser.add_argument("inputs", nargs="*", metavar="INPUT", help="image, folder or video")
    parser.add_argument("--camera", type=int, metavar="N", help="camera number, until Ctrl-C")
    parser.add_argument("--frames", type=int, help="stop the camera after so many frames")
    parser.add_argument("--config", help="default: the config that the checkpoint holds")
    parser.add_argument(
        "--out",
        default="outputs/predict",
        help="folder for predictions.json and what is drawn, small images enlarged "
        "(default: %(default)s)",
    )
    parser.add_argument("--score-thr", type=float, default=0.3, help="default: %(default)s")
    parser.add_argument("--device", default="cpu", help="cpu, cuda:0, ... (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=8, help="default: %(default)s")
    parser.add_argument(
        "--trust-checkpoint",
        action="store_true",
        help="run whatever code the checkpoint asks for: only if you trust whoever made it",
    )
    args = parser.parse_args()
    if not args.inputs and args.camera is None:
        parser.error("name an image, a folder or a video, or use --camera N")
    if args.batch_size < 1:
        parser.error("--batch-size has to be at least 1")
    return args


def main() -> None:
    args = parse_args()
    from mixdet.inference import Detector
    from mixdet.inference.predict import predict_files, predict_video, write_json

    detector = Detector(
        args.checkpoint, args.config, args.device, trust_checkpoint=args.trust_checkpoint
    )
    out = Path(args.out)
    entries = []
    if args.inputs:
        entries += predict_files(
            detector, args.inputs, out, score_thr=args.score_thr, batch_size=args.batch_size
        )
    if args.camera is not None:
        video = out / f"camera{args.camera}.mp4"
        entries += predict_video(
            detector, args.camera, video, score_thr=args.score_thr, frames=args.frames
        )
        write_json(entries, out)
    boxes = sum(len(entry["boxes"]) for entry in entries)
    images = f"{len(entries)} image{'s' * (len(entries) != 1)}"
    print(f"{boxes} detections in {images}; drawn in {out}, with predictions.json")


if __name__ == "__main__":
    run_tool(main)
