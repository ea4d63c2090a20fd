"""Train a detector: tools/train.py CONFIG [options]."""

from __future__ import annotations

import argparse

from mixdet.errors import run_tool
from mixdet.image_size import add_size_option


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a detector.")
    parser.add_argument(
        "config",
        help="path of the config, such as configs/ssdlite_mixnet_s_digits.py, or name of a shipped "
        "config",
    )
    parser.add_argument(
        "--work-dir",
        help="folder for logs and checkpoints (default: work_dirs/<name of the config>)",
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="CHECKPOINT",
        help="resume from this checkpoint (without a path: from the latest one in the work folder)",
    )
    parser.add_argument(
        "--amp",
        action="store_true",
        help="train in mixed precision: float16 on a GPU, bfloat16 on a CPU",
    )
    parser.add_argument(
        "--auto-scale-lr",
        action="store_true",
        help="multiply the learning rate by the total batch size of this run, divided by "
        "auto_scale_lr.base_batch_size of the config",
    )
    parser.add_argument(
        "--launcher",
        choices=("none", "pytorch", "slurm"),
        default="none",
        help="the launcher that started this process, if several processes work together "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        help="train as many epochs as fit into this number of minutes, validation included, but at "
        "least one, instead of train_cfg.max_epochs; the schedules are adapted to this length",
    )
    parser.add_argument(
        "--seed", type=int, help="seed of the run (default: the one in the config, or 0)"
    )
    parser.add_argument("--data-root", help="another folder for all data, in the same layout")
    add_size_option(parser)
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        default=(),
        metavar="KEY=VALUE",
        help="override the config: model.backbone.arch=l train_cfg.max_epochs=3",
    )
    parser.add_argument(
        "--trust-checkpoint",
        action="store_true",
        help="load checkpoints with pickled objects: only from a source that you trust",
    )
    parser.add_argument(
        "--tracker",
        nargs="+",
        choices=("mlflow", "tensorboard", "wandb"),
        default=(),
        help="log to these experiment trackers too",
    )
    parser.add_argument("--tensorboard", action="store_true", help=argparse.SUPPRESS)
    # Some versions of torchrun pass this option; mmengine reads the rank from the environment
    parser.add_argument("--local-rank", "--local_rank", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = vars(parse_args())
    del args["local_rank"]
    if args.pop("tensorboard"):  # the earlier name of `--tracker tensorboard`
        args["tracker"] = [*args["tracker"], "tensorboard"]
    from mixdet import launch  # here, since --help needs neither torch nor mmdet

    launch.train(args.pop("config"), **args)


if __name__ == "__main__":
    run_tool(main)
