"""Intervals equal those of scipy's paired t-test. The weighted mAP equals that of pycocotools."""

import contextlib
import copy
import io
import math

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy import stats

from mixdet.comparison import Interval, paired_interval
from mixdet.comparison.image_matches import ImageAP, MatchFile, match_images
from mixdet.comparison.row_summary import describe_difference
from mixdet.comparison.score_intervals import bootstrap_images
from mixdet.errors import MixDetError
from mixdet.evaluation import score_boxes

IMAGES = (3, 4, 8, 15, 16, 23)


def by_seed(values):
    return dict(enumerate(values))


def test_a_few_seeds_give_the_paired_t_interval():
    base, ours = [40.0, 41.5, 39.2, 40.8], [41.1, 41.9, 40.9, 41.0]
    interval = paired_interval(by_seed(ours), by_seed(base))
    assert isinstance(interval, Interval)
    expected = stats.ttest_rel(ours, base).confidence_interval(0.95)
    assert interval.mean == pytest.approx(np.subtract(ours, base).mean())
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))
    assert interval.separable == (stats.ttest_rel(ours, base).pvalue < 0.05)


def test_the_interval_of_three_seeds_equals_a_computation_by_hand():
    # differences 1, 2, 3: mean 2, standard error 1/sqrt(3), t(0.975, 2) = 4.3027
    interval = paired_interval(by_seed([1, 2, 3]), by_seed([0, 0, 0]))
    assert interval.high - interval.mean == pytest.approx(4.3027 / math.sqrt(3), abs=1e-4)
    assert not interval.separable


def test_pairing_removes_the_effect_of_a_seed_on_both_configs():
    seeds = np.array([10.0, 30.0, 20.0])
    ours = by_seed(seeds + [1.0, 1.1, 0.9])
    assert paired_interval(ours, by_seed(seeds)).separable
    assert not paired_interval(ours, by_seed(seeds[[1, 2, 0]])).separable


def test_only_common_seeds_count_and_a_single_seed_gives_an_infinite_interval():
    interval = paired_interval({0: 50.0, 1: 90.0}, {0: 40.0, 2: 0.0})
    assert interval.mean == 10
    assert math.isinf(interval.high)
    assert not interval.separable
    with pytest.raises(ValueError, match="no seed"):
        paired_interval({0: 1.0}, {1: 1.0})


def test_a_few_equal_differences_do_not_separate_rows():
    base = [40.1, 41.5, 39.2]
    ours = paired_interval(by_seed([value + 0.3 for value in base]), by_seed(base))
    assert ours.mean == pytest.approx(0.3)
    assert math.isinf(ours.low)
    assert not ours.separable
    assert describe_difference(ours) == "+0.3, spread unknown: not separable"
    assert paired_interval(by_seed(base), by_seed(base)) == (0, 0, 0)
    assert paired_interval(by_seed([2.0] * 8), by_seed([1.0] * 8)) == (1, 1, 1)


def test_the_bootstrap_interval_of_many_seeds_covers_the_mean():
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(60):
        differences = generator.normal(1.0, 1.0, 12)
        interval = paired_interval(by_seed(differences), by_seed(np.zeros(12)))
        assert interval.low < interval.mean < interval.high
        covered += interval.low <= 1.0 <= interval.high
    assert covered >= 50  # 95 % of 60 is 57. Three standard deviations below 57 is 52


def make_truth(generator):
    annotations = [
        {
            "id": index + 1,
            "image_id": int(generator.choice(IMAGES[:-1])),  # one image is empty
            "category_id": int(generator.integers(1, 4)),
            "bbox": [*generator.uniform(0, 60, 2).tolist(), *generator.uniform(10, 40, 2).tolist()],
            "area": 400.0,
            "iscrowd": int(index % 11 == 0),
        }
        for index in range(30)
    ]
    truth = COCO()
    truth.dataset = {
        "images": [{"id": image, "width": 100, "height": 100} for image in IMAGES],
        "annotations": annotations,
        "categories": [{"id": i, "name": str(i)} for i in range(1, 5)],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
    return truth


def make_detections(truth, generator):
    """Return a false box, and two shifted copies of each true box: by a few and by many pixels."""
    detections = []
    for annotation in truth.dataset["annotations"]:
        for shift in (2.0, 25.0):
            x, y, w, h = annotation["bbox"]
            detections.append(
                {
                    "image_id": annotation["image_id"],
                    "category_id": annotation["category_id"],
                    "bbox": [x + generator.normal(0, shift), y, w, h],
                    "score": round(float(generator.uniform()), 2),
                }
            )
    detections.append({"image_id": 23, "category_id": 1, "bbox": [0, 0, 9, 9], "score": 0.99})
    return detections


def pycocotools_ap(truth, detections, weights):
    """Return the mAP of a data set that contains each image as often as its weight says."""
    larger = copy.deepcopy(truth.dataset)
    larger["images"], larger["annotations"], results = [], [], []
    for image, weight in zip(IMAGES, weights, strict=True):
        for _ in range(weight):
            number = len(larger["images"]) + 1
            larger["images"].append({"id": number, "width": 100, "height": 100})
            larger["annotations"] += [
                {**a, "image_id": number, "id": 1000 * number + a["id"]}
                for a in truth.dataset["annotations"]
                if a["image_id"] == image
            ]
            results += [{**d, "image_id": number} for d in detections if d["image_id"] == image]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = larger
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[0]


@pytest.mark.parametrize("weights", [(1, 1, 1, 1, 1, 1), (2, 0, 1, 3, 0, 1), (0, 0, 4, 1, 1, 0)])
@pytest.mark.parametrize("seed", range(3))
def test_weighted_map_equals_pycocotools_on_repeated_images(weights, seed):
    generator = np.random.default_rng(seed)
    truth = make_truth(generator)
    detections = make_detections(truth, generator)
    score = ImageAP(match_images(truth, detections, IMAGES))(np.array(weights))
    assert score == pytest.approx(pycocotools_ap(truth, detections, weights), abs=1e-12)


def test_only_the_chosen_classes_and_images_count():
    """The same detections get the mAP that `score_boxes` gives for these classes and images."""
    generator = np.random.default_rng(3)
    truth = make_truth(generator)
    detections = make_detections(truth, generator)
    images, category = IMAGES[1:4], [truth.getCatIds()[-1]]
    score = ImageAP(match_images(truth, detections, images, category))(np.ones(3, int))
    assert score == pytest.approx(
        score_boxes(truth, detections, category, images).stats["bbox_mAP"], abs=1e-12
    )
    assert score != pytest.approx(
        ImageAP(match_images(truth, detections, IMAGES))(np.ones(6, int)), abs=0.01
    )


def test_the_weights_follow_the_callers_order_of_the_images():
    generator = np.random.default_rng(5)
    truth = make_truth(generator)
    detections = make_detections(truth, generator)
    weights = np.array([2, 0, 1, 3, 0, 1])
    forward = ImageAP(match_images(truth, detections, IMAGES))(weights)
    assert ImageAP(match_images(truth, detections, IMAGES[::-1]))(weights[::-1]) == pytest.approx(
        forward
    )


def test_map_is_0_without_detections_and_minus_1_without_objects():
    truth = make_truth(np.random.default_rng(0))
    score = ImageAP(match_images(truth, [], IMAGES))
    assert score(np.ones(6, int)) == 0
    assert score(np.array([0, 0, 0, 0, 0, 1])) == -1


def test_the_bootstrap_finds_a_clear_difference_but_none_between_equal_configs():
    generator = np.random.default_rng(0)
    truth = make_truth(generator)
    perfect = [
        {**{key: a[key] for key in ("image_id", "category_id", "bbox")}, "score": 0.9}
        for a in truth.dataset["annotations"]
    ]
    poor = make_detections(truth, generator)
    good, bad = (ImageAP(match_images(truth, boxes, IMAGES)) for boxes in (perfect, poor))
    intervals = bootstrap_images({"a": [bad], "b": [good, good], "c": [bad]}, len(IMAGES), draws=40)
    assert intervals.keys() == {"b", "c"}
    assert intervals["b"].separable
    assert intervals["b"].mean > 0
    assert intervals["c"] == (0, 0, 0)


def test_the_match_file_gives_the_scores_of_pycocotools(tmp_path):
    """The file is enough to compute AP and AP50 of each class, and the weighted mAP."""
    generator = np.random.default_rng(7)
    truth = make_truth(generator)
    runs = {("a", seed): make_detections(truth, generator) for seed in (0, 1)}
    file = MatchFile(["1", "2", "3", "4"])
    file.runs = {run: match_images(truth, boxes, IMAGES) for run, boxes in runs.items()}
    file.runs["b b/c", 12] = match_images(truth, [], IMAGES)
    file.write(tmp_path)
    read = MatchFile.read(tmp_path)
    assert read.runs.keys() == file.runs.keys()
    weights = np.array([2, 0, 1, 3, 0, 1])
    for run, boxes in runs.items():
        assert ImageAP(read.runs[run])(weights) == ImageAP(match_images(truth, boxes, IMAGES))(
            weights
        )
    scores = [score_boxes(truth, boxes, image_ids=IMAGES) for boxes in runs.values()]
    assert read.class_scores("a", (0, 1, 2)) == {
        name: (
            pytest.approx(np.mean([score.per_class[name] for score in scores]), abs=1e-12),
            pytest.approx(np.mean([score.per_class_50[name] for score in scores]), abs=1e-12),
        )
        for name in "123"  # no object has the class 4
    }
    assert read.class_scores("b b/c", [12]) == dict.fromkeys("123", (0, 0))
    assert read.class_scores("unknown", [0]) == {}


def test_a_damaged_match_file_is_refused(tmp_path):
    assert MatchFile.read(tmp_path).runs == {}
    (tmp_path / MatchFile.NAME).write_bytes(b"PK nothing")
    with pytest.raises(MixDetError, match=r"matches.npz: cannot be read"):
        MatchFile.read(tmp_path)
