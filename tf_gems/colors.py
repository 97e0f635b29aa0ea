"""The colors of all pictures and pages: the palette of Okabe and Ito.

Readers of every kind of color vision can tell them apart. A picture that
needs more than color distinguishes its marks by shape as well.

Reference: Okabe and Ito, 2008, "Color Universal Design".
"""

ORANGE = "#e69f00"
SKY = "#56b4e9"
GREEN = "#009e73"
BLUE = "#0072b2"
VERMILION = "#d55e00"
PURPLE = "#cc79a7"
BLACK = "#000000"
GRAY = "#757575"  # for what is only compared with

# Without yellow, which is faint on white.
CYCLE = (BLUE, GREEN, VERMILION, PURPLE, ORANGE, SKY, BLACK)
# The same method or stage has the same color everywhere.
MINED, FINETUNED, RANDOM, DENSE = BLUE, GREEN, VERMILION, GRAY


def styles(names):
    """Returns a color and a marker for each name, all different.

    It is a dict from names to keywords of matplotlib.
    """
    markers = "osD^vPX"
    return {
        name: {
            "color": CYCLE[i % len(CYCLE)],
            "marker": markers[(i + i // len(CYCLE)) % len(markers)],
            "fillstyle": "none" if i // len(CYCLE) % 2 else "full",
        }
        for i, name in enumerate(names)
    }
