"""AbortMultipartUpload: everything goes, nothing of another upload does."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

from s4gateway.wire import keys
from tests import corpus
from tests.e2e import uploads

pytestmark = pytest.mark.e2e

MIB = 1024 * 1024


def fill(s3: Any, bucket: str, key: str, upload_id: str) -> None:
    for number, body in enumerate((b"a", corpus.noise(5 * MIB, seed=1), b"c"), start=1):
        s3.upload_part(Bucket=bucket, Key=key, UploadId=upload_id, PartNumber=number, Body=body)


def test_an_abort_removes_parts_and_records_and_leaves_other_uploads_alone(
    s3: Any, direct: Any, shared: str, key: str
):
    with uploads.begun(s3, shared, key) as kept, uploads.begun(s3, shared, key) as doomed:
        fill(s3, shared, key, kept)
        fill(s3, shared, key, doomed)
        s3.abort_multipart_upload(Bucket=shared, Key=key, UploadId=doomed)
        assert uploads.records(direct, shared, doomed) == []
        assert uploads.records(direct, shared, kept) == ["00001", "00002", "00003", "create"]
        listed = direct.list_multipart_uploads(Bucket=shared, Prefix=key)["Uploads"]
        assert [each["UploadId"] for each in listed] == [kept]
        for call in (s3.abort_multipart_upload, s3.list_parts):
            with pytest.raises(ClientError) as caught:
                call(Bucket=shared, Key=key, UploadId=doomed)
            assert caught.value.response["Error"]["Code"] == "NoSuchUpload"


@pytest.mark.parametrize("gone", [["create"], ["00001"], ["00001", "00002", "00003", "create"]])
def test_an_abort_works_when_records_are_partly_gone(
    gone: list[str], s3: Any, direct: Any, shared: str, key: str
):
    with uploads.begun(s3, shared, key) as upload_id:
        fill(s3, shared, key, upload_id)
        for name in gone:
            direct.delete_object(Bucket=shared, Key=keys.upload_prefix(upload_id) + name)
        s3.abort_multipart_upload(Bucket=shared, Key=key, UploadId=upload_id)
        listed = direct.list_multipart_uploads(Bucket=shared, Prefix=key)
        assert "Uploads" not in listed
        assert uploads.records(direct, shared, upload_id) == []


def test_an_upload_the_backend_has_forgotten_takes_its_records_along(
    s3: Any, direct: Any, shared: str, key: str
):
    with uploads.begun(s3, shared, key) as upload_id:
        fill(s3, shared, key, upload_id)
        direct.abort_multipart_upload(Bucket=shared, Key=key, UploadId=upload_id)
        with pytest.raises(ClientError) as caught:
            s3.abort_multipart_upload(Bucket=shared, Key=key, UploadId=upload_id)
        assert caught.value.response["Error"]["Code"] == "NoSuchUpload"
        assert uploads.records(direct, shared, upload_id) == []


def test_every_version_of_a_part_goes_where_the_bucket_keeps_them(
    s3: Any, direct: Any, make_bucket: Any, key: str
):
    bucket = make_bucket()
    direct.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    with uploads.begun(s3, bucket, key) as upload_id:
        for _ in range(2):
            fill(s3, bucket, key, upload_id)
    listed = direct.list_object_versions(Bucket=bucket)
    assert not listed.get("Versions")
    assert not listed.get("DeleteMarkers")
