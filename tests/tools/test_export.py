"""tools/export.py, tools/verify.py and tools/predict.py work on the same exported folder."""

from __future__ import annotations

import json


def test_an_exported_detector_is_verified_and_predicts(tool, refusal, trained, images, tmp_path):
    folder = tmp_path / "exported"
    code, out, err = tool("export", *trained, "--out", folder, "--to", "onnx", "openvino")
    assert code == 0, out + err
    assert "largest difference" in out
    code, out, err = tool("verify", folder, *trained)
    assert code == 0, out + err
    lines = out.splitlines()[-2:]
    for line, runtime in zip(lines, ("onnx", "openvino"), strict=True):
        assert line.startswith(f"{folder}, {runtime}: 14 images, ")
    assert len({file.stat().st_mode for file in folder.iterdir()}) == 1
    counts = []
    for name, model in (("drawn", folder), ("original", trained[1])):
        call = (model, images / "val2017", "--out", tmp_path / name, "--score-thr", 0.05)
        code, out, err = tool("predict", *call)
        assert code == 0, out + err
        entries = json.loads((tmp_path / name / "predictions.json").read_text())
        counts.append([len(entry["boxes"]) for entry in entries])
    assert counts[0] == counts[1]
    assert sum(counts[0]) > 10
    code, out, err = tool("predict", folder, folder.parent / "nothing.jpg")
    assert code == 1
    assert "nothing.jpg" in err
    (folder / "model.onnx").write_bytes(b"")
    assert "SHA-256" in refusal("verify", folder, *trained)
    assert "--to coreml" in refusal("export", *trained, "--out", folder, "--to", "coreml")
    assert "--out" in refusal("export", *trained, "--out", trained[0] / "folder")
