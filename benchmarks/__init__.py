"""Benchmarks of MixDet against its peers: `python -m benchmarks --help`.

Each command has its own module. `benchmarks.records` lists these modules. Each module has these
functions, of which the last two are optional:

    measure: Takes the measurements and returns a record of plain values for JSON.
    table: Lays out a record as text.
    page_table: Lays out a shorter table for a page of docs/. Without it, a page shows `table`.
    plot: Draws a record as SVG.

All modules use these words:

    peer: What a user would run without MixDet, such as mmdet's SSDLite with a timm backbone.
    side: One of the programs that are compared, such as MixDet or its peer.
    form: A way to run the same detector, such as compiled, fused, or exported to a runtime.
    round: One run of everything that is compared. A result is the median over the rounds.
"""
