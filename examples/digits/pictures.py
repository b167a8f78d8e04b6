"""Digits as text: pictures that a terminal can show, beside each other.

A pixel is two characters wide, because a character is twice as high as wide. Terminals without UTF-8 get ASCII.
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


def beside(blocks: list[list[str]], gap: str = "   ") -> list[str]:
    """Blocks of equally many rows as one block."""
    return [gap.join(row) for row in zip(*blocks, strict=True)]


def fitting(columns: int, gap: int = 3, indent: int = 2) -> int:
    """How many pictures stand beside each other on a terminal, 2 to 6."""
    return max(2, min(6, (columns - indent + gap) // (WIDTH + gap)))
