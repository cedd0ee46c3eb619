"""What a bucket is set to, read from the documents stores answer with."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from s4gateway.backend import base
from s4gateway.backend.base import BackendAnswer, BackendProtocolError, Head
from s4gateway.backend.memory import MemoryBackend, MemoryStream
from s4gateway.s3.headers import Headers
from s4gateway.tools.doctor import settings
from s4gateway.tools.doctor.findings import Finding, Verdict, answer
from tests.backends import CountingBackend

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
MINIMUM = "x-amz-transition-default-minimum-object-size"


class Configured(CountingBackend):
    """Answers one sub-resource with a document, or an error."""

    def __init__(
        self, document: str | BackendAnswer, headers: list[tuple[str, str]] | None = None
    ) -> None:
        super().__init__(MemoryBackend.with_buckets("bucket"))
        self._document = document
        self._headers = headers or []

    async def forward(
        self,
        method: str,
        raw_path: str,
        raw_query: str,
        headers: base.HeaderList,
        body: base.Body | None = None,
    ) -> base.ObjectStream:
        assert (method, raw_path) == ("GET", "/bucket")
        if isinstance(self._document, BackendAnswer):
            code = f"<Error><Code>{self._document.code}</Code></Error>".encode()
            return MemoryStream(Head(self._document.status, Headers([])), code)
        return MemoryStream(Head(200, Headers(self._headers)), self._document.encode())


def rule(inner: str, *, status: str = "Enabled") -> str:
    return f"<Rule><ID>r</ID><Status>{status}</Status>{inner}</Rule>"


async def lifecycle(*rules: str, headers: list[tuple[str, str]] | None = None) -> list[Finding]:
    document = f"<LifecycleConfiguration>{''.join(rules)}</LifecycleConfiguration>"
    return list(await settings.lifecycle(Configured(document, headers), "bucket"))


ABORTS = rule(
    "<Filter/><AbortIncompleteMultipartUpload><DaysAfterInitiation>7</DaysAfterInitiation>"
    "</AbortIncompleteMultipartUpload>"
)
EXPIRES = "<Expiration><Days>30</Days></Expiration>"
TO_IA = "<Transition><Days>30</Days><StorageClass>STANDARD_IA</StorageClass></Transition>"
TO_GLACIER = "<Transition><Days>30</Days><StorageClass>GLACIER</StorageClass></Transition>"
TAG = "<Filter><Tag><Key>k</Key><Value>v</Value></Tag></Filter>"
LOGS = "<Filter><Prefix>logs/</Prefix></Filter>"
EVERYTHING = "<Filter><Prefix></Prefix></Filter>"


def verdicts(found: list[Finding]) -> list[Verdict]:
    return [each.verdict for each in found]


@pytest.mark.parametrize(
    ("seconds", "verdict"),
    [
        (0, Verdict.WORKS), (59, Verdict.WORKS), (120, Verdict.NOTE), (-301, Verdict.BITES),
        (899, Verdict.BITES), (900, Verdict.BROKEN), (-5000, Verdict.BROKEN),
    ],
)  # fmt: skip
def test_a_clock_is_judged_by_how_far_it_is_off(seconds: int, verdict: Verdict):
    date = format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)
    assert settings.clock(Head(200, Headers([("date", date)])), NOW).verdict is verdict


@pytest.mark.parametrize("date", [None, "yesterday"])
def test_an_answer_without_a_date_tells_nothing(date: str | None):
    fields = [] if date is None else [("date", date)]
    assert settings.clock(Head(200, Headers(fields)), NOW).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("document", "verdict"),
    [
        ("<VersioningConfiguration/>", Verdict.WORKS),
        (
            "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>",
            Verdict.NOTE,
        ),
    ],
)
async def test_versioning_is_told(document: str, verdict: Verdict):
    (found,) = await settings.versioning(Configured(document), "bucket")
    assert found.verdict is verdict


LOCKED = (
    "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled>{}"
    "</ObjectLockConfiguration>"
)
RETAINED = LOCKED.format(
    "<Rule><DefaultRetention><Mode>GOVERNANCE</Mode><Days>9</Days></DefaultRetention></Rule>"
)


@pytest.mark.parametrize(
    ("document", "verdict"),
    [
        (BackendAnswer(404, "ObjectLockConfigurationNotFoundError"), Verdict.WORKS),
        (BackendAnswer(501, "NotImplemented"), Verdict.NOTE),
        ("<ObjectLockConfiguration/>", Verdict.WORKS),
        (LOCKED.format(""), Verdict.NOTE),
        (RETAINED, Verdict.BITES),
    ],
)
async def test_object_lock_bites_where_everything_is_retained(
    document: str | BackendAnswer, verdict: Verdict
):
    found = await settings.retention(Configured(document), "bucket")
    assert settings.object_lock(found).verdict is verdict
    if document == RETAINED:
        assert "GOVERNANCE for 9 days" in settings.object_lock(found).detail


async def test_a_refused_question_is_unknown_and_not_no():
    denied = Configured(BackendAnswer(403, "AccessDenied"))
    with pytest.raises(BackendAnswer):
        await settings.retention(denied, "bucket")
    (found,) = await answer("lifecycle", lambda: settings.lifecycle(denied, "bucket"))
    assert found.verdict is Verdict.UNKNOWN


async def test_a_malformed_document_is_an_error():
    with pytest.raises(BackendProtocolError):
        await settings.lifecycle(Configured("<Lifecycle"), "bucket")


async def test_no_rules_leave_unfinished_uploads_behind():
    absent = Configured(BackendAnswer(404, "NoSuchLifecycleConfiguration"))
    for found in (list(await settings.lifecycle(absent, "bucket")), await lifecycle()):
        assert verdicts(found) == [Verdict.WORKS, Verdict.NOTE]
        assert "unfinished multipart uploads" in found[1].detail


async def test_a_rule_that_aborts_uploads_does_no_harm():
    assert verdicts(await lifecycle(ABORTS)) == [Verdict.WORKS]


async def test_a_rule_that_is_off_does_nothing():
    off = rule(EVERYTHING + EXPIRES + TO_GLACIER, status="Disabled")
    assert verdicts(await lifecycle(ABORTS, off)) == [Verdict.WORKS]


@pytest.mark.parametrize(
    ("filtered", "bites"),
    [
        ("", True), (EVERYTHING, True), ("<Prefix/>", True),
        ("<Filter><Prefix>.s4</Prefix></Filter>", True),
        ("<Filter><And><Prefix>.s4dict/</Prefix></And></Filter>", True),
        (LOGS, False), ("<Prefix>logs/</Prefix>", False),
    ],
)  # fmt: skip
async def test_a_rule_that_reaches_dictionaries_bites(filtered: str, bites: bool):
    found = await lifecycle(ABORTS, rule(filtered + EXPIRES))
    assert any("deletes dictionaries" in each.detail for each in found) is bites
    found = await lifecycle(ABORTS, rule(filtered + TO_GLACIER))
    assert any("moves dictionaries" in each.detail for each in found) is bites
    found = await lifecycle(ABORTS, rule(filtered + TO_IA))
    assert not any("dictionaries" in each.detail for each in found)


async def test_markers_and_noncurrent_versions_may_expire():
    inner = "<Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>"
    inner += "<NoncurrentVersionExpiration><NoncurrentDays>9</NoncurrentDays>"
    inner += "</NoncurrentVersionExpiration>"
    assert verdicts(await lifecycle(ABORTS, rule(EVERYTHING + inner))) == [Verdict.WORKS]


async def test_transitions_leave_what_is_stored_in_less_than_128_kib():
    (found,) = await lifecycle(ABORTS, rule(LOGS + TO_IA))
    assert found.verdict is Verdict.BITES
    assert "128 KiB" in found.detail
    assert "(on AWS)" in found.detail
    default = [(MINIMUM, "all_storage_classes_128K")]
    (found,) = await lifecycle(ABORTS, rule(LOGS + TO_IA), headers=default)
    assert "(on AWS)" not in found.detail


@pytest.mark.parametrize("how", ["header", "filter"])
async def test_transitions_without_a_minimum_do_not_bite(how: str):
    sized = "<Filter><And><Prefix>logs/</Prefix><ObjectSizeGreaterThan>1</ObjectSizeGreaterThan>"
    sized += "</And></Filter>"
    if how == "header":
        by_class = [(MINIMUM, "varies_by_storage_class")]
        found = await lifecycle(ABORTS, rule(LOGS + TO_IA), headers=by_class)
        assert verdicts(found) == [Verdict.WORKS]
    else:
        found = await lifecycle(ABORTS, rule(sized + TO_IA))
        assert verdicts(found) == [Verdict.NOTE]
        assert "sizes" in found[0].detail


async def test_rules_by_tags_leave_sidecars_behind():
    (found,) = await lifecycle(ABORTS, rule(TAG + EXPIRES))
    assert found.verdict is Verdict.BITES
    assert "sweep-orphan-sidecars" in found.detail
