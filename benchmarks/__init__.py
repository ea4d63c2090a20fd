"""Benchmarks of MixDet against its peers: `python -m benchmarks --help`.

Each command measures one thing and has a module of its own, which `benchmarks.records` names. The
module has these functions:

    measure: Takes the measurements and returns a record: plain values, which JSON can hold.
    table: Lays a record out as text.
    page_table: Lays out the part that a page of docs/ shows. Without it a page shows the table.
    plot: Draws a record as SVG, where there is something to draw.

Three words have one meaning in all of them:

    peer: What a user would run without MixDet, such as mmdet's SSDLite on a backbone of timm.
    form: A way to run the same detector, such as compiled, fused, or exported to a runtime.
    round: One run of everything that is compared. A figure is the median over the rounds.
"""
