"""The pictures of the README show what the program prints, and what the script draws; `make pictures` draws them anew."""

import html
import re
from pathlib import Path
from xml.etree import ElementTree

from tools import pictures

OUTPUT = Path(__file__).parent.parent / "examples" / "flights" / "output.txt"
SECONDS_AND_SPEED = re.compile(r"in [\d.]+ s, [\d,]+ rows per second")


def texts(svg: str) -> list[str]:
    """The lines of text in a picture, without blanks at their ends, and without times."""
    found = re.findall(r"<text[^>]*>(.*?)</text>", svg, re.DOTALL)
    plain = [html.unescape(each).replace("\xa0", " ").strip() for each in found]
    return [SECONDS_AND_SPEED.sub("", each) for each in plain if each]


def test_the_way_of_a_save_is_what_the_script_draws() -> None:
    assert pictures.SAVE.read_text() == pictures.save()
    assert ElementTree.fromstring(pictures.save()).tag.endswith("svg")


def test_the_recording_is_of_the_demo() -> None:
    """Each line that it prints up to the second question is there, and in this order."""
    shown = texts(pictures.DEMO.read_text())
    wanted = [
        SECONDS_AND_SPEED.sub("", line.plain.strip()) for line in pictures.beginning(OUTPUT.read_text())
    ]
    words = " ".join(shown).split()
    assert words[:2] == ["make", "demo"]
    assert [word for line in wanted for word in line.split()] == words[words.index("$") + 3 :]


def test_a_picture_loads_nothing_from_elsewhere() -> None:
    for picture in pictures.FOLDER.glob("*.svg"):
        addresses = set(re.findall(r"https?://[^\"\s)]+", picture.read_text()))
        assert addresses <= {"http://www.w3.org/2000/svg", "https://www.textualize.io"}, picture.name
