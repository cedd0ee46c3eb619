"""XML of the S3 API: a bounded parser and a small writer.

Both sides of the gateway send us XML, so neither is trusted: no DTD, no entity, a bound on size and
depth, UTF-8 only; anything else is MalformedXML. One liberty is taken on purpose: characters that
XML 1.0 forbids but S3 keys may hold (`&#x1;`, which AWS itself writes, or the bare byte, which
botocore writes) are read as what they mean. Names are local names; namespaces decide nothing.
https://www.w3.org/TR/xml/; https://docs.aws.amazon.com/AmazonS3/latest/API/Welcome.html
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final
from xml.parsers.expat import ExpatError, errors

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser

from s4gateway.s3 import escaping
from s4gateway.s3.errors import S3Error

NAMESPACE: Final = "http://s3.amazonaws.com/doc/2006-03-01/"
DECLARATION: Final = '<?xml version="1.0" encoding="UTF-8"?>\n'
MAX_BYTES: Final = 16 * 1024 * 1024
MAX_DEPTH: Final = 32

_FORBIDDEN: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_UTF_16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_REFERENCE: Final = re.compile("&#(?:x([0-9A-Fa-f]{1,8})|([0-9]{1,8}));")
_PRIVATE_USE: Final = range(0xE000, 0xF8FF)
_RETRIED: Final = frozenset(
    errors.codes[message]
    for message in (errors.XML_ERROR_BAD_CHAR_REF, errors.XML_ERROR_INVALID_TOKEN)
)


@dataclass(slots=True)
class Element:
    """One element: local name, text (of a leaf), attributes, children in order.

    An attribute in a namespace is named `{namespace}name`.
    """

    tag: str
    text: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    children: list[Element] = field(default_factory=list)

    def __iter__(self) -> Iterator[Element]:
        return iter(self.children)

    def iter(self) -> Iterator[Element]:
        """This element and all below it, in document order."""
        yield self
        for child in self.children:
            yield from child.iter()

    def find(self, tag: str) -> Element | None:
        """The first child of that name."""
        return next(self.findall(tag), None)

    def findall(self, tag: str) -> Iterator[Element]:
        """The children of that name, in order."""
        return (child for child in self.children if child.tag == tag)

    def findtext(self, tag: str) -> str | None:
        """The text of the first child of that name; None when there is none."""
        child = self.find(tag)
        return None if child is None else child.text


def parse(data: bytes, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH) -> Element:
    """The root element of a document of at most `max_bytes` bytes.

    Raises S3Error: MaxMessageLengthExceeded above the bound, MalformedXML for whatever is not a
    plain UTF-8 document.

    >>> parse(b"<Tag><Key>a&amp;b</Key></Tag>").findtext("Key")
    'a&b'
    """
    if len(data) > max_bytes:
        raise S3Error("MaxMessageLengthExceeded", MaxMessageLengthBytes=max_bytes)
    if data.startswith(_UTF_16) or b"\0" in data[:2]:
        raise S3Error("MalformedXML")  # expat would read UTF-16 whatever encoding it is told
    try:
        return _read(data, max_depth)
    except ExpatError as error:
        if error.code in _RETRIED:
            return _parse_forbidden(data, max_depth)
        raise S3Error("MalformedXML") from error
    except DefusedXmlException as error:
        raise S3Error("MalformedXML") from error


def _read(data: bytes, max_depth: int) -> Element:
    builder = _Builder(max_depth)
    # defusedxml sets its guards on the expat parser underneath; the tree is built from there, which
    # costs half of what going through the standard library's tree does.
    parser = DefusedXMLParser(encoding="utf-8", forbid_dtd=True).parser
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.text.append
    parser.DefaultHandlerExpand = parser.CommentHandler = None
    parser.ProcessingInstructionHandler = None
    parser.ordered_attributes = False
    parser.Parse(data, True)
    return builder.root.children[0]


class _Builder:
    __slots__ = ("_max_depth", "_stack", "root", "text")

    def __init__(self, max_depth: int) -> None:
        self.root = Element("")
        self.text: list[str] = []
        self._stack = [self.root]
        self._max_depth = max_depth

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if len(self._stack) > self._max_depth:
            raise S3Error("MalformedXML")
        # expat writes a qualified name as "namespace}local".
        named = {"{" + name if "}" in name else name: value for name, value in attributes.items()}
        element = Element(tag.rpartition("}")[2], "", named, [])
        self._stack[-1].children.append(element)
        self._stack.append(element)
        self.text.clear()

    def end(self, _: str) -> None:
        element = self._stack.pop()
        if not element.children:
            element.text = "".join(self.text)
        self.text.clear()


def _parse_forbidden(data: bytes, max_depth: int) -> Element:
    # Each forbidden character is replaced by a pair: a private-use character that occurs nowhere in
    # the document, neither as such nor by reference, and a letter that stands for the character.
    # A CDATA section, where a reference is plain text, is not worth telling apart.
    try:
        document = data.decode("utf-8-sig")
        named = {chr(code) for code in map(_code, _REFERENCE.finditer(document)) if code < 0x110000}
        used = named.union(document)
        lead = next((chr(code) for code in _PRIVATE_USE if chr(code) not in used), "")
        if not lead or "<![CDATA[" in document:
            raise S3Error("MalformedXML")
        safe = _REFERENCE.sub(lambda match: _replace_reference(match, lead), document)
        safe = _FORBIDDEN.sub(lambda match: lead + _stand_in(match[0]), safe)
        root = _read(safe.encode(), max_depth)
    except (ExpatError, DefusedXmlException, UnicodeDecodeError) as error:
        raise S3Error("MalformedXML") from error
    _restore(root, re.compile(f"{lead}(.)"))
    return root


def _code(reference: re.Match[str]) -> int:
    return int(reference[1], 16) if reference[1] else int(reference[2])


def _replace_reference(reference: re.Match[str], lead: str) -> str:
    code = _code(reference)
    forbidden = code < 0x110000 and _FORBIDDEN.fullmatch(chr(code))
    return lead + _stand_in(chr(code)) if forbidden else reference[0]


def _stand_in(character: str) -> str:
    return chr(0x4E00 + (ord(character) & 0xFF))  # the low bytes of the forbidden ones all differ


def _forbidden(match: re.Match[str]) -> str:
    low = ord(match[1]) - 0x4E00
    return chr(low if low < 0x20 else 0xFF00 + low)


def _restore(element: Element, pair: re.Pattern[str]) -> None:
    element.text = pair.sub(_forbidden, element.text)
    element.attributes = {
        name: pair.sub(_forbidden, value) for name, value in element.attributes.items()
    }
    for child in element.children:
        _restore(child, pair)


def leaf(tag: str, text: str | None) -> str:
    """`<tag>text</tag>`, escaped; nothing when the text is None.

    >>> leaf("Prefix", "a&b"), leaf("Marker", None)
    ('<Prefix>a&amp;b</Prefix>', '')
    """
    return "" if text is None else f"<{tag}>{escaping.escape(text)}</{tag}>"


def write(element: Element) -> str:
    """An element and all it holds, as text without declaration.

    >>> write(Element("Grantee", children=[Element("ID", "me")]))
    '<Grantee><ID>me</ID></Grantee>'
    """
    attributes = []
    for number, (name, value) in enumerate(element.attributes.items()):
        namespace, brace, local = name[1:].rpartition("}")
        if brace:
            attributes.append(f' xmlns:n{number}="{escaping.escape(namespace)}"')
            local = f"n{number}:{local}"
        attributes.append(f' {local if brace else name}="{escaping.escape(value)}"')
    inner = "".join(map(write, element.children)) or escaping.escape(element.text)
    return f"<{element.tag}{''.join(attributes)}>{inner}</{element.tag}>"


def document(tag: str, inner: str) -> bytes:
    """A whole document in S3's namespace around text that is XML already."""
    return f'{DECLARATION}<{tag} xmlns="{NAMESPACE}">{inner}</{tag}>'.encode("utf-8", "replace")
