"""Numbers with the digits that their interval supports."""

import math


def format_figure(value: float, interval: tuple[float, float] | None = None) -> str:
    """Format a number with the digits that its interval supports, or four significant digits without an interval.

    >>> format_figure(2.31456, (2.30, 2.33)), format_figure(2.31456), format_figure(1234567.0)
    ('2.315', '2.315', '1,234,567')
    """
    half = (interval[1] - interval[0]) / 2 if interval else 0.0
    if half > 0:
        return f"{value:,.{min(max(0, 1 - math.floor(math.log10(half))), 9)}f}"
    if value == int(value) or abs(value) >= 1e4:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def signed(difference: float, interval: tuple[float, float] | None = None) -> str:
    """Format a difference as `format_figure` does, with its sign; zero has none.

    >>> signed(0.02, (0.01, 0.03)), signed(-0.00001, (-0.02, 0.02)), signed(-1.5)
    ('+0.020', '0.000', '-1.5')
    """
    figure = format_figure(difference, interval)
    if not figure.strip("-0.,"):
        return figure.lstrip("-")
    return f"+{figure}" if difference > 0 else figure


def format_interval(interval: tuple[float, float]) -> str:
    """Format both ends with the digits of the value, and up to two more where an end would read as zero.

    >>> format_interval((0.0004, 0.0221)), format_interval((-4.5, -0.03))
    ('0.0004 to 0.0221', '-4.50 to -0.03')
    """
    if interval[0] == interval[1]:
        return "no spread"
    half = (interval[1] - interval[0]) / 2
    digits = min(max(0, 1 - math.floor(math.log10(half))), 9)
    more = next((k for k in range(3) if not any(end and not round(end, digits + k) for end in interval)), 2)
    return " to ".join(f"{round(end, digits + more) + 0.0:,.{digits + more}f}" for end in interval)


def compact(value: float) -> str:
    """Format a large count with three significant digits and a unit.

    >>> compact(950.0), compact(627592.0), compact(1410745600.0)
    ('950', '628k', '1.41G')
    """
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return format_figure(value)
