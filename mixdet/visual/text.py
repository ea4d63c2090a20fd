"""Draw text on images, in a font that has its letters and in lines that fit a width."""

from __future__ import annotations

import re
import unicodedata
import warnings
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from PIL import ImageDraw, ImageFont

# An escape, such as \u732b, that a text itself contains. Its backslash is doubled.
ESCAPE = re.compile(r"\\[\\nrtuUx]")
ASCII = frozenset(map(chr, range(128)))
# Fonts that claim to have every character, but draw only placeholders or nothing
PLACEHOLDER_FONTS = re.compile("last ?resort|adobe ?blank|fallback|tofu", re.IGNORECASE)


class FittedText:
    """A text in a font that has its letters, in lines that fit a width.

    Letters that no font has, and characters that cannot be seen, are written as escapes, as in a
    Python string. So two texts that differ in such a character look different.

    Args:
        text: The text.
        size: Size of the font in pixels.
        max_width: Longest line in pixels. A longer text is broken after spaces, and within words
            that are longer than a line. A line has at least one character. None keeps one line.

    Attributes:
        lines: The lines, as they are drawn.
        width: Pixels of the longest line.
        height: Pixels of all lines.
    """

    def __init__(self, text: str, size: int, max_width: float | None = None) -> None:
        file, letters = _font_for(frozenset(text) - ASCII)
        self._font = _load_font(file, size)
        self._length = cache(self._font.getlength)  # mostly needed twice, and slow
        self.lines = self._break_lines(_escape(text, letters), max_width)
        self._line_height = sum(self._font.getmetrics())
        self.width = max(round(self._length(line) + 0.5) for line in self.lines)
        self.height = self._line_height * len(self.lines)

    def draw(self, draw: ImageDraw.ImageDraw, corner: tuple[float, float], color: tuple) -> None:
        """Draw the text. `corner` is the upper left corner (x, y) of its first line."""
        x, y = corner
        for index, line in enumerate(self.lines):
            draw.text((x, y + index * self._line_height), line, fill=color, font=self._font)

    def _break_lines(self, text: str, max_width: float | None) -> list[str]:
        if max_width is None or self._length(text) <= max_width:
            return [text]
        lines = [""]
        for character in text:
            longer = lines[-1] + character
            fits = self._length(longer) <= max_width
            # A mark stays with the letter that it belongs to
            if fits or not lines[-1] or unicodedata.combining(character):
                lines[-1] = longer
            else:  # break after the last space, or within a word that fills the line
                start = lines[-1].rfind(" ") + 1 or len(lines[-1])
                lines[-1:] = [longer[:start], longer[start:]]
        return lines


def _escape(text: str, letters: frozenset[int]) -> str:
    """Write each character that the font does not have, or that cannot be seen, as an escape."""
    # A text whose letters and marks are not composed can look like another text.
    is_composed = unicodedata.is_normalized("NFC", text)
    is_drawn = [
        ord(character) in letters
        and character.isprintable()
        and (is_composed or not unicodedata.combining(character))
        for character in text
    ]
    if all(is_drawn) and not ESCAPE.search(text):
        return text
    if any(character.isprintable() and ord(character) not in letters for character in text):
        warnings.warn(  # Python shows a warning only once per line of code
            "no installed font has all letters of the names, so some are drawn as escapes such as "
            r"\u732b: install a font of this script, such as one of Google's Noto fonts",
            stacklevel=1,
        )
    return "".join(
        character if drawn and character != "\\" else character.encode("unicode_escape").decode()
        for character, drawn in zip(text, is_drawn, strict=True)
    )


@lru_cache(4096)
def _font_for(characters: frozenset[str]) -> tuple[str | None, frozenset[int]]:
    """Return the file of a font that has ASCII and the characters, and the font's code points.

    If DejaVu Sans, which matplotlib ships, has the characters, it is returned. Otherwise the first
    installed font that has them is returned, or DejaVu Sans if no font has them. Without
    matplotlib, the file is None. It stands for Pillow's own font, used for ASCII only.
    """
    try:
        import matplotlib
    except ImportError:  # an exported folder runs without matplotlib
        return None, frozenset(map(ord, ASCII))
    default = str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))
    letters = _letters(default)
    wanted = {ord(character) for character in characters | ASCII if character.isprintable()}
    if wanted <= letters:
        return default, letters
    for file in _installed_fonts():
        if wanted <= _letters(file) and _draws_distinct_glyphs(file, wanted - letters):
            return file, _letters(file)
    return default, letters


@lru_cache(1)
def _installed_fonts() -> list[str]:
    """The files of the system's fonts, upright fonts of normal weight first."""
    from matplotlib import font_manager, get_data_path

    bundled = get_data_path()
    fonts = [
        font
        for font in font_manager.fontManager.ttflist
        if not font.fname.startswith(bundled) and not PLACEHOLDER_FONTS.search(font.name)
    ]
    fonts.sort(key=lambda font: (font.style != "normal", font.weight not in (400, "normal")))
    return list(dict.fromkeys(font.fname for font in fonts))


@lru_cache(8)
def _letters(file: str) -> frozenset[int]:
    """Return the code points that a font has glyphs for."""
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(file).get_charmap())
    except (OSError, RuntimeError, ValueError):  # the file is damaged, or was removed
        return frozenset()


def _draws_distinct_glyphs(file: str, code_points: set[int]) -> bool:
    """Tell whether Pillow draws every character, and each one differently."""
    try:
        font = _load_font(file, 24)
        glyphs = {bytes(font.getmask(chr(point))) for point in code_points}
    except OSError:  # a bitmap font may lack this size
        return False
    return len(glyphs) == len(code_points) and not any(not any(glyph) for glyph in glyphs)


@lru_cache(32)
def _load_font(file: str | None, size: int) -> Any:
    return ImageFont.load_default(size) if file is None else ImageFont.truetype(file, size)
