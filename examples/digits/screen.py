"""Where the demo writes: sections, commands, facts, and what came of them.

Colours only on a terminal that wants them; shades and ticks only where they can be printed.
"""

import os
import shutil
import sys
import textwrap

import pictures


class Screen:
    """Standard output, as wide as the terminal but not wider than one reads."""

    def __init__(self):
        self.colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self.columns = shutil.get_terminal_size((100, 24)).columns
        self.unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
        self.good, self.bad, self.line, self.bar = ("✓", "✗", "─", "━") if self.unicode else ("ok", "x", "-", "=")
        self.sections = 0

    def style(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour else text

    def write(self, text: str = "") -> None:
        print(text, flush=True)

    def width(self) -> int:
        return min(self.columns, 100)

    def section(self, title: str, about: str = "") -> None:
        self.sections += 1
        title = f"{self.sections}  {title}"
        rule = self.line * max(4, self.width() - len(title) - 1)
        self.write(f"\n{self.style('1;36', title)} {self.style('2', rule)}")
        if about:
            self.note(about)

    def command(self, line: str) -> None:
        """What one would type."""
        self.write(f"  {self.style('2', '$')} {self.style('1', line)}")

    def fact(self, name: str, value: str, more: str = "") -> None:
        self.write(f"  {name:<24}{self.style('1', value)}{'   ' if more else ''}{self.style('2', more)}")

    def marked(self, code: str, mark: str, text: str) -> None:
        first, *rest = textwrap.wrap(text, self.width() - 4, break_on_hyphens=False) or [""]
        self.write(f"  {self.style(code, mark)} {first}")
        for line in rest:
            self.write(f"  {' ' * len(mark)} {line}")

    def done(self, text: str) -> None:
        self.marked("32", self.good, text)

    def refused(self, text: str) -> None:
        self.marked("33", self.bad, f"refused: {text}")

    def note(self, text: str) -> None:
        for line in textwrap.wrap(text, self.width() - 2, break_on_hyphens=False):
            self.write(self.style("2", f"  {line}"))

    def quote(self, text: str) -> None:
        """What a command printed."""
        for line in text.rstrip().splitlines():
            self.write(f"  {self.style('2', '│' if self.unicode else '|')} {line}".rstrip())

    def share(self, share: float) -> str:
        """A share as a bar of 20 characters."""
        filled = int(share * 20)
        return self.style("32", self.bar * filled) + self.style("2", ("╌" if self.unicode else ".") * (20 - filled))

    def picture(self, pixels: list[int]) -> list[str]:
        if self.colour and self.unicode:
            return pictures.painted(pixels)
        return pictures.picture(pixels, pictures.SHADES if self.unicode else pictures.ASCII_SHADES)
