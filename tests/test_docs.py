"""Links, tables, figures and code of the documents are correct."""

from __future__ import annotations

import json
import re
import runpy

import pytest
import torch
from mmdet.registry import MODELS

from benchmarks.pages import insert, page_content
from benchmarks.records import read_record, record_plot
from mixdet.config.read import read_config
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_that_exist(page):
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.S | re.M)
    targets = re.findall(r"\]\(([^)#\s]+)", prose)
    inside = [target for target in targets if "://" not in target and "mailto:" not in target]
    missing = [target for target in inside if not (page.parent / target).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_a_page_names_exist(page):
    pattern = r"(?:`|python |^)((?:configs|docs|mixdet|tests|tools)/[\w/.-]+)(?=[`\s:])"
    named = re.findall(pattern, page.read_text(), flags=re.M)
    assert not [name for name in named if not (ROOT / name).exists()]


def test_committed_figures_have_the_words_that_the_script_draws(tmp_path, monkeypatch):
    module = runpy.run_path(str(ROOT / "docs/draw_figures.py"))
    monkeypatch.setitem(module["main"].__globals__, "FIGURES", tmp_path)
    module["main"]()
    drawn = {path.name: path.read_text() for path in tmp_path.glob("*.svg")}
    assert drawn.keys() == {path.name for path in (ROOT / "docs/figures").glob("*.svg")}
    for name, text in drawn.items():
        committed = (ROOT / "docs/figures" / name).read_text()
        words = re.compile(r">([^<>]*\w[^<>]*)</text>")
        assert words.findall(text) == words.findall(committed), f"{name}: run docs/draw_figures.py"


def test_the_tests_that_security_md_names_exist():
    named = re.findall(r"`(tests/[^`]+\.py)::(\w+)`", (ROOT / "SECURITY.md").read_text())
    assert len(named) >= 8
    for file, test in named:
        assert f"def {test}(" in (ROOT / file).read_text(), f"{file}::{test}"


def test_the_example_backbone_of_contributing_md_works_in_a_detector(tmp_path, monkeypatch):
    page = (ROOT / "CONTRIBUTING.md").read_text()
    for block in re.findall(r"```python\n# (.*?)```", page, flags=re.S):
        name, _, code = block.partition("\n")
        (tmp_path / name.removeprefix("configs/")).write_text(code)
    config = tmp_path / "my_backbone_coco.py"
    base = f"{(ROOT / 'configs').as_posix()}/ssdlite"
    config.write_text(config.read_text().replace('"ssdlite', f'"{base}'))
    monkeypatch.syspath_prepend(tmp_path)
    model = MODELS.build(read_config(config).model)
    maps = model.extract_feat(torch.zeros(2, 3, 320, 320))
    assert [tuple(level.shape[1:]) for level in maps[:2]] == [(64, 20, 20), (128, 10, 10)]
    assert len(model.bbox_head(maps)[0]) == 6


def readme_blocks() -> list[str]:
    """Return the blocks of Python code in the README."""
    return re.findall(r"```python\n(.*?)```", README, flags=re.S)


def test_the_readme_is_short():
    assert len(README.split()) <= 1300


def test_speed_ratios_in_the_readme_equal_the_recorded_benchmarks():
    records = {
        name: json.loads((ROOT / f"docs/results/benchmark/{name}.json").read_text())
        for name in ("train", "eval", "input", "infer")
    }
    rows = dict(re.findall(r"^\| ([^|]+?) \| [^|]+ \| ([^|]+?) \|$", README, flags=re.M))

    def median(row: dict) -> float:
        return row["speedup"]["median"]

    for words, networks in (
        ("training step, batch 8", records["train"]["networks"]),
        ("evaluation, from image files to mAP", records["eval"]["detectors"]),
    ):
        medians = [median(row) for row in networks]
        assert rows[words] == f"{min(medians):.2f} to {max(medians):.2f}"
    (whole,) = (row for row in records["input"]["recipes"] if row["recipe"] == "all five steps")
    assert rows["training augmentation, one core"] == f"{median(whole):.1f}"
    single = {
        row["form"].removeprefix("MixDet, "): f"{median(row):.2f}"
        for row in records["infer"]["rows"]
        if (row["batch"], row["threads"]) == (1, 1) and "speedup" in row
    }
    assert rows["inference in PyTorch, MixNet-M"] == single["PyTorch fused"]
    assert rows["inference in ONNX Runtime, MixNet-M"] == single["ONNX Runtime"]
    assert rows["inference in OpenVINO, MixNet-M"] == single["OpenVINO"]
    assert records["infer"]["settings"]["network"] == "MixNet-M"
    assert records["train"]["settings"]["batch"] == 8
    for record in records.values():
        machine = record["machine"]
        assert f"{machine['processor']} with {machine['cores']} cores" in README


def test_the_readme_states_the_map_that_make_train_reaches():
    runs = (ROOT / "docs/results/digits/runs.jsonl").read_text().splitlines()
    scores = {run["row"]: run["metrics"]["coco/bbox_mAP"] for run in map(json.loads, runs)}
    assert f"about {100 * scores['ssdlite_mixnet_s_digits']:.0f} mAP" in README


def test_batch_sizes_of_the_readme_are_those_of_the_configs():
    stated = re.search(
        r"(\d+) images in the SSDLite COCO configs, (\d+) in RetinaNet's, "
        r"(\d+) in\s+`configs/table1`, (\d+) for the digits",
        README,
    )
    configs = (
        "ssdlite_mixnet_m_coco.py",
        "retinanet_mixnet_m_fpn_coco.py",
        "table1/ssdlite_mixnet_m_tf_coco.py",
        "ssdlite_mixnet_s_digits.py",
    )
    for batch, name in zip(stated.groups(), configs, strict=True):
        config = read_config(ROOT / "configs" / name)
        assert int(batch) == config.auto_scale_lr.base_batch_size, name


def test_the_example_config_of_the_readme_builds_a_detector(tmp_path):
    (text,) = (block for block in readme_blocks() if "mixnet_l_focal_coco" in block)
    config = tmp_path / "mixnet_l_focal_coco.py"
    config.write_text(text.replace('"ssdlite', f'"{ROOT.as_posix()}/configs/ssdlite'))
    model = MODELS.build(read_config(config).model)
    assert (model.backbone.out_channels, model.backbone.out_strides) == ((960, 1536), (16, 32))
    assert type(model.bbox_head.loss_cls).__name__ == "FocalLoss"


def test_the_example_config_of_any_detector_md_builds_a_detector(tmp_path):
    (text,) = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs/any_detector.md").read_text(), flags=re.S
    )
    (tmp_path / "fcos.py").write_text(text)
    model = MODELS.build(read_config(tmp_path / "fcos.py").model)
    assert type(model).__name__ == "FCOS"
    assert [conv.conv.in_channels for conv in model.neck.lateral_convs] == [40, 120, 200]


def test_the_mixconv_of_the_readme_equals_its_merged_convolution():
    (text,) = (block for block in readme_blocks() if "MixConv2d(" in block)
    names: dict = {}
    exec(text, names)
    image = torch.randn(2, 64, 9, 9)
    torch.testing.assert_close(names["conv"](image), names["mixconv"](image))


def test_the_commands_for_own_data_of_the_readme_are_in_custom_data_md():
    commands = re.findall(r"^python .*workshop.py$", README, flags=re.M)
    assert len(commands) == 3
    page = (ROOT / "docs/custom_data.md").read_text()
    assert not [command for command in commands if command not in page]


@pytest.mark.parametrize(
    ("page", "file"),
    [
        (ROOT / page, file)
        for page, files in (
            ("docs/performance.md", "benchmark/*"),
            ("docs/deploy.md", "exported/*"),
            ("docs/any_detector.md", "mmdet/*"),
            ("docs/large_data.md", "coco_size/*"),
        )
        for file in sorted(ROOT.glob(f"docs/results/{files}.json"))
    ],
    ids=str,
)
def test_tables_and_plots_of_a_page_show_the_recorded_benchmarks(page, file):
    record = read_record(file)
    updated, has_place = insert(page.read_text(), file.stem, page_content(record, file, page))
    linked = f"]({file.relative_to(page.parent).as_posix()})" in page.read_text()
    assert has_place or linked, f"{page.name} needs a table of {file.name}, or a link to it"
    assert updated == page.read_text(), "run python -m benchmarks report, as the page says"
    drawn = record_plot(record)
    if drawn:
        words = re.compile(r">([^<>]*\w[^<>]*)</text>")
        committed = file.with_suffix(".svg").read_text()
        assert words.findall(drawn) == words.findall(committed)
    assert "/" not in "".join(map(str, record["settings"].values()))


def test_the_ratios_of_the_performance_summary_are_in_the_tables_below_it():
    summary, rest = (ROOT / "docs/performance.md").read_text().split("## How it is measured")
    rows = [row.split("|") for row in summary.splitlines() if row.startswith("|")][2:]
    ratios = [ratio for row in rows for ratio in row[3].split(" to ")]
    assert len(ratios) > len(rows) > 5
    assert not [ratio for ratio in ratios if not re.search(rf"[ (]{ratio.strip()}[ )]", rest)]
