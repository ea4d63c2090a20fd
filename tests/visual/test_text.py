"""Letters are drawn, or written as escapes if no font has them. Different names look different."""

from __future__ import annotations

import subprocess
import sys
import warnings
from itertools import combinations
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont

from mixdet.visual import draw_detections, text
from mixdet.visual.text import FittedText

BOX = np.float32([[40, 60, 300, 150]])
# Letters of DejaVu Sans, letters that DejaVu Sans lacks, and invisible characters
NAMES = ["e", "é", "e\u0301", "ü", "u", "ß", "ñ", "собака", "кошка", "σκύλος", "كلب", "כלב"]
NAMES += ["猫", "犬", "\\u732b", "\\\\u732b", "개", "नमस्ते", "🐶", "🐱", "ไทย", "\ue000", "\ue001"]
NAMES += ["cat", "cat\u200b", "ca\nt", "ca\\nt", "ca\tt", "\xa0cat", " cat", "\ud800", "\ufffd"]


def drawn(name: str) -> np.ndarray:
    fitted = FittedText(name, 20)
    canvas = Image.new("L", (fitted.width + 20, fitted.height + 20))
    fitted.draw(ImageDraw.Draw(canvas), (10, 10), 255)
    return np.asarray(canvas)


@pytest.fixture(scope="module")
def labels() -> dict[str, np.ndarray]:
    blank = np.full((200, 480, 3), 60, np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no font for some of the letters
        return {name: draw_detections(blank, BOX, [0.9], [0], [name]) for name in NAMES}


def test_different_names_look_different(labels):
    for one, other in combinations(NAMES, 2):
        assert not np.array_equal(labels[one], labels[other]), (one, other)


@pytest.mark.parametrize("name", ["é ü ß ñ", "собака", "σκύλος"])
def test_letters_beyond_ascii_are_drawn_with_their_glyphs(name):
    """The pixels equal those that Pillow draws with matplotlib's DejaVu Sans."""
    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), 20)
    expected = Image.new("L", drawn(name).shape[::-1])
    ImageDraw.Draw(expected).text((10, 10), name, fill=255, font=font)
    assert np.array_equal(drawn(name), expected)


@pytest.fixture
def install_fonts(monkeypatch):
    """Return a function that replaces the system's fonts with the given files."""

    def install(*files: str) -> None:
        monkeypatch.setattr(text, "_installed_fonts", lambda: files)
        text._font_for.cache_clear()

    yield install
    text._font_for.cache_clear()


def test_a_letter_that_another_installed_font_has_is_drawn_with_it(install_fonts):
    fonts = Path(matplotlib.get_data_path(), "fonts", "ttf")
    default, other = (
        FT2Font(fonts / name).get_charmap() for name in ("DejaVuSans.ttf", "STIXGeneral.ttf")
    )
    letter = next(chr(code) for code in other if code not in default and chr(code).isprintable())
    install_fonts(str(fonts / "missing.ttf"), str(fonts / "STIXGeneral.ttf"))
    assert FittedText(f"a {letter}", 20).lines == [f"a {letter}"]
    expected = Image.new("L", drawn(letter).shape[::-1])
    font = ImageFont.truetype(fonts / "STIXGeneral.ttf", 20)
    ImageDraw.Draw(expected).text((10, 10), letter, fill=255, font=font)
    assert np.array_equal(drawn(letter), expected)


def test_a_font_that_draws_all_letters_alike_is_not_used(install_fonts):
    """The font LastResort of matplotlib draws the same box for all letters of a script."""
    fonts = Path(matplotlib.get_data_path(), "fonts", "ttf")
    assert not any("LastResort" in file for file in text._installed_fonts())
    boxes = fonts / "LastResortHE-Regular.ttf"
    if not boxes.is_file():
        pytest.skip("this matplotlib has no such font")
    install_fonts(str(boxes))
    with pytest.warns(UserWarning, match="Noto"):
        assert FittedText("猫犬", 20).lines == [r"\u732b\u72ac"]


def test_a_letter_without_a_font_is_drawn_as_an_escape(install_fonts):
    install_fonts()
    with pytest.warns(UserWarning, match="install a font"):
        assert FittedText("a 猫 é", 20).lines == [r"a \u732b é"]
    assert FittedText("a\nb\u200b", 20).lines == [r"a\nb\u200b"]
    assert FittedText(r"a\b", 20).lines == [r"a\b"]
    assert FittedText(r"a\nb", 20).lines == [r"a\\nb"]


def test_the_notice_about_escapes_is_shown_once():
    code = """
from mixdet.visual import text
text._installed_fonts = list
for name in ("\u732b", "\u72ac", "a \u732b"):
    text.FittedText(name, 9)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stderr.count("no installed font") == 1


@pytest.mark.parametrize(
    "name", ["BloodImage_00082_with_a_long_name.jpg  3 of 4 detected", "é" * 40]
)
@pytest.mark.parametrize("width", [1, 60, 200])
def test_long_texts_are_broken_into_lines_without_losing_a_character(name, width):
    whole = FittedText(name, 14).lines
    fitted = FittedText(name, 14, width)
    assert "".join(fitted.lines) == whole[0]
    assert fitted.width <= width + 1 or max(map(len, fitted.lines)) == 1
    assert fitted.height == len(fitted.lines) * FittedText("a", 14).height


def test_a_label_that_is_wider_than_the_image_is_drawn_whole():
    image = np.zeros((480, 120, 3), np.uint8)
    names = ["a long name that ends in one", "a long name that ends in two"]
    one, two = (draw_detections(image, [(10, 200, 90, 300)], [0.5], [0], [name]) for name in names)
    assert not np.array_equal(one, two)
