"""Times functions alternately, so that other load affects them equally."""

import statistics
import time


def in_turns(functions, rounds, steps=1):
    """Times functions alternately, after two warm-up rounds.

    Args:
        functions: Dict from names to functions without arguments.
        rounds: Integer, number of timed rounds.
        steps: Integer, number of calls of each function per round.

    Returns:
        Dict from names to lists of floats, the seconds per call of each round.
    """
    names, seconds = list(functions), {name: [] for name in functions}
    for number in range(-2, rounds):
        first = number % len(names)  # Each function comes first equally often.
        for name in names[first:] + names[:first]:
            begin = time.perf_counter()
            for _ in range(steps):
                functions[name]()
            if number >= 0:
                spent = time.perf_counter() - begin
                seconds[name].append(spent / steps)
    return seconds


def compare(seconds, base):
    """Returns a row for each function, with its ratio to a base function.

    Args:
        seconds: Dict returned by `in_turns`.
        base: String, name of the base function.

    Returns:
        List of dicts with `name`, the median `seconds`, and `ratio`, the median
        over the rounds of the ratio to `base` in the same round.
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
    """Returns the rows as lines of text."""
    lines = [f"{title:<44}{'ms':>10}{'ratio':>8}"]
    for row in rows:
        lines.append(
            f"  {row['name']:<42}{1e3 * row['seconds']:>10.2f}"
            f"{row['ratio']:>8.2f}"
        )
    return "\n".join(lines)
