"""ListMultipartUploads: full pages of what a client may see, in whatever order the store lists."""

from urllib.parse import parse_qsl

import pytest

from s4gateway.backend.base import BackendProtocolError
from s4gateway.objects.upload_listing import visible_uploads
from s4gateway.s3 import query, xml
from s4gateway.wire import keys

NAMES = ["a", "b", ".s4mpu/x", "c.s4index", "c+ é", "d", "d.s4index", "z.s4index"]
Listed = list[tuple[str, str]]


class Store:
    """Uploads in the order given; by key as S3 lists them, or by id alone as SeaweedFS does."""

    def __init__(self, names: list[str], by_key: bool, encoded: bool) -> None:
        self.uploads: Listed = [(name, f"u{at}") for at, name in enumerate(names)]
        self.by_key = by_key
        self.encoded = encoded
        self.requests = 0

    async def list(self, raw_query: str) -> bytes:
        self.requests += 1
        asked = dict(parse_qsl(raw_query, keep_blank_values=True))
        marker = asked.get("upload-id-marker", "")
        ids = [upload_id for _, upload_id in self.uploads]
        start = ids.index(marker) + 1 if marker else 0
        if marker and self.by_key:
            assert asked["key-marker"] == self.uploads[start - 1][0]
        limit = int(asked.get("max-uploads", "1000"))
        page = self.uploads[start : start + limit]
        parts = ["<Bucket>b</Bucket>", "<KeyMarker>k</KeyMarker>"]
        if self.encoded:
            parts.append("<EncodingType>url</EncodingType>")
        if start + limit < len(self.uploads):
            parts.append("<IsTruncated>true</IsTruncated>")
            if self.by_key:
                parts.append(xml.leaf("NextKeyMarker", self.spelled(page[-1][0])))
            parts.append(xml.leaf("NextUploadIdMarker", page[-1][1]))
        for name, upload_id in page:
            inner = xml.leaf("Key", self.spelled(name)) + xml.leaf("UploadId", upload_id)
            parts.append(f"<Upload>{inner}<Owner><ID>me</ID></Owner></Upload>")
        return xml.document("ListMultipartUploadsResult", "".join(parts))

    def spelled(self, name: str) -> str:
        return query.quote(name) if self.encoded else name


@pytest.mark.parametrize("by_key", [True, False])
@pytest.mark.parametrize("encoded", [True, False])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("names", [NAMES, NAMES[::-1], NAMES[2:4], ["a"], []])
async def test_pages_hold_every_visible_upload_and_are_full(
    names: list[str], by_key: bool, encoded: bool, size: int
):
    store = Store(names, by_key, encoded)
    asked = {"uploads": "", "max-uploads": str(size)}
    found: list[str] = []
    while True:
        root = xml.parse(await visible_uploads(asked, store.list))
        page = [each.findtext("Key") or "" for each in root.findall("Upload")]
        found += [query.unquote(key) if encoded else key for key in page]
        assert root.findtext("Bucket") == "b"
        assert root.findtext("MaxUploads") == str(size)
        if root.findtext("IsTruncated") == "false":
            break
        assert len(page) == size
        key = root.findtext("NextKeyMarker")
        assert (key is not None) == by_key
        key = query.unquote(key or "") if encoded else key or ""
        assert not keys.is_hidden(key)
        asked |= {"key-marker": key, "upload-id-marker": root.findtext("NextUploadIdMarker") or ""}
    assert found == [name for name in names if not keys.is_hidden(name)]


async def test_what_is_not_rewritten_is_kept():
    root = xml.parse(await visible_uploads({"uploads": ""}, Store(["a"], True, False).list))
    (upload,) = root.findall("Upload")
    assert xml.write(upload) == (
        "<Upload><Key>a</Key><UploadId>u0</UploadId><Owner><ID>me</ID></Owner></Upload>"
    )
    assert root.findtext("KeyMarker") == "k"


async def test_common_prefixes_of_internal_keys_are_left_out():
    async def fetch(raw_query: str) -> bytes:
        prefixes = "".join(
            f"<CommonPrefixes><Prefix>{each}</Prefix></CommonPrefixes>"
            for each in ("a/", ".s4mpu/")
        )
        return xml.document("ListMultipartUploadsResult", prefixes)

    root = xml.parse(await visible_uploads({"uploads": "", "delimiter": "/"}, fetch))
    assert [each.findtext("Prefix") for each in root.findall("CommonPrefixes")] == ["a/"]


@pytest.mark.parametrize(
    "document",
    [
        b"<ListBucketResult/>",
        b"<ListMult",
        b"<ListMultipartUploadsResult><IsTruncated>true</IsTruncated></ListMultipartUploadsResult>",
    ],
)
async def test_what_is_no_such_listing_is_the_backend_s_fault(document: bytes):
    async def fetch(raw_query: str) -> bytes:
        return document

    with pytest.raises(BackendProtocolError):
        await visible_uploads({"uploads": ""}, fetch)
