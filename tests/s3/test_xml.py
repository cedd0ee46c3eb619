from xml.sax import saxutils

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4gateway.s3 import xml
from s4gateway.s3.errors import S3Error
from s4gateway.s3.xml import Element

TEXT = st.text(st.characters(exclude_categories=("Cs",)))
NAMES = st.sampled_from(["Key", "Owner", "x-1", "_y"])
ELEMENTS = st.recursive(
    st.builds(Element, NAMES, TEXT, st.dictionaries(NAMES, TEXT)),
    lambda inner: st.builds(
        Element, NAMES, st.just(""), st.dictionaries(NAMES, TEXT), st.lists(inner, min_size=1)
    ),
    max_leaves=6,
)


def refusal(data: bytes, max_bytes: int = 1000, max_depth: int = 3) -> str:
    with pytest.raises(S3Error) as caught:
        xml.parse(data, max_bytes, max_depth)
    assert caught.value.status == 400
    return caught.value.code


@given(ELEMENTS)
def test_what_is_written_is_read_back(element: Element):
    assert xml.parse(xml.write(element).encode()) == element


@given(TEXT)
def test_text_is_read_whether_escaped_by_us_or_by_others(text: str):
    plain = saxutils.escape(text).replace("\r", "&#13;")  # a bare one is a line end to XML
    assert xml.parse(f"<a>{plain}</a>".encode()).text == text


@given(st.binary(max_size=60))
def test_a_document_is_read_or_malformed(data: bytes):
    try:
        outcome = "read" if xml.parse(data).tag else "unnamed"
    except S3Error as error:
        outcome = error.code
    assert outcome in {"read", "MalformedXML"}


def test_namespaces_and_prefixes_are_set_aside():
    root = xml.parse(
        b'<n:Delete xmlns:n="http://s3.amazonaws.com/doc/2006-03-01/"><n:Key>k</n:Key></n:Delete>'
    )
    assert (root.tag, root.findtext("Key"), root.attributes) == ("Delete", "k", {})


def test_a_qualified_attribute_survives_being_written():
    namespace = "http://www.w3.org/2001/XMLSchema-instance"
    grantee = f'<G xmlns:xsi="{namespace}" xsi:type="A&amp;B" b="c">t</G>'
    element = xml.parse(grantee.encode())
    assert element.attributes == {f"{{{namespace}}}type": "A&B", "b": "c"}
    assert xml.parse(xml.write(element).encode()) == element


def test_children_are_found_by_name():
    root = xml.parse(b"<a> <b>1</b> <c><b>2</b></c> <b>3</b> </a>")
    assert [child.tag for child in root] == ["b", "c", "b"]
    assert [each.tag for each in root.iter()] == ["a", "b", "c", "b", "b"]
    assert [each.text for each in root.findall("b")] == ["1", "3"]
    assert root.find("d") is None
    assert root.findtext("b") == "1"
    assert root.findtext("d") is None
    assert root.text == ""


def test_comments_instructions_and_cdata_are_read_as_xml_has_them():
    assert xml.parse(b"<?pi x?><!-- c --><a>1<!-- & -->2<![CDATA[<&]]></a>").text == "12<&"


def test_a_byte_order_mark_is_no_text():
    assert xml.parse(b"\xef\xbb\xbf<a>&#1;</a>").text == "\x01"
    assert xml.parse(b"\xef\xbb\xbf<a>x</a>").text == "x"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"<a>&#x1;</a>", "\x01"),
        (b"<a>&#x00;&#31;</a>", "\x00\x1f"),
        (b"<a>\x01\x1f</a>", "\x01\x1f"),
        (b"<a>&#xFFFE;\xef\xbf\xbf</a>", "\ufffe\uffff"),
        (b"<a>\xee\x80\x80&#xE001;\x01</a>", "\ue000\ue001\x01"),
        (b"<a>&#65;&amp;#1;\x01</a>", "A&#1;\x01"),
    ],
)
def test_characters_xml_forbids_are_read_as_what_they_mean(data: bytes, text: str):
    assert xml.parse(data).text == text


def test_forbidden_characters_are_read_in_attributes_and_below():
    root = xml.parse(b'<a b="\x02"><c>\x03</c></a>')
    assert (root.attributes, root.findtext("c")) == ({"b": "\x02"}, "\x03")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"text",
        b"<a>",
        b"<a></b>",
        b"<a/><b/>",
        b"<a>&nbsp;</a>",
        b"<a>& b</a>",
        b"<a>\xff</a>",
        b"<a>\xff\x01</a>",
        b"<a\x01/>",
        b"<a>&#xD800;</a>",
        b"<a>&#x110000;</a>",
        b"<a>&#x110000;\x01</a>",
        b"<a><![CDATA[&#x1;]]>\x01</a>",
        b'<?xml version="1.0" encoding="ISO-8859-1"?><a>\xe9</a>',
        "<a/>".encode("utf-16"),
        "<a/>".encode("utf-16-le"),
        b"\xfe\xff\0<\0a\0/\0>",
    ],
)
def test_what_is_no_document_is_malformed(data: bytes):
    assert refusal(data) == "MalformedXML"


@pytest.mark.parametrize(
    "data",
    [
        b"<!DOCTYPE a><a/>",
        b'<!DOCTYPE a SYSTEM "http://127.0.0.1/x.dtd"><a/>',
        b'<!DOCTYPE a [<!ENTITY e "x">]><a>&e;</a>',
        b'<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]><a>&e;</a>',
        b"<!DOCTYPE a><a>\x01</a>",
    ],
)
def test_a_document_type_is_refused(data: bytes):
    assert refusal(data) == "MalformedXML"


def test_a_document_with_every_private_character_has_no_room_for_forbidden_ones():
    private = "".join(map(chr, range(0xE000, 0xF900)))
    assert xml.parse(f"<a>{private}</a>".encode()).text == private
    assert refusal(f"<a>{private}\x01</a>".encode(), max_bytes=100_000) == "MalformedXML"


def test_size_and_depth_are_bounded():
    assert xml.parse(b"<a><b><c/></b></a>", 18, 3).tag == "a"
    assert refusal(b"<a><b><c/></b></a>", max_bytes=17) == "MaxMessageLengthExceeded"
    assert refusal(b"<a><b><c/></b></a>", max_depth=2) == "MalformedXML"
    assert refusal(b"<a><b><c>\x01</c></b></a>", max_depth=2) == "MalformedXML"


def test_a_document_declares_itself_and_the_namespace():
    written = xml.document("Root", xml.leaf("A", "ä\udcff") + xml.leaf("B", None))
    assert written.startswith(b'<?xml version="1.0" encoding="UTF-8"?>\n<Root xmlns="http://s3.')
    root = xml.parse(written)
    assert [(child.tag, child.text) for child in root] == [("A", "ä?")]
