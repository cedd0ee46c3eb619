"""Whether what was read of an object is what the store holds, before it takes the object's place.

The strongest witness at hand is asked: the tail of an upload in parts, the checksum of the whole
that the store shows, else the MD5 that is the object's ETag. Rule: what nobody vouches for is
taken as it was read; what is vouched for is compared, always. A digest that no witness needs and
nobody is going to see is not computed.

An ETag that looks like an MD5 need not be one. AWS says so of objects encrypted by KMS, which are
not compared; for what others keep there, one read that differs cannot tell, but two can: what was
damaged on the way is not damaged alike twice.
https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html
https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html
"""

import base64
import re
from typing import Final

from s4gateway.backend.base import Head
from s4gateway.objects.attributes import Attributes
from s4gateway.objects.encoding import DIGESTS
from s4gateway.s3.checksums import ALGORITHMS, Digests
from s4gateway.tools import carrying
from s4gateway.tools.content_check import ContentCheck, Expected
from s4gateway.wire.manifest import Form

_is_md5: Final = re.compile("[0-9a-f]{32}").fullmatch


class SourceCheck:
    """What is known of an object that is read; feed `digests`, and `parts` if there are any.

    `md5` says that the MD5 is needed for more than this. `declared` is the checksum of the whole
    that a client declared: algorithm and base64 value.
    """

    def __init__(self, source: Attributes, *, md5: bool) -> None:
        self._source = source
        self.declared = _declared(source)
        self._etag = _etag(source) if self.declared is None else None
        needed = DIGESTS if md5 or self._etag is not None else ("crc32c",)
        named = () if self.declared is None else self.declared[:1]
        self.digests = Digests((*needed, *named))
        self.parts = None if source.tail is None else ContentCheck(Expected.of_tail(source.tail))

    def problem(self, size: int) -> str:
        """What is wrong with the `size` bytes that were read; empty when nothing is."""
        if size != self._source.size:
            return f"{size} bytes were read, not {self._source.size}"
        if self.parts is not None:
            return self.parts.problem()
        if self.declared is not None:
            algorithm, value = self.declared
            if base64.b64encode(self.digests[algorithm]).decode() != value:
                return f"its {algorithm} is not {value}, which its client declared"
        known = self._source.stored.md5
        if self.declared is None and known is not None and known != (found := self._md5):
            return f"its MD5 is {found}, its metadata says {known}"
        return ""

    @property
    def has_opaque_etag(self) -> bool:
        """Whether the ETag is known to be, or may be, something else than the MD5 it looks like."""
        stored, head = self._source.stored, self._source.head
        if stored.form is not Form.FOREIGN:
            return stored.manifest is not None and stored.manifest.opaque_etag
        return _is_md5(head.etag) is not None and (
            _is_under_a_key(head) or bool(self.unlike_its_etag)
        )

    @property
    def unlike_its_etag(self) -> str:
        """The MD5 of what was read, where the store's ETag is another one; else empty."""
        return "" if self._etag in {None, self._md5} else self._md5

    @property
    def _md5(self) -> str:
        return self.digests["md5"].hex() if "md5" in self.digests else ""


def _declared(source: Attributes) -> tuple[str, str] | None:
    if source.stored.form is Form.FOREIGN:
        return carrying.checksum(source.head)
    declared = None if source.stored.manifest is None else source.stored.manifest.checksum
    return declared if declared is not None and declared[0] in ALGORITHMS else None


def _etag(source: Attributes) -> str | None:
    """The MD5 that the store says a foreign object has, as far as it can be one."""
    foreign = source.stored.form is Form.FOREIGN and not _is_under_a_key(source.head)
    return source.head.etag if foreign and _is_md5(source.head.etag) else None


def _is_under_a_key(head: Head) -> bool:
    return head.headers.get("x-amz-server-side-encryption", "AES256") != "AES256"
