"""The quick check compares the metric's annotation file with the data that are evaluated."""

from __future__ import annotations

import pytest
import torch
from mmdet.registry import DATASETS, METRICS

from mixdet.config.read import load_config
from tests.data_check.conftest import rewrite
from tests.tiny import write_config

VALIDATION = ("val_dataloader",)
OTHER = (
    "other = dict(val_dataloader['dataset'], ann_file='annotations/instances_train2017.json',"
    " data_prefix=dict(img='train2017/'))\n"
)


def dataset(text):
    """Return config text that sets the validation data set. DATA stands for the original one."""
    text = text.replace("DATA", "val_dataloader['dataset']")
    return f"{OTHER}val_dataloader['dataset'] = {text}\n"


def metric(text):
    return f"val_evaluator = {text}\n"


def ann_file(name):
    return f"data_root + '/annotations/{name}'"


JOINED = "dict(type='ConcatDataset', datasets=[DATA, other])"
COCO = f"dict(type='CocoMetric', ann_file={ann_file('instances_val2017.json')})"


@pytest.mark.parametrize("type_name", ["CocoDetectionMetric", "CocoMetric"])
@pytest.mark.parametrize(
    ("setting", "file", "code", "words"),
    [
        ("other", "instances_val2017.json", "metric_of_other_images", "other images: set val_eval"),
        (JOINED, "instances_val2017.json", "ids_in_several_files", "join the files"),
        (
            "dict(type='RepeatDataset', times=2, dataset=DATA)",
            "instances_val2017.json",
            "repeated_images",
            "28 samples of 14 images",
        ),
        (
            "dict(type='ClassBalancedDataset', oversample_thr=1.0, dataset=DATA)",
            "instances_val2017.json",
            "repeated_images",
            "repeats images",
        ),
        ("DATA", "missing.json", "metric_file_missing", "missing.json) does not exist"),
        ("DATA", "broken.json", "metric_file_broken", "broken.json"),
        ("DATA", "other_order.json", "metric_categories", "has them in another order"),
        ("DATA", "renamed.json", "metric_categories", "lacks bright"),
        ("DATA", "other_ids.json", "metric_lacks_images", "14 of 14 images are not in"),
        ("DATA", "one_image_less.json", "metric_lacks_images", "1 of 14 images"),
    ],
)
def test_a_metric_of_other_data_is_an_error(
    problems_of, images_copy, type_name, setting, file, code, words
):
    write_variants(images_copy)
    evaluator = metric(f"dict(type={type_name!r}, ann_file={ann_file(file)})")
    problem = problems_of(dataset(setting) + evaluator, loaders=VALIDATION)[code]
    assert (problem.level, problem.data) == ("error", "validation")
    assert words in problem.line()


def write_variants(root):
    """Write changed copies of the tiny validation file into its folder."""
    folder = root / "annotations"
    own = folder / "instances_val2017.json"
    (folder / "broken.json").write_text("{")

    def shift(content):
        for image in content["images"]:
            image["id"] += 100
        for annotation in content["annotations"]:
            annotation["image_id"] += 100

    def misname(content):
        content["categories"][1]["name"] = "pale"

    def round_boxes(content):
        for annotation in content["annotations"]:
            annotation["bbox"] = [value + 0.4 for value in annotation["bbox"]]

    def move_one(content):
        content["annotations"][0]["bbox"] = [1, 1, 5, 5]

    rewrite(own, lambda content: content["categories"].reverse(), folder / "other_order.json")
    rewrite(own, misname, folder / "renamed.json")
    rewrite(own, shift, folder / "other_ids.json")
    rewrite(own, lambda content: content["images"].pop(), folder / "one_image_less.json")
    rewrite(own, round_boxes, folder / "rounded.json")
    rewrite(own, move_one, folder / "one_box_moved.json")


@pytest.mark.parametrize(
    ("setting", "evaluator"),
    [
        ("DATA", COCO),
        ("DATA", f"[{COCO}, dict(type='VOCMetric')]"),
        ("DATA", f"dict(type='CocoDetectionMetric', ann_file={ann_file('rounded.json')})"),
        ("dict(type='MultiImageMixDataset', pipeline=[], dataset=DATA)", COCO),
        ("dict(type='RepeatDataset', times=1, dataset=DATA)", COCO),
        (
            JOINED,
            "dict(type='MultiDatasetsEvaluator', dataset_prefixes=['a', 'b'], metrics=["
            + ", ".join(
                f"dict(type='CocoDetectionMetric', ann_file={ann_file(f'instances_{part}.json')})"
                for part in ("val2017", "train2017")
            )
            + "])",
        ),
        (JOINED, "dict(type='VOCMetric')"),
    ],
)
def test_a_metric_of_the_same_data_is_no_problem(problems_of, images_copy, setting, evaluator):
    write_variants(images_copy)
    assert problems_of(dataset(setting) + metric(evaluator), loaders=VALIDATION) == {}


def test_a_subset_is_a_warning_only_for_a_metric_that_scores_every_image(problems_of):
    subset = dataset("dict(DATA, indices=5)")
    assert {p.level for p in problems_of(subset, loaders=VALIDATION).values()} == {"note"}
    problem = problems_of(subset + metric(COCO), loaders=VALIDATION)["unseen_images"]
    assert (problem.level, problem.count) == ("warning", 9)


def test_a_file_with_a_few_other_boxes_is_a_warning(problems_of, images_copy):
    write_variants(images_copy)
    evaluator = f"dict(type='CocoDetectionMetric', ann_file={ann_file('one_box_moved.json')})"
    problem = problems_of(metric(evaluator), loaders=VALIDATION)["metric_differs"]
    assert problem.level == "warning"
    assert "5 % of the boxes" in problem.text  # one of 21


@pytest.mark.parametrize(
    ("evaluator", "code"),
    [("CocoMetric", "instances_not_packed"), ("VOCMetric", "annotations_not_loaded")],
)
def test_a_metric_that_gets_no_truth_is_an_error(problems_of, evaluator, code):
    without = dataset("dict(DATA, pipeline=[*test_pipeline[:2], test_pipeline[3]])")
    setting = without + metric(f"dict(type={evaluator!r})")
    assert problems_of(setting, loaders=VALIDATION)[code].level == "error"


@pytest.mark.parametrize("type_name", ["CocoDetectionMetric", "CocoMetric"])
def test_perfect_detections_get_an_map_of_1_from_an_accepted_metric(images, tmp_path, type_name):
    """The metric gets the true boxes as detections."""
    cfg = load_config(write_config(tmp_path, images, extra=metric(COCO)))
    data = DATASETS.build(cfg.val_dataloader.dataset)
    scorer = METRICS.build({**cfg.val_evaluator, "type": type_name})
    scorer.dataset_meta = data.metainfo
    for index in range(len(data)):
        info = data.get_data_info(index)
        boxes = torch.tensor([box["bbox"] for box in info["instances"]]).float()
        labels = torch.tensor([box["bbox_label"] for box in info["instances"]])
        detections = {"bboxes": boxes, "scores": torch.ones(len(boxes)), "labels": labels}
        sample = {"img_id": info["img_id"], "ori_shape": (64, 64), "pred_instances": detections}
        scorer.process({}, [sample])
    assert scorer.evaluate(len(data))["coco/bbox_mAP"] == pytest.approx(1)
