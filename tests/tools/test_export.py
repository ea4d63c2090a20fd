from __future__ import annotations


def test_export_and_verify(tool, refusal, trained, tmp_path):
    folder = tmp_path / "exported"
    code, out, err = tool("export", *trained, "--out", folder)
    assert code == 0, out + err
    assert "largest difference" in out
    code, out, err = tool("verify", folder, *trained)
    assert code == 0, out + err
    assert out.startswith("14 pictures, ")
    code, out, err = tool("predict", folder, folder.parent / "nothing.jpg")
    assert code == 1
    assert "nothing.jpg" in err
    (folder / "model.onnx").write_bytes(b"")
    assert "SHA-256" in refusal("verify", folder, *trained)
    assert "--to coreml" in refusal("export", *trained, "--out", folder, "--to", "coreml")
    assert "--out" in refusal("export", *trained, "--out", trained[0] / "folder")
