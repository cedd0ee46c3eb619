"""What a bucket is set to, and what that means for objects that are stored smaller than they are.

Nothing is written. Rule: lifecycle rules see what is stored, not what clients see: compressed
sizes, and beside the objects their sidecars, dictionaries and upload records.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/lifecycle-transition-general-considerations.html
https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock.html
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from s4gateway.backend import multipart
from s4gateway.backend.base import Backend, BackendAnswer, BackendProtocolError, Head, parse_date
from s4gateway.s3 import query, xml
from s4gateway.s3.errors import S3Error
from s4gateway.tools import walk
from s4gateway.tools.doctor.findings import Finding, Verdict
from s4gateway.wire import keys

CLOCK: Final = "clock"
VERSIONING: Final = "versioning"
OBJECT_LOCK: Final = "object lock"
LIFECYCLE: Final = "lifecycle"

_SKEW_NOTED: Final = 60  # seconds
_SKEW_BITES: Final = 300
_SKEW_REFUSED: Final = 900  # S3 refuses signatures that are further away
_MINIMUM: Final = "x-amz-transition-default-minimum-object-size"
_BY_CLASS: Final = "varies_by_storage_class"
_ABSENT: Final = frozenset({"NoSuchLifecycleConfiguration", "ObjectLockConfigurationNotFoundError"})
_NOT_KNOWN: Final = frozenset({400, 405, 501})
_ARCHIVES: Final = frozenset({"GLACIER", "DEEP_ARCHIVE"})


def clock(head: Head, now: datetime) -> Finding:
    """Compare the store's clock with ours."""
    theirs = parse_date(head.headers.get("date"))
    if theirs is None:
        return Finding(CLOCK, Verdict.UNKNOWN, "the store's answers carry no Date")
    seconds = abs((theirs - now.astimezone(UTC)).total_seconds())
    text = f"{seconds:.0f} s apart from the store's"
    if seconds >= _SKEW_REFUSED:
        return Finding(CLOCK, Verdict.BROKEN, f"{text}: S3 refuses signatures from 900 s on")
    if seconds >= _SKEW_BITES:
        return Finding(CLOCK, Verdict.BITES, f"{text}: S3 refuses signatures from 900 s on")
    return Finding(CLOCK, Verdict.NOTE if seconds > _SKEW_NOTED else Verdict.WORKS, text)


async def versioning(backend: Backend, bucket: str) -> Sequence[Finding]:
    """Whether overwritten bytes stay."""
    state = await walk.versioning(backend, bucket)
    if state is None:
        return [Finding(VERSIONING, Verdict.WORKS, "off")]
    detail = f"{state}: what is overwritten or deleted stays and is paid for, rewrites by migrate "
    detail += "and recompact, too; expire noncurrent versions by a lifecycle rule"
    return [Finding(VERSIONING, Verdict.NOTE, detail)]


@dataclass(frozen=True, slots=True)
class Retention:
    """What Object Lock does to a bucket by default; `rule` is empty when it retains nothing."""

    enabled: bool
    rule: str = ""


async def retention(backend: Backend, bucket: str) -> Retention | None:
    """The Object Lock configuration; None where the store does not know such a thing."""
    document = await _sub_resource(backend, bucket, "object-lock")
    if document is None:
        return None
    _, root = document
    if root is None or root.findtext("ObjectLockEnabled") != "Enabled":
        return Retention(enabled=False)
    for each in root.iter():
        if each.tag == "DefaultRetention":
            days, years = each.findtext("Days"), each.findtext("Years")
            length = f"{days} days" if days else f"{years} years"
            return Retention(True, f"{each.findtext('Mode')} for {length}")
    return Retention(enabled=True)


def object_lock(found: Retention | None) -> Finding:
    """What the Object Lock configuration means."""
    if found is None:
        return Finding(OBJECT_LOCK, Verdict.NOTE, "the store does not know it")
    if not found.enabled:
        return Finding(OBJECT_LOCK, Verdict.WORKS, "off")
    if not found.rule:
        detail = "on, without default retention: what clients lock is locked as they say"
        return Finding(OBJECT_LOCK, Verdict.NOTE, detail)
    detail = f"every object is retained ({found.rule}), the gateway's sidecars and upload records, "
    detail += "too: they cannot be removed before. Uploads need an integrity header, and a probe "
    detail += "would leave its object: state (no-)conditional-writes"
    return Finding(OBJECT_LOCK, Verdict.BITES, detail)


async def lifecycle(backend: Backend, bucket: str) -> Sequence[Finding]:
    """What the lifecycle rules will do to compressed objects and to what stands beside them."""
    document = await _sub_resource(backend, bucket, "lifecycle")
    if document is None:
        return [Finding(LIFECYCLE, Verdict.NOTE, "the store does not know it")]
    head, root = document
    rules = [] if root is None else [_Rule.read(each) for each in root.findall("Rule")]
    active = [each for each in rules if each.enabled]
    found = [finding for rule in active for finding in rule.findings()]
    if any(rule.transitions for rule in active):
        found += _minimum(head, active)
    if not any(rule.aborts_uploads for rule in active):
        detail = "no rule aborts unfinished multipart uploads: their parts stay and are paid for"
        found.append(Finding(LIFECYCLE, Verdict.NOTE, detail))
    if not active:
        return [Finding(LIFECYCLE, Verdict.WORKS, "no active rules"), *found]
    return found or [Finding(LIFECYCLE, Verdict.WORKS, f"{len(active)} rules do no harm")]


def _minimum(head: Head, rules: "Sequence[_Rule]") -> Iterator[Finding]:
    """The size below which nothing is moved to another class: 128 KiB, unless it is set."""
    if head.headers.get(_MINIMUM, "") == _BY_CLASS:
        return
    if all(rule.has_size_filter for rule in rules if rule.transitions):
        return
    said = "" if _MINIMUM in head.headers else " (on AWS)"
    detail = (
        f"objects stored in less than 128 KiB are not moved to other classes{said}: compressed "
        "sizes count, and sidecars stay behind. Set TransitionDefaultMinimumObjectSize="
        f"{_BY_CLASS}, or an ObjectSizeGreaterThan filter, or move objects with `s4 maintain`"
    )
    yield Finding(LIFECYCLE, Verdict.BITES, detail)


@dataclass(frozen=True, slots=True)
class _Rule:
    """One rule, as far as it matters here."""

    name: str
    enabled: bool
    prefix: str
    tagged: bool
    has_size_filter: bool
    expires: bool
    transitions: tuple[str, ...]
    aborts_uploads: bool

    @classmethod
    def read(cls, rule: xml.Element) -> "_Rule":
        everything = list(rule.iter())
        tags = {each.tag for each in everything}
        prefixes = [each.text for each in everything if each.tag == "Prefix"]
        expiration = rule.find("Expiration")
        return cls(
            name=rule.findtext("ID") or "without ID",
            enabled=(rule.findtext("Status") or "").strip() == "Enabled",
            prefix=prefixes[0] if prefixes else "",
            tagged="Tag" in tags,
            has_size_filter=bool({"ObjectSizeGreaterThan", "ObjectSizeLessThan"} & tags),
            expires=expiration is not None
            and any(each.tag in {"Days", "Date"} for each in expiration),
            transitions=tuple(
                each.findtext("StorageClass") or "" for each in rule.findall("Transition")
            ),
            aborts_uploads="AbortIncompleteMultipartUpload" in tags,
        )

    def findings(self) -> Iterator[Finding]:
        rule = f"rule {self.name!r}"
        # Neither dictionaries nor sidecars carry the tags of objects.
        if not self.tagged and keys.DICTIONARY_PREFIX.startswith(self.prefix):
            if self.expires:
                detail = f"{rule} deletes dictionaries ({keys.DICTIONARY_PREFIX}): every object "
                detail += "that needs one is lost. Give the rule a prefix"
                yield Finding(LIFECYCLE, Verdict.BITES, detail)
            if archives := _ARCHIVES.intersection(self.transitions):
                detail = f"{rule} moves dictionaries ({keys.DICTIONARY_PREFIX}) to "
                detail += f"{', '.join(sorted(archives))}: objects that need one cannot be read"
                yield Finding(LIFECYCLE, Verdict.BITES, detail)
        if self.tagged and (self.expires or self.transitions):
            detail = f"{rule} goes by tags, which sidecars do not carry: they stay behind. "
            detail += "`s4 sweep-orphan-sidecars` removes them"
            yield Finding(LIFECYCLE, Verdict.BITES, detail)
        if self.has_size_filter:
            detail = f"{rule} goes by sizes: those that are stored, not those that clients see"
            yield Finding(LIFECYCLE, Verdict.NOTE, detail)


async def _sub_resource(
    backend: Backend, bucket: str, name: str
) -> tuple[Head, xml.Element | None] | None:
    """A configuration; without document where there is none, None where no such thing is known."""
    try:
        head, document = await multipart.ask(
            backend, "GET", f"/{query.quote(bucket)}", f"{name}=", ()
        )
    except BackendAnswer as error:
        if error.code in _ABSENT:
            return Head(error.status, error.headers), None
        if error.status in _NOT_KNOWN:
            return None
        raise
    try:
        return head, xml.parse(document)
    except S3Error as error:
        raise BackendProtocolError(f"the {name} configuration is malformed") from error
