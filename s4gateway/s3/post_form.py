"""The fields of a browser's form upload: what they name, what they become, what they ask back.

Rule: a field is what a header is on PutObject, under the same limits: names compare without case,
a name stands once, and nothing that could end or begin a header line gets into one. Every field
has `${filename}` replaced before anything looks at it, the policy included.
https://docs.aws.amazon.com/AmazonS3/latest/API/RESTObjectPOST.html
https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-HTTPPOSTForms.html
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from s4gateway.s3 import etag as etags
from s4gateway.s3 import query, xml
from s4gateway.s3.errors import S3Error
from s4gateway.s3.escaping import escape
from s4gateway.s3.headers import Headers

IGNORED_PREFIX: Final = "x-ignore-"
_FILE_NAME: Final = "${filename}"

_HEADERS: Final = frozenset(
    {
        "cache-control",
        "content-disposition",
        "content-encoding",
        "content-language",
        "content-md5",
        "content-type",
        "expires",
    }
)
# x-amz-* fields about the form or about one hop, and those that announce what a form cannot have.
_NOT_HEADERS: Final = frozenset(
    {
        "x-amz-algorithm",
        "x-amz-credential",
        "x-amz-date",
        "x-amz-decoded-content-length",
        "x-amz-sdk-checksum-algorithm",
        "x-amz-security-token",
        "x-amz-signature",
        "x-amz-trailer",
    }
)
# RFC 9110 sections 5.1 and 5.5.
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")
_CONTROL: Final = re.compile("[\x00-\x08\x0a-\x1f\x7f]")
_URL: Final = re.compile("https?://[\x21-\x7e]+", re.IGNORECASE)
_STATUSES: Final = {"200": 200, "201": 201}


class FormFields:
    r"""The fields that stand before the file, in their order.

    `file_name` is what the client called the file; a path in it does not count. Raises
    InvalidArgument for a field that is given twice.

    >>> fields = FormFields([("Key", "user/${filename}"), ("x-ignore-me", "1")], "C:\\cat.png")
    >>> fields.get("key"), list(fields)
    ('user/cat.png', ['key'])
    """

    __slots__ = ("_values",)

    def __init__(self, pairs: Iterable[tuple[str, str]], file_name: str = "") -> None:
        base = file_name[max(file_name.rfind("/"), file_name.rfind("\\")) + 1 :]
        self._values: dict[str, str] = {}
        for given, value in pairs:
            name = given.lower()
            if name.startswith(IGNORED_PREFIX):
                continue
            if name in self._values:
                raise S3Error(
                    "InvalidArgument",
                    f"Bucket POST must contain the field '{given}' only once.",
                    ArgumentName=given,
                )
            self._values[name] = value.replace(_FILE_NAME, base)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def get(self, name: str) -> str | None:
        """Value of a field, by its lower-case name."""
        return self._values.get(name)

    def require(self, name: str) -> str:
        """Value of a field S3 cannot do without, by the name S3 gives it; InvalidArgument."""
        value = self._values.get(name.lower())
        if value is None:
            raise S3Error(
                "InvalidArgument",
                f"Bucket POST must contain a field named '{name}'.  If it is specified, please "
                "check the order of the fields.",
                ArgumentName=name,
                ArgumentValue="",
            )
        return value

    @property
    def key(self) -> str:
        """The object's key, which is not empty; whether it can be one is for `addressing`."""
        key = self.require("key")
        if not key:
            raise S3Error(
                "InvalidArgument",
                "User key must have a length greater than 0.",
                ArgumentName="key",
                ArgumentValue="",
            )
        return key

    def headers(self) -> Headers:
        """The headers a PutObject would have carried instead; raises InvalidArgument."""
        found: dict[str, str] = {}
        for name, value in self._values.items():
            if name in _HEADERS or (name.startswith("x-amz-") and name not in _NOT_HEADERS):
                found[name] = _header_value(name, value)
        if (acl := self.get("acl")) is not None:
            found["x-amz-acl"] = _header_value("acl", acl)
        if (tagging := self.get("tagging")) is not None:
            found["x-amz-tagging"] = _tags(tagging)
        return Headers(found)

    def redirect(self, bucket: str, etag: str) -> str | None:
        """Where the client wants to go after success, told what was stored.

        None when it does not say, or says what is no URL: then `status` counts.
        """
        url = self.get("success_action_redirect") or self.get("redirect")
        if url is None or not _URL.fullmatch(url):
            return None
        try:
            parts = urlsplit(url)
        except ValueError:
            return None
        stored = query.format_query(
            [("bucket", bucket), ("key", self.key), ("etag", etags.quote(etag))]
        )
        joined = f"{parts.query}&{stored}" if parts.query else stored
        return urlunsplit(parts._replace(query=joined))

    @property
    def status(self) -> int:
        """The HTTP status of success: what the client asks for if it may, else 204."""
        return _STATUSES.get(self.get("success_action_status") or "", 204)


def _header_value(name: str, value: str) -> str:
    if not _TOKEN.fullmatch(name) or _CONTROL.search(value):
        raise S3Error(
            "InvalidArgument",
            "The field cannot be a header: its name or its value holds characters that are not "
            "allowed there.",
            ArgumentName=name,
        )
    return value.strip(" \t")


def _tags(document: str) -> str:
    """The Tagging document of a form as the header carries tags; raises MalformedXML."""
    root = xml.parse(document.encode("utf-8", "replace"))
    tag_set = root.find("TagSet")
    if root.tag != "Tagging" or tag_set is None:
        raise S3Error("MalformedXML")
    pairs: list[tuple[str, str]] = []
    for tag in tag_set:
        name, value = tag.findtext("Key"), tag.findtext("Value")
        if tag.tag != "Tag" or name is None or value is None:
            raise S3Error("MalformedXML")
        pairs.append((name, value))
    return query.format_query(pairs)


def response(location: str, bucket: str, key: str, etag: str) -> bytes:
    """The PostResponse document of a 201, which AWS writes without a namespace.

    >>> response("http://h/b/k", "b", "k", "e").decode().splitlines()[1]
    '<PostResponse><Location>http://h/b/k</Location><Bucket>b</Bucket><Key>k</Key><ETag>&quot;e&quot;</ETag></PostResponse>'
    """
    leaves = {"Location": location, "Bucket": bucket, "Key": key, "ETag": etags.quote(etag)}
    inner = "".join(f"<{name}>{escape(text)}</{name}>" for name, text in leaves.items())
    return f"{xml.DECLARATION}<PostResponse>{inner}</PostResponse>".encode("utf-8", "replace")
