"""What to do with a trained detector: the commands, with the paths of the run."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

from mmengine.runner import Runner


def next_commands(runner: Runner) -> str:
    """Return the commands that detect with the trained detector and that export it.

    The commands name the best checkpoint, or the last one if the run has no best one. Without a
    checkpoint on this machine, the text is empty.
    """
    info = runner.message_hub.runtime_info
    best = [
        path for key, path in info.items() if key == "best_ckpt" or key.startswith("best_ckpt_")
    ]
    paths = [path for path in (*best, info.get("last_ckpt")) if path and Path(path).is_file()]
    if not paths:
        return ""
    checkpoint = shlex.quote(str(paths[0]))
    images = shlex.quote(_image_folder(runner) or "IMAGES")
    kind = "best" if paths[0] in best else "last"
    lines = [
        f"Next steps, with the {kind} checkpoint:",
        f"  look at its detections:  {_command('predict')} {checkpoint} {images}",
    ]
    config = runner.cfg.filename
    if config:
        dumped = Path(
            runner.work_dir, Path(config).name
        )  # by mmengine, with the options of the run
        config = dumped if dumped.is_file() else config
        out = shlex.quote(str(Path(runner.work_dir, "exported")))
        lines.append(
            "  export it for a device:  "
            f"{_command('export')} {shlex.quote(str(config))} {checkpoint} --out {out}"
        )
    return "\n".join(lines)


def _image_folder(runner: Runner) -> str | None:
    """Return the folder of the validation images, or None if it is not known."""
    if runner.val_loop is None:
        return None
    prefix = getattr(runner.val_dataloader.dataset, "data_prefix", None) or {}
    folder = prefix.get("img") or prefix.get("img_path")
    return str(Path(folder)) if folder and Path(folder).is_dir() else None


def _command(tool: str) -> str:
    """Return the command of another tool, in the form in which the running tool was called."""
    script = Path(sys.argv[0]).with_name(f"{tool}.py")
    if Path(sys.argv[0]).suffix == ".py" and script.is_file():
        return f"python {shlex.quote(str(script))}"
    return f"mixdet {tool}" if shutil.which("mixdet") else f"python -m mixdet {tool}"
