"""Times functions in turns, so that other work hits them alike."""

import statistics
import time


def in_turns(functions, rounds, steps=1):
    """Times functions in turns, after two rounds that do not count.

    Args:
        functions: Dict from names to functions of nothing.
        rounds: Integer.
        steps: Integer, calls of each in a round.

    Returns:
        Dict from names to lists: seconds of a call, one for each round.
    """
    names, seconds = list(functions), {name: [] for name in functions}
    for number in range(-2, rounds):
        first = number % len(names)  # each comes first equally often
        for name in names[first:] + names[:first]:
            begin = time.perf_counter()
            for _ in range(steps):
                functions[name]()
            if number >= 0:
                spent = time.perf_counter() - begin
                seconds[name].append(spent / steps)
    return seconds


def compare(seconds, base):
    """Returns a row for each function, with its ratio to one of them.

    Args:
        seconds: As `in_turns` returns them.
        base: Name of the function that the others are compared with.

    Returns:
        List of dicts: `name`, median `seconds`, and `ratio`, the median over
        the rounds of the ratio to `base` in the same round.
    """
    return [
        {
            "name": name,
            "seconds": statistics.median(values),
            "ratio": statistics.median(
                value / other
                for value, other in zip(values, seconds[base], strict=True)
            ),
        }
        for name, values in seconds.items()
    ]


def render(rows, title):
    """Returns lines of text for these rows."""
    lines = [f"{title:<44}{'ms':>10}{'ratio':>8}"]
    for row in rows:
        lines.append(
            f"  {row['name']:<42}{1e3 * row['seconds']:>10.2f}"
            f"{row['ratio']:>8.2f}"
        )
    return "\n".join(lines)
