"""The first column of a table is aligned to the left, and the other columns to the right."""

from __future__ import annotations

from mixdet.visual import text_table

HEADER, ROWS = ("config", "mAP"), [("a", "7.5"), ("longer name", "12.5")]


def test_a_table_for_the_terminal_is_aligned():
    assert text_table(HEADER, ROWS).splitlines() == [
        "config        mAP",
        "-----------  ----",
        "a             7.5",
        "longer name  12.5",
    ]


def test_a_table_in_markdown_has_its_numbers_on_the_right():
    assert text_table(HEADER, ROWS, markdown=True).splitlines() == [
        "| config      |  mAP |",
        "| ----------- | ---: |",
        "| a           |  7.5 |",
        "| longer name | 12.5 |",
    ]
