"""`python -m mixdet.run SCRIPT` prepares mmdet, then runs the script as Python would."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mixdet import run
from mixdet.errors import MixDetError
from tests.conftest import ROOT

SCRIPT = """
import json, sys
import mmdet.apis  # without a compiled mmcv, this fails unless mmdet was prepared
import neighbor
from mixdet.errors import MixDetError

print(json.dumps([__name__, __file__, sys.argv, sys.path[0], 'mixdet.models' in sys.modules]))
raise MixDetError('the script refuses')
"""


def test_a_script_can_import_mmdet_and_runs_as_if_started_directly(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "neighbor.py").touch()
    command = [sys.executable, "-m", "mixdet.run", f"{tmp_path}/script.py", "--help", "a", "--b=1"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.stdout, result.stderr
    # mmdet may print lines before the script's line
    name, file, argv, path, ours = json.loads(result.stdout.splitlines()[-1])
    assert name == "__main__"
    assert file == argv[0] == f"{tmp_path}/script.py"
    assert argv[1:] == ["--help", "a", "--b=1"]
    assert path == str(tmp_path)
    assert not ours  # mixdet.models is imported later, by the `custom_imports` of a config
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1:] == ["error: the script refuses"]
    assert "Traceback" not in result.stderr


def test_a_missing_script_is_refused_in_one_line() -> None:
    command = [sys.executable, "-m", "mixdet.run", "tools/none.py"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (1, "error: tools/none.py: no such script\n")


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of a script. What `run.main` changes in this process is undone after the test."""
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path / "script.py"


def test_the_exit_code_is_that_of_the_script(script: Path) -> None:
    script.write_text("raise SystemExit(3)")
    with pytest.raises(SystemExit) as caught:
        run.main([str(script)])
    assert caught.value.code == 3


def test_the_option_trust_checkpoint_must_come_before_the_script(
    script: Path, tmp_path: Path
) -> None:
    file = tmp_path / "objects.pth"
    torch.save({"state_dict": {}, "meta": Path("a")}, file)
    script.write_text(
        "from mmengine.runner import CheckpointLoader\n"
        f"CheckpointLoader.load_checkpoint({str(file)!r}, map_location='cpu')\n"
    )
    with pytest.raises(MixDetError, match="--trust-checkpoint"):
        run.main([str(script)])
    with pytest.raises(MixDetError, match="--trust-checkpoint"):
        run.main([str(script), "--trust-checkpoint"])  # here the script gets the option
    run.main(["--trust-checkpoint", str(script)])


def test_a_folder_in_place_of_a_script_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MixDetError, match="no such script"):
        run.main([str(tmp_path)])
