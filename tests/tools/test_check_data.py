"""tools/check_data.py reports problems of the data as text, JSON and HTML, and by exit code."""

from __future__ import annotations

import json
import shutil

import pytest
from PIL import Image

from tests.tiny import SIZE, write_config

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def data(images_copy):
    """The tiny data set with its validation images rotated by 90 degrees."""
    for file in (images_copy / "val2017").iterdir():
        Image.open(file).rotate(90).save(file)
    return images_copy


@pytest.fixture
def checked(tool, tmp_path):
    """Run the check; return the exit code, a dict from code to problem, and the printed text."""

    def run(data, *options):
        config = write_config(tmp_path, data)
        code, out, err = tool("check_data", config, "--json", tmp_path / "r.json", *options)
        report = json.loads((tmp_path / "r.json").read_text())
        assert report["ok"] == (code == 0), out + err
        return code, {problem["code"]: problem for problem in report["problems"]}, out

    return run


def test_correct_data_are_reported_without_a_problem(checked, data):
    code, problems, out = checked(data)
    assert (code, problems) == (0, {})
    assert "nothing is wrong" in out
    assert "21 training boxes at 64 x 64" in out


def test_truncated_spoiled_missing_and_resized_images_are_reported(checked, data):
    folder = data / "train2017"
    Image.open(folder / "1.png").convert("RGB").save(folder / "whole.jpg")
    jpeg = (folder / "whole.jpg").read_bytes()
    (folder / "1.png").write_bytes(jpeg[: len(jpeg) * 2 // 3])
    (folder / "2.png").write_bytes((folder / "2.png").read_bytes()[:-40])
    (folder / "3.png").write_text("no image")
    (folder / "4.png").write_bytes(b"")
    Image.open(folder / "5.png").resize((SIZE, 2 * SIZE)).save(folder / "5.png")
    (folder / "6.png").unlink()
    spoiled = bytearray((folder / "7.png").read_bytes())
    middle = len(spoiled) // 2
    spoiled[middle : middle + 9] = bytes(9)  # header and end are intact, but decoding fails
    (folder / "7.png").write_bytes(spoiled)
    code, problems, out = checked(data)
    assert code == 1
    assert problems["broken_images"]["count"] == 5
    for name in "12347":
        assert f"{name}.png" in out
    assert problems["images_of_another_size"]["count"] == 1
    assert "5.png: 64 x 128, stated 64 x 64" in out
    assert problems["missing_images"]["count"] == 1


def test_the_size_of_an_image_with_an_exif_orientation_is_its_upright_size(checked, data):
    file = data / "train2017" / "1.png"
    image = Image.open(file).resize((SIZE, SIZE // 2))
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: the file of 64 x 32 pixels shows an image of 32 x 64
    image.save(file, exif=exif)
    _, _, out = checked(data)
    assert "1.png: 32 x 64, stated 64 x 64" in out


def test_turned_images_of_every_format_have_the_size_that_training_reads(checked, data):
    ann_file = data / "annotations" / "instances_train2017.json"
    content = json.loads(ann_file.read_text())
    for entry, kind in zip(content["images"], ("AVIF", "TIFF", "WEBP", "JPEG"), strict=False):
        file = data / "train2017" / entry["file_name"]
        exif = Image.Exif()  # created anew, since Pillow removes the tag when it writes AVIF
        exif[0x0112] = 8  # the files of 64 x 32 pixels show images of 32 x 64
        Image.open(file).convert("RGB").resize((SIZE, SIZE // 2)).save(file, kind, exif=exif)
        entry.update(width=SIZE // 2, height=SIZE)
    ann_file.write_text(json.dumps(content))
    _, problems, _ = checked(data)
    assert not {"images_of_another_size", "broken_images"} & problems.keys()
    content["images"][0].update(width=SIZE, height=SIZE // 2)
    ann_file.write_text(json.dumps(content))
    _, problems, out = checked(data)
    assert problems["images_of_another_size"]["count"] == 1
    assert "1.png: 32 x 64, stated 64 x 32" in out


def test_an_image_that_training_cannot_read_is_reported(checked, data):
    """The image is a TIFF of float pixels, which Pillow decodes and OpenCV does not."""
    file = data / "train2017" / "1.png"
    Image.open(file).convert("F").save(file, "TIFF")
    _, problems, out = checked(data)
    assert problems["broken_images"]["count"] == 1
    assert "convert them to 8 bits" in out


def test_equal_images_in_training_and_validation_are_reported(checked, data):
    shutil.copy(data / "train2017" / "3.png", data / "val2017" / "9.png")
    code, problems, _ = checked(data)
    assert code == 1
    (example,) = problems["shared_images"]["examples"]
    assert example["text"].endswith(f"9.png equals {data / 'train2017' / '3.png'}")


def test_anchors_that_miss_the_boxes_lead_to_a_note(checked, data):
    generator = "model.bbox_head.anchor_generator"
    sizes = [f"{generator}.min_sizes=[200,300]", f"{generator}.max_sizes=[300,400]"]
    code, problems, out = checked(data, "--cfg-options", *sizes)
    assert (code, list(problems)) == (0, ["anchors_misfit"])
    assert problems["anchors_misfit"]["level"] == "note"
    assert "dark: 0 % of" in out
    assert "=[" not in out  # no numbers to paste into a config


def test_the_page_embeds_the_images_and_loads_nothing_else(checked, data, tmp_path):
    file = data / "annotations" / "instances_train2017.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["bbox"] = [50, 2, 1e9, 9]
    content["categories"].append({"id": 9, "name": "<script>alert(1)</script>"})
    file.write_text(json.dumps(content))
    checked(data, "--html", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 1
    assert "<script>" not in page
    assert "http" not in page


def test_wrong_paths_and_annotation_files_are_refused(refusal, data, tmp_path):
    config = write_config(tmp_path, data)
    assert "--json" in refusal("check_data", config, "--json", tmp_path / "data" / "annotations")
    assert "is missing" in refusal("check_data", config, "--data-root", tmp_path / "nowhere")
    (data / "annotations" / "instances_train2017.json").write_text("[[]]")
    assert "instances_train2017.json: not a COCO" in refusal("check_data", config)
