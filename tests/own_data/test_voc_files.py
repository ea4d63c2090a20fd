"""VOC's XML files are read with ImageSets, beside the images, and in folders of splits."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image
from torchvision.datasets import VOCDetection

from mixdet.errors import MixDetError
from mixdet.own_data.voc_files import read_voc
from tests.exports import CLASSES, HEIGHT, WIDTH, draw, scenes_of, write_voc, write_xml


def write_lists(folder: Path, **lists: str) -> None:
    (folder / "ImageSets/Main").mkdir(parents=True, exist_ok=True)
    for name, text in lists.items():
        (folder / f"ImageSets/Main/{name}.txt").write_text(text)


def beside(folder: Path) -> None:
    """Move the images and the XML files into the folder itself, as labelImg writes them."""
    for inner in ("JPEGImages", "Annotations"):
        for file in (folder / inner).iterdir():
            file.rename(folder / file.name)
        (folder / inner).rmdir()


@pytest.mark.parametrize("layout", ["VOC", "labelImg", "Kaggle", "Roboflow", "parts"])
def test_all_layouts_give_the_same_boxes(tmp_path, layout):
    drawn = write_voc(tmp_path, 4)
    if layout == "labelImg":
        beside(tmp_path)
    elif layout == "Kaggle":
        (tmp_path / "JPEGImages").rename(tmp_path / "images")
        (tmp_path / "Annotations").rename(tmp_path / "annotations")
    elif layout in ("Roboflow", "parts"):  # with equal names in both splits
        inner = ("", "") if layout == "Roboflow" else ("images", "annotations")
        for part in ("train", "valid") if layout == "Roboflow" else ("train2017", "val2017"):
            for source, target in zip(("JPEGImages", "Annotations"), inner, strict=True):
                target_folder = tmp_path / part / target
                shutil.copytree(tmp_path / source, target_folder, dirs_exist_ok=True)
        shutil.rmtree(tmp_path / "JPEGImages")
        shutil.rmtree(tmp_path / "Annotations")
    data = read_voc(tmp_path)
    assert data.classes == [*CLASSES]
    splits = ("train", "val") if layout in ("Roboflow", "parts") else ("all",)
    assert tuple(data.splits) == splits
    for split in splits:
        assert scenes_of(data.splits[split]) == drawn


def test_lists_of_image_sets_equal_those_of_torchvision(tmp_path):
    base = tmp_path / "VOCdevkit/VOC2012"
    write_voc(base, 6)
    write_lists(base, train="000\n001\n004\n", val="003\n")
    for file in (base / "JPEGImages").iterdir():  # torchvision reads .jpg only
        Image.open(file).save(file.with_suffix(".jpg"))
        file.unlink()
    data = read_voc(tmp_path)
    for split in ("train", "val"):
        theirs = VOCDetection(tmp_path, year="2012", image_set=split)
        ours = scenes_of(data.splits[split])
        assert [*ours] == [Path(path).name for path in theirs.images]
        for scene, (_, target) in zip(ours.values(), theirs, strict=True):
            names = [entry["name"] for entry in target["annotation"]["object"]]
            assert [CLASSES[label] for label, _ in scene] == names
    (note,) = data.tally.notes()
    assert note.startswith("XML files that no list in ImageSets/Main names, left out: 2")


@pytest.mark.parametrize(
    ("train", "val"), [("train", "valid"), ("Train", "Validation"), ("training", "VAL")]
)
def test_lists_with_other_names_of_the_splits_are_used(tmp_path, train, val):
    write_voc(tmp_path, 4)
    write_lists(tmp_path, **{train: "000\n001\n003\n", val: "002\n", "saw_train": "000 1\n"})
    splits = read_voc(tmp_path).splits
    assert {name: len(part["images"]) for name, part in splits.items()} == {"train": 3, "val": 1}
    write_lists(tmp_path, val="002\n", validation="003\n")
    with pytest.raises(MixDetError, match=r"are lists of the same split: remove one of them"):
        read_voc(tmp_path)


def test_val_is_taken_out_of_trainval(tmp_path):
    write_voc(tmp_path, 4)
    write_lists(tmp_path, trainval="000 1\n001 -1\n002\n003\n", val="001 \n\n")
    splits = read_voc(tmp_path).splits
    assert {name: [*scenes_of(part)] for name, part in splits.items()} == {
        "train": ["000.png", "002.png", "003.png"],
        "val": ["001.png"],
    }


def test_boxes_equal_those_of_supervision(tmp_path):
    supervision = pytest.importorskip("supervision")
    write_voc(tmp_path, 3)
    theirs = supervision.DetectionDataset.from_pascal_voc(
        str(tmp_path / "JPEGImages"), str(tmp_path / "Annotations")
    )
    ours = scenes_of(read_voc(tmp_path).splits["all"])
    for path, _, detections in theirs:
        boxes = [(x, y, x + w, y + h) for _, (x, y, w, h) in ours[Path(path).name]]
        assert sorted(boxes) == sorted(map(tuple, detections.xyxy.tolist()))


@pytest.mark.parametrize("first_pixel", [0, 1])
def test_a_box_of_the_whole_image_is_read_with_pixels_from_0_and_from_1(tmp_path, first_pixel):
    """A box that starts at 0 shows that coordinates are continuous from 0."""
    draw(tmp_path, range(2))
    whole, other = (0, 0, WIDTH, HEIGHT), (10, 20, 30, 40)
    write_xml(tmp_path / "000.xml", [("saw", whole)], first_pixel=first_pixel)
    write_xml(tmp_path / "001.xml", [("saw", other)], first_pixel=first_pixel)
    data = read_voc(tmp_path)
    assert scenes_of(data.splits["all"]) == {"000.png": [(1, whole)], "001.png": [(1, other)]}
    words = "pixels are counted from 1" if first_pixel else "taken as continuous from 0, since"
    assert words in data.notes[0]


def test_coordinates_with_fractions_count_from_0_unless_an_option_says_1(tmp_path):
    draw(tmp_path, range(1))
    write_xml(tmp_path / "000.xml", [("saw", (10.25, 20.5, 30, 40))], first_pixel=0)
    assert scenes_of(read_voc(tmp_path).splits["all"])["000.png"] == [(1, (10.25, 20.5, 30, 40))]
    counted = read_voc(tmp_path, first_pixel=1).splits["all"]
    assert scenes_of(counted)["000.png"] == [(1, (9.25, 19.5, 31, 41))]


def test_a_single_fraction_among_many_boxes_does_not_decide(tmp_path):
    """VOC2012, which counts pixels from 1, has two files with fractions."""
    draw(tmp_path, range(2))
    many = [("saw", (x, y, 20, 20)) for x in range(1, 13) for y in range(1, 13)]
    write_xml(tmp_path / "000.xml", many)
    write_xml(tmp_path / "001.xml", [("saw", (44.7, 20, 30, 40))])
    data = read_voc(tmp_path)
    assert [box for _, box in scenes_of(data.splits["all"])["000.png"]] == [box for _, box in many]
    assert "counted from 1" in data.notes[0]
    assert "only 1 of 145 boxes have a fraction" in data.notes[0]
    write_xml(tmp_path / "001.xml", [("saw", (0, 20, 30, 40))], first_pixel=0)
    assert "continuous from 0, since" in read_voc(tmp_path).notes[0]


def test_difficult_becomes_ignore_and_boxes_without_an_area_are_dropped(tmp_path):
    draw(tmp_path, range(3))
    write_xml(tmp_path / "000.xml", [("saw", (9, 9, 20, 20))], difficult=1)
    # The first box has xmin = xmax and ymin = ymax. supervision reads it as 1 x 1 pixel
    write_xml(tmp_path / "001.xml", [("saw", (9, 9, 1, 1)), ("saw", (5, 5, 20, 20))])
    data = read_voc(tmp_path)
    first, second = data.splits["all"]["annotations"]
    assert first["ignore"] == 1
    assert "ignore" not in second
    assert scenes_of(data.splits["all"])["001.png"] == [(1, (5, 5, 20, 20))]
    notes = "\n".join(data.tally.notes())
    assert "boxes without an area, left out: 1 (first: " in notes
    assert "001.xml:4)" in notes
    assert 'marked `difficult`, neither objects nor background ("ignore": 1): 1' in notes
    assert "images without an XML file, left out: 1" in notes
    assert len(data.splits["all"]["images"]) == 2


def test_parts_of_an_object_are_no_objects(tmp_path):
    draw(tmp_path, range(1))
    write_xml(tmp_path / "000.xml", [("saw", (9, 9, 20, 20))])
    text = (tmp_path / "000.xml").read_text()
    part = "<part><name>handle</name><bndbox><xmin>1</xmin></bndbox></part>"
    (tmp_path / "000.xml").write_text(text.replace("</object>", f"{part}</object>"))
    data = read_voc(tmp_path)
    assert data.classes == ["saw"]
    assert scenes_of(data.splits["all"])["000.png"] == [(1, (9, 9, 20, 20))]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("<xmin>10<", "<xmin>ten<", "000.xml:5: <xmin> is ten: give a number"),
        ("<xmin>10</xmin>", "", "000.xml:4: <xmin> is missing"),
        ("<difficult>0<", "<difficult>maybe<", "000.xml:4: <difficult> is maybe: give 0 or 1"),
        ("<name>saw<", "<name> <", "000.xml:4: the object has no <name>"),
        ("bndbox>", "polygon>", "000.xml:4: the object saw has no <bndbox>"),
        ("</object>", "", "000.xml:8: not an XML file"),
        ("<width>160<", "<width>320<", "000.xml:3: <size> is 320 x 120, but .*has 160 x 120"),
        ("000.png", "other.png", None),
    ],
)
def test_a_wrong_file_is_refused_with_its_line(tmp_path, old, new, words):
    draw(tmp_path, range(1))
    write_xml(tmp_path / "000.xml", [("saw", (9, 9, 20, 20))])
    text = (tmp_path / "000.xml").read_text()
    assert old in text
    (tmp_path / "000.xml").write_text(text.replace(old, new))
    if words is None:  # the name of the XML file decides
        assert len(read_voc(tmp_path).splits["all"]["annotations"]) == 1
        return
    with pytest.raises(MixDetError, match=words):
        read_voc(tmp_path)


@pytest.mark.parametrize("stated", ["old/002.png", "002", "002.jpg"])
def test_a_file_that_states_another_existing_image_is_counted(tmp_path, stated):
    write_voc(tmp_path, 3)
    file = tmp_path / "Annotations/000.xml"
    text = file.read_text()
    file.write_text(text.replace("000.png", stated))
    (note,) = read_voc(tmp_path).tally.notes()
    assert note.startswith("XML files with another existing image as <filename>")
    assert note.endswith(f": 1 (first: {file}:2)")
    for name in ("absent.png", "000", "000.jpg", "old/000.png", ""):
        file.write_text(text.replace("000.png", name))
        assert read_voc(tmp_path).tally.notes() == []


def test_missing_images_and_ids_are_refused(tmp_path):
    write_voc(tmp_path, 2)
    write_lists(tmp_path, train="000\nnone\n")
    with pytest.raises(MixDetError, match=r"train.txt:2: no XML file of none"):
        read_voc(tmp_path)
    (tmp_path / "JPEGImages/001.png").unlink()
    with pytest.raises(MixDetError, match=r"001.xml:2: no image 001.png in "):
        read_voc(tmp_path)


def test_an_image_that_is_turned_by_exif_but_not_in_its_xml_is_refused(tmp_path):
    draw(tmp_path, range(1))
    image, exif = Image.open(tmp_path / "000.png"), Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "000.png", exif=exif)
    write_xml(tmp_path / "000.xml", [("saw", (9, 9, 20, 20))])
    with pytest.raises(MixDetError, match="EXIF orientation"):
        read_voc(tmp_path)
    write_xml(tmp_path / "000.xml", [("saw", (9, 9, 20, 20))], size=(HEIGHT, WIDTH))
    assert read_voc(tmp_path).splits["all"]["images"][0]["width"] == HEIGHT


def test_an_xml_file_that_declares_entities_is_refused(tmp_path):
    draw(tmp_path, range(1))
    write_xml(tmp_path / "000.xml", [("saw", (9, 9, 20, 20))])
    text = '<!DOCTYPE a [<!ENTITY b "bbbb">]>' + (tmp_path / "000.xml").read_text()
    (tmp_path / "000.xml").write_text(text)
    with pytest.raises(MixDetError, match=r"000\.xml:1: it declares the entity b"):
        read_voc(tmp_path)
