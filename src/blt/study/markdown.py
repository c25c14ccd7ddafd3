"""Rows of tables in Markdown."""

from __future__ import annotations


def table_head(*names: str) -> str:
    """The first row, and the line below it."""
    return table_row(*names) + "\n|" + "---|" * len(names)


def table_row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"
