"""Numbers and tables as text."""


def number(value, digits=3):
    """Significant digits, without an exponent; "-" for None."""
    if value is None:
        return "-"
    if abs(value) < 1e-9:
        return "0"
    text = f"{value:.{digits}g}"
    return f"{value:.0f}" if "e+" in text else f"{value:.6f}".rstrip("0") if "e" in text else text


def percent(value, digits=1):
    return "-" if value is None else f"{100 * value:.{digits}f}%"


def table(titles, rows):
    """Lines of a table; the first column to the left, the others to the right."""
    cells = [titles, *rows]
    widths = [max(len(row[place]) for row in cells) for place in range(len(titles))]
    lines = ["  ".join(cell.ljust(width) if place == 0 else cell.rjust(width)
                       for place, (cell, width) in enumerate(zip(row, widths))).rstrip()
             for row in cells]
    return [lines[0], "-" * (sum(widths) + 2 * len(widths) - 2), *lines[1:]]
