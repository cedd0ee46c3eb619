from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4gateway.s3 import post_form
from s4gateway.s3.errors import S3Error
from s4gateway.s3.post_form import FormFields


def form(*, file_name: str = "cat.png", **fields: str) -> FormFields:
    return FormFields([(n.replace("_", "-"), v) for n, v in fields.items()], file_name)


def code_of(call: object) -> str:
    with pytest.raises(S3Error) as caught:
        call()  # type: ignore[operator]
    return caught.value.code


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cat.png", "u/cat.png"), ("C:\\pictures\\cat.png", "u/cat.png"), ("/a/b", "u/b"),
        ("a\\b/c", "u/c"), ("..", "u/.."), ("../../x", "u/x"), ("dir/", "u/"), ("", "u/"),
        ("${filename}", "u/${filename}"), ("ü 🦀", "u/ü 🦀"),
    ],
)  # fmt: skip
def test_the_file_name_without_its_path_replaces_the_variable_in_every_field(
    name: str, expected: str
):
    fields = form(key="u/${filename}", x_amz_meta_name="u/${filename}", file_name=name)
    assert fields.key == fields.get("x-amz-meta-name") == expected


def test_a_field_stands_once_and_ignored_fields_do_not_count():
    repeated = [("x-ignore-a", "1"), ("X-Ignore-A", "2"), ("key", "k"), ("KEY", "l")]
    assert list(FormFields(repeated[:3])) == ["key"]
    assert code_of(lambda: FormFields(repeated)) == "InvalidArgument"


@pytest.mark.parametrize("fields", [form(), form(key="")])
def test_a_key_is_needed(fields: FormFields):
    assert code_of(lambda: fields.key) == "InvalidArgument"


def test_fields_become_the_headers_of_a_put_object():
    tagging = (
        "<Tagging><TagSet><Tag><Key>a b</Key><Value>1&amp;2</Value></Tag>"
        "<Tag><Key>c</Key><Value/></Tag></TagSet></Tagging>"
    )
    fields = FormFields(
        [
            ("Content-Type", " text/plain "), ("CACHE-CONTROL", "no-cache"), ("acl", "public-read"),
            ("x-amz-meta-City", "Zürich"), ("x-amz-storage-class", "GLACIER"), ("tagging", tagging),
            ("key", "k"), ("policy", "x"), ("success_action_status", "201"), ("host", "evil"),
            ("authorization", "x"), ("x-amz-signature", "x"), ("x-amz-date", "x"),
            ("x-amz-security-token", "x"), ("x-amz-trailer", "x-amz-checksum-crc32"),
            ("content-length", "5"), ("transfer-encoding", "chunked"),
        ]
    )  # fmt: skip
    assert dict(fields.headers().items()) == {
        "content-type": "text/plain",
        "cache-control": "no-cache",
        "x-amz-meta-city": "Zürich",
        "x-amz-storage-class": "GLACIER",
        "x-amz-acl": "public-read",
        "x-amz-tagging": "a%20b=1%262&c=",
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-amz-meta-a", "1\r\nx-amz-acl: public-read"), ("content-type", "a\nb"), ("acl", "a\0"),
        ("x-amz-meta-a: b\r\nc", "1"), ("x-amz-meta-ü", "1"), ("x-amz-meta- ", "1"),
        ("x-amz-meta-a", "\x7f"),
    ],
)  # fmt: skip
def test_nothing_that_ends_a_header_line_gets_into_one(name: str, value: str):
    fields = FormFields([(name, value)])
    assert code_of(fields.headers) == "InvalidArgument"


@given(st.text(), st.text())
def test_every_header_is_one_line(name: str, value: str):
    fields = FormFields([(f"x-amz-meta-{name}", value)])
    try:
        headers = fields.headers()
    except S3Error:
        return
    for pair in headers.raw:
        assert not {0, 10, 13}.intersection(b"".join(pair))


@pytest.mark.parametrize(
    "document",
    [
        "", "a=b", "<TagSet/>", "<Tagging/>", "<Tagging><TagSet><Tag/></TagSet></Tagging>",
        "<Tagging><TagSet><Tug><Key>a</Key><Value>b</Value></Tug></TagSet></Tagging>",
        "<Tagging><TagSet><Tag><Key>a</Key></Tag></TagSet></Tagging>",
        "<!DOCTYPE a [<!ENTITY b 'c'>]><Tagging><TagSet/></Tagging>",
    ],
)  # fmt: skip
def test_tags_are_the_document_of_put_object_tagging(document: str):
    assert code_of(form(tagging=document).headers) == "MalformedXML"


class TestSuccess:
    @pytest.mark.parametrize("name", ["success_action_redirect", "redirect"])
    def test_a_redirect_tells_what_was_stored(self, name: str):
        fields = FormFields([("key", "a b/ü&c"), (name, "https://h:1/x?a=b&c#d")])
        url = urlsplit(fields.redirect("bucket", "e") or "")
        assert url._replace(query="").geturl() == "https://h:1/x#d"
        stored = [("bucket", "bucket"), ("key", "a b/ü&c"), ("etag", '"e"')]
        assert parse_qsl(url.query) == [("a", "b"), *stored]
        assert url.query.startswith("a=b&c&bucket=bucket&key=a%20b%2F")

    @pytest.mark.parametrize(
        "url",
        [
            "", "/relative", "javascript:alert(1)", "ftp://h/x", "http://", "http://h/a b",
            "http://h/\r\nset-cookie: a=b", "http://h/ü", "http://[::1",
        ],
    )  # fmt: skip
    def test_what_is_no_url_is_as_if_it_were_not_there(self, url: str):
        assert FormFields([("key", "k"), ("redirect", url)]).redirect("b", "e") is None

    @pytest.mark.parametrize(
        ("asked", "status"), [("200", 200), ("201", 201), ("204", 204), ("404", 204), ("", 204)]
    )
    def test_the_status_is_one_of_three(self, asked: str, status: int):
        assert FormFields([("success_action_status", asked)]).status == status
        assert form().status == 204

    def test_the_document_has_no_namespace_and_is_escaped(self):
        assert post_form.response("http://h/b/a%26", "b", "a&", "e").decode() == (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            "<PostResponse><Location>http://h/b/a%26</Location><Bucket>b</Bucket>"
            "<Key>a&amp;</Key><ETag>&quot;e&quot;</ETag></PostResponse>"
        )
