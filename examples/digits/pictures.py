"""Digits as text: pictures that a terminal can show, beside each other.

A picture is 16 characters wide and 8 high, because a character is twice as high as wide. A terminal with colours shows it in
greys, with values between the pixels interpolated; others get a shade for each pixel, without UTF-8 in ASCII.
"""

SHADES = " ░▒▓█"
ASCII_SHADES = " .+%#"
INK = 16
SIDE = 8
WIDTH = 2 * SIDE


def picture(pixels: list[int], shades: str = SHADES) -> list[str]:
    """The rows of one picture, each `WIDTH` characters."""
    if len(pixels) != SIDE * SIDE:
        raise ValueError(f"a picture has {SIDE * SIDE} pixels, these are {len(pixels)}")
    steps = len(shades) - 1
    characters = [shades[min(steps, max(0, round(p * steps / INK)))] * 2 for p in pixels]
    return ["".join(characters[y * SIDE : (y + 1) * SIDE]) for y in range(SIDE)]


def smooth(pixels: list[int]) -> list[list[float]]:
    """The picture at twice the size, 16 by 16, linearly interpolated."""
    places = [min(SIDE - 1.0, max(0.0, (k + 0.5) / 2 - 0.5)) for k in range(WIDTH)]

    def at(y: float, x: float) -> float:
        top, left = int(y), int(x)
        bottom, right = min(SIDE - 1, top + 1), min(SIDE - 1, left + 1)
        upper, lower = (pixels[r * SIDE + left] * (1 - x + left) + pixels[r * SIDE + right] * (x - left) for r in (top, bottom))
        return upper * (1 - y + top) + lower * (y - top)

    return [[at(y, x) for x in places] for y in places]


def painted(pixels: list[int]) -> list[str]:
    """The rows of one picture in the 24 greys of a terminal with 256 colours; a character is two pixels high."""
    greys = [[232 + min(23, max(0, round(v * 23 / INK))) for v in row] for row in smooth(pixels)]
    pairs = zip(greys[::2], greys[1::2], strict=True)
    return ["".join(f"\x1b[38;5;{a};48;5;{b}m▀" for a, b in zip(*pair, strict=True)) + "\x1b[0m" for pair in pairs]


def beside(blocks: list[list[str]], gap: str = "   ") -> list[str]:
    """Blocks of equally many rows as one block."""
    return [gap.join(row) for row in zip(*blocks, strict=True)]


def fitting(columns: int, gap: int = 3, indent: int = 2) -> int:
    """How many pictures stand beside each other on a terminal, 2 to 6."""
    return max(2, min(6, (columns - indent + gap) // (WIDTH + gap)))


BARS = "▁▂▃▄▅▆▇█"


def bars(values: list[float]) -> str:
    """A bar for each value, the largest as high as a character."""
    largest = max(values, default=0) or 1
    return "".join(BARS[min(len(BARS) - 1, int(v * len(BARS) / largest))] for v in values)
