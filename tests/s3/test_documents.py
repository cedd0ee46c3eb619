import dataclasses
from typing import Any
from unittest import mock

import botocore.session
import pytest
from botocore import handlers, parsers
from hypothesis import given
from hypothesis import strategies as st

from s4gateway.s3 import documents, xml
from s4gateway.s3.documents import ListedObject, ListPage
from s4gateway.s3.errors import S3Error
from s4gateway.s3.xml import Element

MODEL = botocore.session.get_session().get_service_model("s3")
NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"

ODD_KEYS = [
    *[f"control-{chr(code)}-{code}" for code in range(1, 32)],
    "&<>'\"",
    "a&amp;b&#x1;",
    "100%",
    "%41%2F",
    "a+b c",
    " leading and trailing ",
    "a//b/../c/./",
    "😀/ü/e\u0301",
    "\x7f\ufffe\uffff",
    "]]>",
]

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
PLAIN = st.text("abcXYZ0189-_.:", min_size=1, max_size=12)
OWNER = Element("Owner", children=[Element("ID", "1&"), Element("DisplayName", "me")])
RESTORE = Element("RestoreStatus", children=[Element("IsRestoreInProgress", "false")])
NOVELTY = Element("Novelty", "", {"of": "2031"}, [Element("Deep", "<&>")])


def optional(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


LISTED = st.builds(
    ListedObject,
    key=TEXT,
    size=st.integers(0, 10**18),
    etag=optional(PLAIN),
    last_modified=optional(PLAIN),
    storage_class=optional(PLAIN),
    checksum_algorithms=st.lists(PLAIN, max_size=2).map(tuple),
    checksum_type=optional(PLAIN),
    others=st.sampled_from([(), (OWNER,), (OWNER, RESTORE), (NOVELTY,)]),
)
PAGES = st.builds(
    ListPage,
    name=PLAIN,
    prefix=TEXT,
    max_keys=st.integers(0, 1000),
    is_truncated=st.booleans(),
    contents=st.lists(LISTED, max_size=4).map(tuple),
    common_prefixes=st.lists(TEXT, max_size=3).map(tuple),
    delimiter=optional(TEXT),
    encoding_type=st.sampled_from([None, "url"]),
    marker=optional(TEXT),
    next_marker=optional(TEXT),
    start_after=optional(TEXT),
    continuation_token=optional(TEXT),
    next_continuation_token=optional(TEXT),
    key_count=optional(st.integers(0, 1000)),
    others=st.sampled_from([(), (Element("RequestCharged", "requester"),)]),
)


def listing(inner: str) -> bytes:
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        f'<ListBucketResult xmlns="{NAMESPACE}">{inner}</ListBucketResult>'
    ).encode()


def without_shortcut(data: bytes) -> ListPage:
    with mock.patch.object(documents, "_split", return_value=None):
        return ListPage.parse(data)


def refusal(data: bytes, max_bytes: int = 10_000) -> S3Error:
    with pytest.raises(S3Error) as caught:
        ListPage.parse(data, max_bytes)
    return caught.value


def as_botocore_reads(document: bytes, operation: str) -> dict[str, Any]:
    model = MODEL.operation_model(operation)
    parser = parsers.create_parser(model.metadata["protocol"])
    response = {"status_code": 200, "headers": {}, "body": document}
    parsed = parser.parse(response, model.output_shape)
    decode = {
        "ListObjects": handlers.decode_list_object,
        "ListObjectsV2": handlers.decode_list_object_v2,
    }
    decode[operation](parsed, {"encoding_type_auto_set": True})
    return dict(parsed)


@given(PAGES)
def test_a_page_reads_back_as_written(page: ListPage):
    assert ListPage.parse(page.serialize()) == page


@given(PAGES)
def test_the_shortcut_and_the_parser_see_the_same_page(page: ListPage):
    assert without_shortcut(page.serialize()) == page


@given(st.lists(LISTED, min_size=1, max_size=1), st.lists(TEXT.filter(bool), min_size=1), st.data())
def test_entries_that_look_alike_are_read_in_columns(
    first: list[ListedObject], names: list[str], data: st.DataObject
):
    shape = first[0]
    entries = tuple(
        shape._replace(
            key=name,
            size=data.draw(st.integers(0, 2**63)),
            etag=None if shape.etag is None else data.draw(PLAIN),
            last_modified=None if shape.last_modified is None else data.draw(PLAIN),
        )
        for name in names
    )
    document = ListPage(contents=entries).serialize()
    assert ListPage.parse(document).contents == without_shortcut(document).contents == entries


@given(st.lists(LISTED, max_size=4), st.sampled_from([None, "url"]))
def test_an_entry_is_written_the_same_whatever_stands_beside_it(
    entries: list[ListedObject], encoding_type: str | None
):
    def written(*contents: ListedObject) -> bytes:
        page = ListPage(contents=contents, encoding_type=encoding_type).serialize()
        behind = page.partition(b"</IsTruncated>")[2]
        return behind.removesuffix(b"</ListBucketResult>")

    assert written(*entries) == b"".join(map(written, entries))


def test_a_servers_own_page_needs_no_parser():
    entries = tuple(
        ListedObject(f"a/{n}&", n, f"{n:032x}", "2026-01-01T00:00:00Z", "STANDARD", others=(OWNER,))
        for n in range(50)
    )
    document = ListPage(name="b", contents=entries).serialize()
    split = documents._split(document)
    assert split is not None
    assert tuple(split[1]) == entries


@pytest.mark.parametrize("encoding_type", [None, "url"])
def test_odd_keys_survive_in_every_place(encoding_type: str | None):
    contents = tuple(ListedObject(key, 1) for key in ODD_KEYS)
    for key in ODD_KEYS:
        page = ListPage(
            prefix=key,
            delimiter=key,
            contents=contents,
            common_prefixes=tuple(ODD_KEYS),
            encoding_type=encoding_type,
            marker=key,
            next_marker=key,
            start_after=key,
        )
        assert ListPage.parse(page.serialize()) == page


@pytest.mark.parametrize("operation", ["ListObjects", "ListObjectsV2"])
def test_botocore_reads_the_keys_we_write(operation: str):
    page = ListPage(
        contents=tuple(ListedObject(key, 1, "e", "2024-01-01T00:00:00.000Z") for key in ODD_KEYS),
        common_prefixes=tuple(ODD_KEYS),
        delimiter="a b+c",
        encoding_type="url",
    )
    parsed = as_botocore_reads(page.serialize(), operation)
    assert [each["Key"] for each in parsed["Contents"]] == ODD_KEYS
    assert [each["Prefix"] for each in parsed["CommonPrefixes"]] == ODD_KEYS
    assert parsed["Delimiter"] == "a b+c"
    assert parsed["Contents"][0]["ETag"] == '"e"'


def test_a_url_encoded_page_reads_plus_as_space_and_percent_20_too():
    page = ListPage.parse(
        listing(
            "<EncodingType>url</EncodingType><ContinuationToken>a+b%20</ContinuationToken>"
            "<Contents><Key>a+b%20c%2Bd</Key><Size>1</Size></Contents>"
        )
    )
    assert page.contents[0].key == "a b c+d"
    assert page.continuation_token == "a+b%20"


@pytest.mark.parametrize(
    ("entries", "text", "meant"),
    [
        ("<Contents><Key>a%2B1</Key><Size>1</Size></Contents>", "a%2B1", "a+1"),
        ("<Contents><Key>a%2B1</Key><Size>1</Size></Contents>", "a+1", "a+1"),
        ("<Contents><Key>a%2B1</Key><Size>1</Size></Contents>", "a+1/", "a+1/"),
        ("<Contents><Key>a%252B1</Key><Size>1</Size></Contents>", "a%2B1", "a%2B1"),
        ("<Contents><Key>a%252B1</Key><Size>1</Size></Contents>", "a%252B1", "a%2B1"),
        ("<CommonPrefixes><Prefix>a%2B1/</Prefix></CommonPrefixes>", "a+1/", "a+1/"),
        ("", "a%2B1", "a+1"),
    ],
)
def test_a_next_marker_is_understood_encoded_and_as_it_is(entries: str, text: str, meant: str):
    document = (
        f"<ListBucketResult><IsTruncated>true</IsTruncated><EncodingType>url</EncodingType>"
        f"<NextMarker>{text}</NextMarker>{entries}</ListBucketResult>"
    )
    assert ListPage.parse(document.encode()).next_marker == meant


@pytest.mark.parametrize("text", ["a b+%0A", "a%20b%2B%250A"])
def test_the_prefix_of_list_objects_is_written_as_it_was_read(text: str):
    head = f"<EncodingType>url</EncodingType><Prefix>{text}</Prefix>"
    first = ListPage.parse(f"<ListBucketResult>{head}<Marker></Marker></ListBucketResult>".encode())
    assert f"<Prefix>{text}</Prefix>".encode() in first.serialize()
    second = ListPage.parse(f"<ListBucketResult>{head}</ListBucketResult>".encode())
    assert ListPage.parse(second.serialize()).prefix == second.prefix
    plain = dataclasses.replace(first, prefix="a b+%0A", encoding_type=None)
    assert b"<Prefix>a b+%0A</Prefix>" in plain.serialize()


def test_a_key_that_is_no_utf_8_survives_url_encoding():
    page = ListPage.parse(
        listing("<EncodingType>url</EncodingType><Contents><Key>%FF</Key><Size>1</Size></Contents>")
    )
    assert b"<Key>%FF</Key>" in page.serialize()
    assert b"<Key>?</Key>" in dataclasses.replace(page, encoding_type=None).serialize()


AWS_V2 = """
  <Name>bucket</Name>
  <Prefix/>
  <NextContinuationToken>1ueG/=</NextContinuationToken>
  <KeyCount>3</KeyCount>
  <MaxKeys>3</MaxKeys>
  <Delimiter>/</Delimiter>
  <IsTruncated>true</IsTruncated>
  <Contents>
    <Key>my-image.jpg</Key>
    <LastModified>2009-10-12T17:50:30.000Z</LastModified>
    <ETag>&quot;fba9dede5f27731c9771645a39863328&quot;</ETag>
    <ChecksumAlgorithm>CRC32</ChecksumAlgorithm>
    <ChecksumAlgorithm>SHA256</ChecksumAlgorithm>
    <ChecksumType>FULL_OBJECT</ChecksumType>
    <Size>434234</Size>
    <Owner><ID>75aa</ID><DisplayName>mtd</DisplayName></Owner>
    <StorageClass>STANDARD</StorageClass>
  </Contents>
  <Contents>
    <Key>other</Key><Size>0</Size><ETag>"d41d8cd98f00b204e9800998ecf8427e"</ETag>
    <Owner><ID>75aa</ID><DisplayName>mtd</DisplayName></Owner>
  </Contents>
  <CommonPrefixes><Prefix>photos/</Prefix></CommonPrefixes>
"""
AWS_V2_PAGE = ListPage(
    name="bucket",
    max_keys=3,
    is_truncated=True,
    delimiter="/",
    next_continuation_token="1ueG/=",
    key_count=3,
    common_prefixes=("photos/",),
    contents=(
        ListedObject(
            "my-image.jpg",
            434234,
            "fba9dede5f27731c9771645a39863328",
            "2009-10-12T17:50:30.000Z",
            "STANDARD",
            ("CRC32", "SHA256"),
            "FULL_OBJECT",
            (Element("Owner", children=[Element("ID", "75aa"), Element("DisplayName", "mtd")]),),
        ),
        ListedObject(
            "other",
            0,
            "d41d8cd98f00b204e9800998ecf8427e",
            others=(
                Element("Owner", children=[Element("ID", "75aa"), Element("DisplayName", "mtd")]),
            ),
        ),
    ),
)


def test_a_page_of_aws_is_read_by_either_way():
    assert ListPage.parse(listing(AWS_V2)) == AWS_V2_PAGE
    assert without_shortcut(listing(AWS_V2)) == AWS_V2_PAGE


@pytest.mark.parametrize(
    "odd",
    [
        "<!-- c -->",
        "\r\n",
        "<Contents><Size>1</Size><Key>k</Key><Novelty/></Contents>",
        "<Contents><Key>k</Key><Size>1</Size><ETag>W/&quot;e&quot;</ETag></Contents>",
        "<Contents><Key a='b'>k</Key><Size>1</Size></Contents>",
        "<Contents a='b'><Key>k</Key><Size>1</Size></Contents>",
        "<More><Contents><Key>k</Key><Size>1</Size></Contents></More>",
        "<More><Contents/></More>",
        (
            "<Contents><ChecksumAlgorithm>A</ChecksumAlgorithm><Key>k</Key><Size>1</Size>"
            "<ChecksumAlgorithm>B</ChecksumAlgorithm></Contents>"
        ),
        "<Contents><Key><![CDATA[<&>]]></Key><Size>1</Size></Contents>",
        "<Contents><Key>k</Key><Size>1</Size><Owner><Name>n</Name></Owner></Contents>",
    ],
)
def test_a_page_written_unusually_is_read_all_the_same(odd: str):
    for inner in (AWS_V2 + odd, odd + AWS_V2):
        page = ListPage.parse(listing(inner))
        assert page == without_shortcut(listing(inner))
        assert [each for each in page.contents if each in AWS_V2_PAGE.contents] == list(
            AWS_V2_PAGE.contents
        )


def test_entries_elsewhere_in_the_document_are_not_those_of_the_page():
    nested = "<More><Contents><Key>k</Key><Size>1</Size></Contents></More>"
    page = ListPage.parse(listing(AWS_V2 + nested))
    assert page.contents == AWS_V2_PAGE.contents
    assert [element.tag for element in page.others] == ["More"]


def test_what_is_unknown_is_kept():
    page = ListPage.parse(
        listing(
            "<Future x='1'><A>2</A></Future>"
            "<Contents><Key>k</Key><Size>1</Size><Novelty of='2031'><Deep/></Novelty></Contents>"
        )
    )
    written = page.serialize()
    assert b'<Future x="1"><A>2</A></Future>' in written
    assert b'<Novelty of="2031"><Deep></Deep></Novelty>' in written


def test_an_absent_element_stays_absent_and_an_empty_one_empty():
    page = ListPage.parse(listing("<Marker/><Contents><Key/><Size>0</Size></Contents>"))
    assert (page.marker, page.next_marker, page.key_count) == ("", None, None)
    assert (page.name, page.prefix, page.max_keys, page.is_truncated) == ("", "", 1000, False)
    assert page.contents == (ListedObject("", 0),)
    written = page.serialize()
    assert b"<Marker></Marker>" in written
    assert b"NextMarker" not in written
    assert b"KeyCount" not in written


def test_elements_come_in_the_order_of_aws():
    root = xml.parse(AWS_V2_PAGE.serialize())
    assert [child.tag for child in root] == [
        "Name",
        "Prefix",
        "NextContinuationToken",
        "KeyCount",
        "MaxKeys",
        "Delimiter",
        "IsTruncated",
        "Contents",
        "Contents",
        "CommonPrefixes",
    ]
    assert [child.tag for child in next(root.findall("Contents"))] == [
        "Key",
        "LastModified",
        "ETag",
        "ChecksumAlgorithm",
        "ChecksumAlgorithm",
        "ChecksumType",
        "Size",
        "Owner",
        "StorageClass",
    ]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>busy</html>",
        b"<Error><Code>InternalError</Code></Error>",
        b"<!DOCTYPE a><ListBucketResult/>",
        b"<ListBucketResult>\xff</ListBucketResult>",
        listing("<Contents><Key>k</Key><Size>1</Size>"),
        listing("<Contents><Key>k</Key></Contents>"),
        listing("<Contents><Size>1</Size></Contents>"),
        listing("<Contents><Key>k</Key><Size>-1</Size></Contents>"),
        listing("<Contents><Key>&nbsp;</Key><Size>1</Size></Contents>"),
        listing("<Contents><Key>a & b</Key><Size>1</Size></Contents>"),
        listing("<KeyCount>many</KeyCount>"),
        listing("<MaxKeys>٣</MaxKeys>"),
    ],
)
def test_what_is_no_page_is_the_services_fault_not_the_clients(data: bytes):
    assert refusal(data).code == "InternalError"


@pytest.mark.parametrize(
    "run",
    [" ", "<ChecksumAlgorithm>A</ChecksumAlgorithm>", "<Owner> </Owner>", "<Key>k</Key>"],
)
def test_a_long_run_that_does_not_fit_is_given_up_at_once(run: str):
    inner = f"<Contents>{run * 5000}<Key>k</Key><Size>1</Size><Novelty/></Contents>"
    assert ListPage.parse(listing(inner)).contents[0].key == "k"


def test_a_page_is_bounded():
    assert refusal(listing(AWS_V2), max_bytes=100).code == "InternalError"


def test_an_error_document_gives_code_and_message():
    body = b'<?xml version="1.0"?><Error><Code>NoSuchKey</Code><Message>a&amp;b</Message></Error>'
    assert documents.parse_error(body) == ("NoSuchKey", "a&b")
    assert documents.parse_error(b"<Error/>") == ("", "")


@given(st.binary(max_size=50))
def test_no_error_answer_is_an_error_of_its_own(body: bytes):
    code, message = documents.parse_error(body)
    assert isinstance(code + message, str)


@pytest.mark.parametrize("body", [b"", b"<html/>", b"<CopyObjectResult/>", b"upstream down"])
def test_what_is_no_error_document_has_no_code(body: bytes):
    assert documents.parse_error(body) == ("", "")
