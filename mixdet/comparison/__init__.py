"""Comparisons of configs over several seeds: training, statistics, report.

`tools/compare.py` and `tools/ablate.py` use this package. `training_runs` trains every config with
every seed. Each config is a row of the report. `row_costs` measures the parameters, multiply-adds
and latencies of a row as soon as its runs are finished. `score_intervals` computes confidence
intervals. `comparison_report` writes the report of a comparison. `joined_report` writes a report
about several comparisons. A comparison is a folder with these files:

    comparison.json   the configs (the first is the baseline), the seeds, the command, and the
                      lengths of the runs if `--minutes` chose them
    runs.jsonl        a line for each run: COCO's 12 metrics, learning curves, times, versions
    rows.json         an entry for each row: parameters, multiply-adds, latencies, and a confidence
                      interval from a bootstrap over the validation images
    matches.npz       which objects the detections of each run match: enough for the bootstrap, and
                      for AP and AP50 of each class
    report.md, report.html
    runs/ROW/seed_N/  the work folder of a run: its log, checkpoints and detections

If `runs/` is deleted, the report can still be written again, but shows no images.
"""

import mixdet.plugin

from mixdet.comparison.ablation import plan_ablation, write_ablation_report
from mixdet.comparison.comparison_folder import Comparison, Plan
from mixdet.comparison.comparison_report import write_report
from mixdet.comparison.joined_report import write_joined_report
from mixdet.comparison.score_intervals import Interval, paired_interval
from mixdet.comparison.training_runs import train_all

__all__ = [
    "Comparison",
    "Interval",
    "Plan",
    "paired_interval",
    "plan_ablation",
    "train_all",
    "write_ablation_report",
    "write_joined_report",
    "write_report",
]
