"""The quick check counts and checks what a run uses: images, objects, batches and class names."""

from __future__ import annotations

import copy

import pytest
from mmdet.registry import DATASETS

from mixdet.config.read import load_config
from mixdet.data_check import full_check, quick_report
from mixdet.data_check.used_data import read_used_data
from tests.tiny import IMAGES, write_config

TRAIN, VAL = "train_dataloader", "val_dataloader"


def set_all(**values):
    """Return a function that sets these fields in every annotation of a COCO file's content."""

    def change(content):
        for annotation in content["annotations"]:
            annotation.update(values)

    return change


def set_bright(**values):
    def change(content):
        for annotation in content["annotations"]:
            if annotation["category_id"] == 2:
                annotation.update(values)

    return change


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"iscrowd": 1}, "21 with `iscrowd`"),
        ({"ignore": 1}, "21 with `ignore`"),
        ({"area": 0}, "21 whose `area` is not above 0"),
        ({"area": -5}, "21 whose `area` is not above 0"),
        ({"bbox": [3, 3, 0.5, 9]}, "21 less than a pixel wide or high"),
        ({"bbox": [90, 3, 9, 9]}, "21 outside of their images"),
    ],
)
def test_training_data_without_an_object_are_an_error(problems_of, values, words):
    problem = problems_of(train=set_all(**values))["no_objects"]
    assert (problem.level, problem.data) == ("error", "training")
    assert problem.text.startswith("no object to learn from: 21 boxes (")
    assert words in problem.text


def test_validation_data_without_an_object_are_an_error(problems_of):
    problem = problems_of(val=set_all(iscrowd=1))["no_objects"]
    assert (problem.level, problem.data) == ("error", "validation")
    assert "no object to be found" in problem.text


@pytest.mark.parametrize("values", [{"iscrowd": 1}, {"ignore": 1}, {"area": 0}])
def test_a_class_without_an_object_to_learn_from_is_reported(problems_of, values):
    problem = problems_of(train=set_bright(**values))["classes_without_objects"]
    assert problem.level == "warning"
    assert [example.text.partition(":")[0] for example in problem.examples] == ["bright"]


def test_a_class_with_objects_in_another_joined_file_is_not_reported(problems_of):
    joined = (
        "part = train_dataloader['dataset']\n"
        "other = dict(part, ann_file='annotations/instances_val2017.json',"
        " data_prefix=dict(img='val2017/'))\n"
        "train_dataloader['dataset'] = dict(type='ConcatDataset', datasets=[part, other])\n"
    )
    problems = problems_of(joined, train=set_all(iscrowd=1))
    assert not problems.keys() & {"no_objects", "classes_without_objects"}


def shrink(count):
    def change(content):
        for image in content["images"][:count]:
            image.update(width=20, height=20)

    return change


def empty(count):
    def change(content):
        ids = {image["id"] for image in content["images"][:count]}
        boxes = content["annotations"]
        content["annotations"] = [box for box in boxes if box["image_id"] not in ids]

    return change


def filters(**values):
    return f"train_dataloader['dataset']['filter_cfg'] = dict(**{values})\n"


@pytest.mark.parametrize(
    ("setting", "change", "level", "count", "words"),
    [
        (filters(min_size=32), shrink(3), "warning", 3, "3 smaller than min_size=32"),
        (filters(min_size=65), None, "error", IMAGES, "no image remains"),
        (filters(filter_empty_gt=True), empty(1), "note", 1, "1 without a box of the classes"),
        (filters(filter_empty_gt=True), empty(7), "warning", 7, "filter_empty_gt=True"),
        (
            filters(filter_empty_gt=True, min_size=32),
            lambda content: (empty(5)(content), shrink(2)(content)),
            "warning",
            5,
            "2 smaller than min_size=32 of the data set's filter_cfg, 3 without",
        ),
        ("train_dataloader['dataset']['indices'] = 4\n", None, "note", 10, "10 not chosen"),
    ],
)
def test_images_that_are_left_out_are_counted_by_reason(
    problems_of, setting, change, level, count, words
):
    problem = problems_of(setting, train=change)["left_out_images"]
    assert (problem.level, problem.count) == (level, count)
    assert words in problem.text


def test_images_without_boxes_that_are_used_are_no_problem(problems_of):
    assert problems_of(train=empty(5)) == {}


@pytest.mark.parametrize("width", ["64", 0, -64, float("nan"), [64]])
def test_a_width_that_is_no_number_above_0_is_an_error(problems_of, width):
    def change(content):
        content["images"][1]["width"] = width

    problems = list(problems_of(train=change).values())
    assert (problems[0].code, problems[0].level) == ("wrong_image_sizes", "error")
    assert problems[0].examples[0].text.startswith("2.png: ")
    assert "unusable" not in [problem.code for problem in problems]


WRAPPERS = {
    "none": "DATA",
    "RepeatDataset": "dict(type='RepeatDataset', times=3, dataset=DATA)",
    "ClassBalancedDataset": "dict(type='ClassBalancedDataset', oversample_thr=0.9, dataset=DATA)",
    "MultiImageMixDataset": "dict(type='MultiImageMixDataset', pipeline=[], dataset=DATA)",
    "ConcatDataset": "dict(type='ConcatDataset', datasets=[DATA, dict(DATA, indices=3)])",
    "nested": "dict(type='RepeatDataset', times=2, dataset=dict(type='ConcatDataset',"
    " datasets=[dict(DATA, indices=[0, 5]), dict(DATA, indices=-2)]))",
}


@pytest.mark.parametrize("wrapper", WRAPPERS.values(), ids=WRAPPERS)
def test_the_counts_equal_those_of_the_data_set_that_the_runner_builds(images, tmp_path, wrapper):
    extra = f"DATA = train_dataloader['dataset']\ntrain_dataloader['dataset'] = {wrapper}\n"
    cfg = load_config(write_config(tmp_path, images, extra=extra + "del DATA\n"))
    (used,) = read_used_data(cfg, (TRAIN,))
    dataset = DATASETS.build(copy.deepcopy(cfg.train_dataloader.dataset))
    assert used.samples == len(dataset)
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    assert {path for part in used.parts for path in part.paths} == {i["img_path"] for i in infos}
    if len(dataset) == used.image_count:  # no image is repeated
        labels = [box["bbox_label"] for info in infos for box in info["instances"]]
        assert list(used.objects.values()) == [labels.count(0), labels.count(1)]


def test_the_report_says_how_many_images_and_objects_are_used(images_copy, tmp_path):
    setting = filters(min_size=32)
    cfg = load_config(write_config(tmp_path, images_copy, extra=setting))
    training, validation = quick_report(cfg, (TRAIN, VAL)).summaries
    assert training.used_images == validation.used_images == IMAGES
    assert sum(training.objects.values()) == 21
    assert training.line() in full_check(cfg).text()
    assert "14 of 14 images are used, with 21 objects: dark" in training.line()


def batch(key, **values):
    return "".join(f"{key}[{name!r}] = {value!r}\n" for name, value in values.items())


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (batch(TRAIN, batch_size=15, drop_last=True), "14 images cannot fill a batch of 15"),
        (
            batch(TRAIN, batch_size=8, drop_last=True)
            + "train_dataloader['dataset']['indices'] = 1\n",
            "1 image cannot",
        ),
        (
            batch(
                TRAIN,
                batch_size=12,
                batch_sampler={"type": "AspectRatioBatchSampler", "drop_last": True},
            ),
            "14 images, at most 9 of one orientation cannot",
        ),
        (batch(TRAIN, num_batch_per_epoch=4), "set it to 3"),
        (batch(VAL, batch_size=15, drop_last=True), "val_dataloader.batch_size to 14,"),
    ],
)
def test_data_that_give_no_batch_are_an_error(problems_of, setting, words):
    def change(content):
        for image in content["images"][:5]:
            image["height"] = 128

    problems = problems_of(setting, train=change).values()
    (problem,) = (problem for problem in problems if problem.level == "error")
    assert words in problem.text


def test_the_images_are_divided_among_the_processes(problems_of, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    setting = batch(TRAIN, batch_size=8, drop_last=True) + "launcher = 'pytorch'\n"
    assert "7 images for each of 2" in problems_of(setting)["no_full_batch"].text


@pytest.mark.parametrize(
    "setting",
    [
        batch(TRAIN, batch_size=15),
        batch(TRAIN, batch_size=14, drop_last=True),
        batch(TRAIN, batch_size=15, drop_last=True, sampler={"type": "InfiniteSampler"}),
        batch(TRAIN, num_batch_per_epoch=3),
    ],
)
def test_data_that_give_a_batch_are_no_problem(problems_of, setting):
    assert problems_of(setting) == {}


def test_images_that_drop_last_leaves_out_of_the_score_are_reported(problems_of):
    problem = problems_of(batch(VAL, batch_size=4, drop_last=True))["dropped_images"]
    assert (problem.level, problem.count) == ("warning", 2)


@pytest.mark.parametrize(
    ("metainfo", "words"),
    [
        ("dict(classes=('dark'))", "with a comma even after a single class: classes=('dark',)"),
        ("dict(classes='names.txt')", "no file has this name"),
        ("dict(CLASSES=('dark', 'bright'))", "CLASSES has no effect: name it classes"),
        ("dict(classes={'dark', 'bright'})", "is a set, which has no order"),
        ("dict(classes=dict(dark=0, bright=1))", "which has no order"),
        ("dict(classes=('dark', 2))", "the class 2 is not text"),
        ("dict(classes=('dark', 'bright', 'dark'))", "'dark' occurs more than once"),
        ("('dark', 'bright')", "is no dict"),
    ],
)
def test_malformed_classes_are_an_error(problems_of, metainfo, words):
    setting = f"train_dataloader['dataset']['metainfo'] = {metainfo}\n"
    (problem,) = problems_of(setting).values()
    assert (problem.code, problem.level, problem.data) == ("malformed_classes", "error", "training")
    assert "train_dataloader.dataset.metainfo: " in problem.text
    assert words in problem.text


def test_classes_in_a_file_are_no_problem(problems_of, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("dark\nbright\n")
    settings = [
        f"{key}['dataset']['metainfo'] = dict(classes={str(names)!r})" for key in (TRAIN, VAL)
    ]
    assert problems_of("\n".join(settings) + "\n") == {}


def test_missing_classes_and_an_empty_validation_set_are_reported_by_name(problems_of):
    wrong = f"{TRAIN}['dataset']['metainfo'] = dict(classes=('dart', 'bright'))\n"
    problems = problems_of(wrong, val=lambda content: content.update(images=[], annotations=[]))
    assert next(iter(problems)) == "missing_classes"
    assert "the file has dark, bright" in problems["missing_classes"].line()
    assert "dart, did you mean dark?" in problems["missing_classes"].line()
    assert problems["no_images"].data == "validation"
    assert "unusable" not in problems


def test_a_test_set_without_annotations_is_no_error(problems_of):
    problems = problems_of(
        val=lambda content: content.pop("annotations"), loaders=("test_dataloader",)
    )
    assert all(problem.level == "note" for problem in problems.values())


def test_the_type_of_a_data_set_may_be_a_class(problems_of):
    setting = "from mmdet.datasets import CocoDataset as _Coco\n"
    assert problems_of(setting + "train_dataloader['dataset']['type'] = _Coco\n") == {}


ASSIGNER = "model['train_cfg']['assigner']"


@pytest.mark.parametrize(
    ("extra", "warned"),
    [
        ("", True),
        (f"{ASSIGNER}.pop('ignore_iof_thr')\n", True),  # mmdet's default is -1
        (f"{ASSIGNER}['ignore_iof_thr'] = 0.5\n", False),
        ("model['bbox_head']['type'] = 'MixConvSSDHead'\n", False),
        ("model['bbox_head']['type'] = 'RetinaHead'\n", True),
        (f"model['train_cfg'] = dict(rpn=dict(assigner={ASSIGNER}))\n", True),
        ("model['train_cfg'] = dict(assigner=dict(type='PointAssigner'))\n", False),
    ],
)
@pytest.mark.parametrize("flag", ["iscrowd", "ignore"])
def test_ignored_boxes_that_are_learned_as_background_are_reported(
    problems_of, extra, warned, flag
):
    safe = "train_dataloader['dataset']['type'] = 'SafeCocoDataset'\n"
    problems = problems_of(extra + safe, train=set_bright(**{flag: 1}))
    assert ("ignored_as_background" in problems) == warned
    if warned:
        problem = problems["ignored_as_background"]
        assert (problem.level, problem.data) == ("warning", "training")
        assert problem.count > 5
        key = "rpn.assigner" if "rpn" in extra else "assigner"
        assert problem.text.endswith(f"set model.train_cfg.{key}.ignore_iof_thr to 0.5")
    assert "ignored_as_background" not in problems_of(
        extra, val=set_bright(**{flag: 1}), train=set_all(iscrowd=0, ignore=0)
    )
