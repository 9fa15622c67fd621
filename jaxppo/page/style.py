"""One palette for the charts and the page. The page's style sheet is `assets/page.css`."""

from __future__ import annotations

# Okabe and Ito (2008), "Color Universal Design": told apart under every common colour-vision deficiency.
BLUE = "#0072B2"
ORANGE = "#E69F00"
GREEN = "#009E73"
VERMILLION = "#D55E00"
PURPLE = "#B5609A"
SKY = "#56B4E9"
YELLOW = "#C9B400"  # darkened from #F0E442, which vanishes as a thin line on white
BLACK = "#374151"
GREY = "#8A919C"
CYCLE = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILLION, YELLOW, BLACK, GREY)

INK = "#1F2937"
MUTED = "#6B7280"
GRID = "#E8EAED"

POLICY = BLUE
FINAL = PURPLE
BENCHMARK = GREY
WIN = GREEN
LOSS = VERMILLION

ROLES: dict[str, tuple[str, str]] = {
    "policy": (BLUE, "#5DB4E8"),
    "final": (PURPLE, "#D58CC0"),
    "benchmark": (GREY, "#8A919C"),
    "win": (GREEN, "#3FC79B"),
    "loss": (VERMILLION, "#FF8A47"),
    "up": (GREEN, "#3FC79B"),
    "down": (VERMILLION, "#FF8A47"),
    "blue": (BLUE, "#5DB4E8"),
    "orange": (ORANGE, "#E6A92B"),
    "green": (GREEN, "#3FC79B"),
    "vermillion": (VERMILLION, "#FF8A47"),
    "purple": (PURPLE, "#D58CC0"),
    "sky": (SKY, "#8CCBF0"),
    "yellow": (YELLOW, "#E0D254"),
    "black": (BLACK, "#C9CED6"),
    "grey": (GREY, "#8A919C"),
    "ink": (INK, "#E4E6EA"),
    "muted": (MUTED, "#9AA2AD"),
    "grid": (GRID, "#2C2E31"),
    "card": ("#FFFFFF", "#181818"),
}
"""Colours of interactive charts by name, on a light and on a dark page; a chart's option writes `@policy`."""
CYCLE_ROLES = ("policy", "orange", "green", "purple", "sky", "vermillion", "yellow", "black", "grey")
"""Names of the colours of CYCLE, in its order."""


def of_many(i: int) -> tuple[str, bool]:
    """Colour of the i-th of many lines, and whether it is dashed: later lines begin the cycle anew, dashed."""
    return CYCLE_ROLES[i % len(CYCLE_ROLES)], i >= len(CYCLE_ROLES)
