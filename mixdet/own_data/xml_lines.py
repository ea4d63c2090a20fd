"""Parse XML into elements that contain the numbers of their lines."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree
from xml.parsers import expat

from mixdet.errors import MixDetError

LINE = "line of the file"  # attribute for an element's line. XML allows no spaces in such a name


def parse_with_lines(file: Path) -> ElementTree.Element:
    """Return the root element of an XML file. Each element has its line in the attribute `LINE`.

    Raises:
        MixDetError: The file cannot be read, is not XML, or declares entities.
    """
    builder, parser = ElementTree.TreeBuilder(), expat.ParserCreate()

    def start(tag: str, attributes: dict[str, str]) -> None:
        builder.start(tag, {**attributes, LINE: str(parser.CurrentLineNumber)})

    def refuse_entity(name: str, *_) -> None:
        raise MixDetError(
            f"{file}:{parser.CurrentLineNumber}: it declares the entity {name}: remove this line"
        )

    parser.StartElementHandler, parser.EndElementHandler = start, builder.end
    parser.CharacterDataHandler, parser.EntityDeclHandler = builder.data, refuse_entity
    try:
        parser.Parse(file.read_bytes(), True)
    except OSError as error:
        raise MixDetError(f"{file}: cannot be read ({error.strerror})") from error
    except (expat.ExpatError, LookupError, ValueError) as error:
        line = getattr(error, "lineno", 1)
        raise MixDetError(f"{file}:{line}: not an XML file ({error})") from error
    return builder.close()
