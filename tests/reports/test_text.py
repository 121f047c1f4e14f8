from __future__ import annotations

from branchy.reports.text import listed, text_table


def test_columns_line_up_and_no_line_ends_in_blanks() -> None:
    table = text_table(("exit", "rule", "n"), [("a", "", "1,000"), ("longer", "x >= 1", "")], left=2)
    assert table.splitlines() == [
        "exit    rule        n",
        "------  ------  -----",
        "a               1,000",
        "longer  x >= 1",
    ]


def test_a_table_without_rows_is_its_header() -> None:
    assert text_table(("a", "bc"), []) == "a  bc\n-  --"


def test_a_long_list_is_cut_to_its_width() -> None:
    assert listed(["a", "b"]) == "a, b"
    assert listed(["abc"] * 9, width=10) == "abc, ab..."
