"""Comparisons over seeds: train, score, report. Behind `tools/compare.py`.

`runs` trains every config with every seed, `costs` measures the rows, `statistics` says what can be
told apart, `markdown` and `page` draw it. A comparison is a folder:

    comparison.json   the configs (the first is the baseline), the seeds, the command
    runs.jsonl        a line a run: COCO's 12 numbers, learning curves, times, versions, hardware
    rows.json         a row a config: parameters, multiply-adds, latency, bootstrap over images
    report.md, report.html
    runs/<config>/seed_<n>/   the work folder of a run: its log, checkpoints and detections

Without `runs/` the report can still be drawn, but for its images.
"""

import mixdet.plugin
