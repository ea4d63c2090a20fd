"""Benchmarks of MixDet against its peers: `python -m benchmarks --help`.

Each command has its own module, which `benchmarks.records` lists. The module has these functions.
The last two are optional:

    measure: Takes the measurements and returns a record of plain values for JSON.
    table: Lays out a record as text.
    page_table: Lays out the table for a page of docs/, if it is shorter than `table`.
    plot: Draws a record as SVG.

All modules use these words:

    peer: What a user would run without MixDet, such as mmdet's SSDLite on a backbone of timm.
    form: A way to run the same detector, such as compiled, fused, or exported to a runtime.
    round: One run of everything that is compared. A result is the median over the rounds.
"""
