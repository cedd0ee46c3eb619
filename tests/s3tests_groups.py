"""Which group a test of Ceph's s3-tests belongs to, and which tests the gateway may lose, and why.

Rule: every test of the suite belongs to a group, by its file or by the first row of the one table
that fits its name. A test the gateway may lose although the backend passes it stands in EXCEPTIONS
with the reason, and in docs/reference/s3-compatibility.md with the same; there is no other way.
"""

import fnmatch
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

UNKNOWN: Final = "unknown"

# Suites about other services than S3, which the backend offers or not on the same port.
FILES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "test_iam.py": "iam",
        "test_sts.py": "sts",
        "test_sns.py": "sns",
        "test_s3select.py": "select, torrent",
        "test_utils.py": "the suite itself",
    }
)

# The first row with a pattern that fits decides.
TABLE: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("single-object", ("test_non_multipart_get_part",)),
    ("post object", ("*post_object*",)),
    ("multipart", ("*multipart*", "*upload_part*", "test_bucket_logging_mpu*")),
    ("copy", ("*copy*",)),
    ("object attributes", ("*object_attributes*",)),
    # Signature Version 2 in the Authorization header; presigned URLs of it are in scope.
    ("signature v2", ("*_aws2",)),
    ("select, torrent", ("*select*", "*torrent*")),
    ("logging", ("*bucket_logging*",)),
    ("encryption", ("test_encrypt*", "*sse_*", "*_enc_*", "*_enc", "*noenc", "*_kms*")),
    ("lifecycle", ("test_lifecycle*", "test_restore_*", "test_read_through")),
    ("object lock", ("test_object_lock_*",)),
    (
        "versioning",
        (
            "test_versioning_*",
            "test_versioned_*",
            "*_version_*",
            "*_versioning",
            "*_current_*",
            "test_delete_marker_*",
        ),
    ),
    (
        "authentication",
        (
            "*authorization*",
            "*_bad_date_*",
            "*_amz_date*",
            "*_presigned_*",
            "*anonymous*",
            "*_auth",
            "test_object_raw_*",
            "test_object_anon_*",
            "test_object_put_authenticated",
            "test_access_bucket_*",
        ),
    ),
    (
        "header",
        (
            "test_object_create_*",
            "test_bucket_create_bad_*",
            "test_bucket_create_contentlength_none",
            "test_object_acl_create_contentlength_none",
            "test_bucket_put_bad_canned_acl",
            "test_100_continue*",
            "test_object_content_encoding_aws_chunked",
            "test_object_write_with_chunked_transfer_encoding",
            "test_object_requestid_matches_header_on_error",
            "test_expected_bucket_owner",
        ),
    ),
    (
        "listing",
        (
            "test_bucket_list_*",
            "test_bucket_listv2_*",
            "test_bucket_notexist",
            "test_bucketv2_notexist",
            "test_basic_key_count",
            "test_bucket_create_special_key_names",
            "test_buckets_*",
            "test_list_buckets_*",
        ),
    ),
    ("forwarded", ("*_acl", "*_acl_*", "*_acls", "*policy*", "*_tags*", "*_tagging*")),
    (
        "single-object",
        (
            "test_object_*",
            "test_multi_object*",
            "test_get_object_*",
            "test_put_object_*",
            "test_head_object_*",
            "test_delete_object_*",
            "test_delete_objects_*",
            "test_atomic_*",
            "test_ranged_*",
        ),
    ),
    (
        "forwarded",
        (
            "test_bucket_*",
            "test_bucketv2_*",
            "test_create_bucket_*",
            "test_put_bucket_*",
            "test_get_bucket_*",
            "test_delete_bucket_*",
            "test_head_bucket_*",
            "test_set_cors",
            "test_cors_*",
            "test_block_public_*",
            "test_*_public_block*",
            "test_account_usage",
        ),
    ),
)

GROUPS: Final = tuple(dict.fromkeys([*(group for group, _ in TABLE), *FILES.values(), UNKNOWN]))

_SIGV2: Final = (
    "signs its request with Signature Version 2 in the Authorization header, which the gateway "
    "refuses: it covers neither the body nor most headers"
)

# Test -> why the gateway may lose it.
EXCEPTIONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "test_object_create_bad_md5_invalid_garbage_aws2": _SIGV2,
        "test_object_create_bad_contentlength_mismatch_below_aws2": _SIGV2,
        "test_object_create_bad_ua_empty_aws2": _SIGV2,
        "test_object_create_bad_ua_none_aws2": _SIGV2,
        "test_list_user_policy_invalid_user": "asks for a user that does not exist in IAM, which "
        "is another service: the gateway's keys are its own, and a signature for IAM is refused",
    }
)


def name_of(test: str) -> str:
    """The name of a test, without its file and its parameters."""
    return test.rpartition("::")[2].partition("[")[0]


def group_of(test: str) -> str:
    """Return the group of a test by its node id, or by its name alone."""
    if found := FILES.get(Path(test.partition("::")[0]).name):
        return found
    name = name_of(test)
    for group, patterns in TABLE:
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
            return group
    return UNKNOWN
