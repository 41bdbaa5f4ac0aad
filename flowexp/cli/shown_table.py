"""Tables on the screen, turned on their side where only that fits the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from flowexp.cli.terminal import console

Lines = Sequence[Sequence[str]]


def print_rows(rows: Sequence[Mapping[str, Any]], title: str = "") -> None:
    """Prints rows with a column for each of the first one's keys; turned where only that fits the terminal."""
    columns = list(rows[0])
    lines: Lines = [columns, *([shown(row.get(column)) for column in columns] for row in rows)]
    turned = [*zip(*lines, strict=True)]
    print_lines(turned if width_of(turned) <= console().width < width_of(lines) else lines, title)


def print_lines(lines: Lines, title: str = "") -> None:
    """Prints a head and lines of cells."""
    console().print(drawn(lines, title))


def width_of(lines: Lines) -> int:
    """The columns of a terminal that a table needs for its words not to be broken."""
    screen = console()
    return screen.measure(drawn(lines), options=screen.options.update(max_width=10_000)).maximum


def drawn(lines: Lines, title: str = "") -> Table:
    """Lines of cells as a table; cells of numbers stand at the right."""
    table = Table(title=title or None, title_justify="left")
    for place, name in enumerate(lines[0]):
        is_number = all(_begins_as_number(line[place]) for line in lines[1:] if line[place])
        table.add_column(name, overflow="fold", justify="right" if is_number and place else "left")
    for line in lines[1:]:
        table.add_row(*line)
    return table


def shown(value: Any) -> str:
    """A cell: whole numbers whole, others to three digits, nothing for None."""
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() else f"{value:.3g}"
    return "" if value is None else str(value)


def _begins_as_number(cell: str) -> bool:
    return cell.lstrip("-+−")[:1].isdigit() or cell in ("nan", "inf")
