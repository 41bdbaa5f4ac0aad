"""Tables on the screen that fit the terminal: turned on their side, wrapped at words, or in pieces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from rich.cells import cell_len
from rich.table import Table

from flowexp.cli.terminal import console

Lines = Sequence[Sequence[str]]


def print_rows(rows: Sequence[Mapping[str, Any]], title: str = "") -> None:
    """Prints rows with a column for each of the first one's keys, in the first of these forms that fits the terminal.

    A line for each row; a column for each; a line for each with cells wrapped at words; as many columns as fit, one
    piece below another.
    """
    columns = list(rows[0])
    lines: Lines = [columns, *([shown(row.get(column)) for column in columns] for row in rows)]
    turned: Lines = [*zip(*lines, strict=True)]
    room = console().width
    if min(width_of(lines), width_of(turned)) <= room:
        print_lines(turned if width_of(lines) > room else lines, title)
    elif widths := wrapped_widths(lines, room):
        console().print(drawn(lines, title, widths))
    else:
        for piece in pieces(turned, room):
            print_lines(piece, title)


def wrapped_widths(lines: Lines, room: int) -> list[int]:
    """The width of each column with which a table fits `room` without a broken word; empty where it does not."""
    columns = [*zip(*lines, strict=True)]
    widths = [max(map(cell_len, column)) for column in columns]
    least = [max(cell_len(word) for cell in column for word in cell.split() or [""]) for column in columns]
    for _ in range(width_of(lines) - room):
        shrinking = [place for place, width in enumerate(widths) if width > least[place]]
        if not shrinking:
            return []
        widths[max(shrinking, key=widths.__getitem__)] -= 1
    return widths


def pieces(lines: Lines, room: int) -> list[Lines]:
    """The columns of a table, those that fit `room` beside the first one at a time, and at least one."""
    names, *columns = zip(*lines, strict=True)
    parts: list[list[tuple[str, ...]]] = [[]]
    for column in columns:
        if parts[-1] and width_of([*zip(names, *parts[-1], column, strict=True)]) > room:
            parts.append([])
        parts[-1].append(column)
    return [[*zip(names, *part, strict=True)] for part in parts]


def print_lines(lines: Lines, title: str = "") -> None:
    """Prints a head and lines of cells."""
    console().print(drawn(lines, title))


def width_of(lines: Lines) -> int:
    """The columns of a terminal that a table needs for its words not to be broken."""
    screen = console()
    return screen.measure(drawn(lines), options=screen.options.update(max_width=10_000)).maximum


def drawn(lines: Lines, title: str = "", widths: Sequence[int] = ()) -> Table:
    """Lines of cells as a table; cells of numbers stand at the right. widths: of the columns; as needed where empty."""
    table = Table(title=title or None, title_justify="left")
    for place, name in enumerate(lines[0]):
        is_number = all(_begins_as_number(line[place]) for line in lines[1:] if line[place])
        justify: Literal["left", "right"] = "right" if is_number and place else "left"
        table.add_column(name, overflow="fold", justify=justify, width=widths[place] if widths else None)
    for line in lines[1:]:
        table.add_row(*line)
    return table


def shown(value: Any) -> str:
    """A cell: whole numbers whole, others to three digits or to the unit, nothing for None.

    >>> shown(3.0), shown(0.01234), shown(1619.3), shown(None)
    ('3', '0.0123', '1,619', '')
    """
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() or abs(value) >= 1000 else f"{value:.3g}"
    return "" if value is None else str(value)


def _begins_as_number(cell: str) -> bool:
    return cell.lstrip("-+−")[:1].isdigit() or cell in ("nan", "inf")
