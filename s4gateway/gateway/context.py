"""What a handler is given and what it gives back.

Rule: a handler reads a RequestContext and returns an Outcome: an answer and the facts about it. It
sends nothing, counts nothing and logs nothing; `exchange` does all three, in one place.
"""

from collections.abc import AsyncIterable, Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

from s4gateway.backend.base import Backend
from s4gateway.backend.conditional import ConditionalWrites
from s4gateway.codecs.dispatcher import Dispatcher
from s4gateway.gateway.auth import Caller
from s4gateway.gateway.body import DOCUMENT_LIMIT, RequestBody
from s4gateway.gateway.config import GatewayConfig
from s4gateway.gateway.form import Form
from s4gateway.objects.cache import AttributeCache
from s4gateway.objects.completion import Completer
from s4gateway.objects.copying import ObjectCopier
from s4gateway.objects.dictionary_store import Dictionaries
from s4gateway.objects.encoding import Tried, Workshop
from s4gateway.objects.listing import Sizer
from s4gateway.objects.opening import OpenObject
from s4gateway.objects.parts import PartWriter
from s4gateway.objects.reader import ObjectReader
from s4gateway.objects.sidecar import Sidecars
from s4gateway.objects.uploads import Uploads
from s4gateway.objects.version_listing import VersionSizer
from s4gateway.objects.writer import ObjectWriter
from s4gateway.s3.addressing import Address
from s4gateway.s3.headers import Headers, RequestHead
from s4gateway.s3.operations import Operation
from s4gateway.values import immutable

HeaderPairs = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Services:
    """What all requests of a process share."""

    config: GatewayConfig
    backend: Backend
    workshop: Workshop
    dispatcher: Dispatcher
    attributes: AttributeCache
    conditional: ConditionalWrites
    sidecars: Sidecars
    reader: ObjectReader
    writer: ObjectWriter
    copier: ObjectCopier
    completer: Completer
    sizer: Sizer
    uploads: Uploads
    parts: PartWriter
    version_sizer: VersionSizer


@immutable
class RequestContext:
    """One authenticated request.

    `headers` are the client's, with those a presigned URL carries as parameters among them.
    `backend` signs with this client's identity on the backend; `services.backend` with the
    gateway's own. `dictionaries` are those of the generation the request began in. `form` is the
    opened form of a PostObject, whose key is in `address`.
    """

    request_id: str
    now: datetime
    head: RequestHead
    headers: Headers
    address: Address
    operation: Operation
    caller: Caller
    backend: Backend
    body: RequestBody
    services: Services
    dictionaries: Dictionaries
    query: dict[str, str]
    form: Form | None = None

    @property
    def bucket(self) -> str:
        """The bucket, of a request that has one."""
        assert self.address.bucket is not None
        return self.address.bucket

    @property
    def key(self) -> str:
        """The key, of a request that has one."""
        assert self.address.key is not None
        return self.address.key

    async def read_document(self) -> bytes:
        """Read a request document, verified, its memory reserved while it arrives."""
        length = self.body.length
        need = DOCUMENT_LIMIT if length is None else min(length, DOCUMENT_LIMIT)
        reservation = self.services.workshop.budget.share(need)
        try:
            return await self.body.read()
        finally:
            reservation.release()

    @property
    def name(self) -> tuple[str, str]:
        """Bucket and key."""
        return self.bucket, self.key


@immutable
class Response:
    """An answer: `content` is all of it, an opened object, or a stream of `length` bytes.

    `length` of None with a stream means that it is not known; a HEAD answer carries the length of
    what a GET would send.
    """

    status: int
    headers: HeaderPairs
    content: "bytes | OpenObject | Relay" = b""
    length: int | None = None


@dataclass(slots=True)
class Relay:
    """A backend answer passed on as it comes."""

    pieces: AsyncIterable[bytes]
    close: Callable[[], Awaitable[None]]


@immutable
class Outcome:
    """An answer and the facts that are counted and logged once it is sent.

    `op` is "put" or "get" for object bodies, None otherwise. `bytes_in` counts what a PUT took from
    the client; `bytes_out` what it stored. `fallback` names why a range was read from the object's
    start, `sidecar` says whether an index that was due was written, `listed` counts entries whose
    logical size was known and those that had to be asked for, `tried` how a dictionary did.
    """

    response: Response
    op: str | None = None
    codec: str = "none"
    bytes_in: int = 0
    bytes_out: int = 0
    fallback: str | None = None
    sidecar: bool | None = None
    listed: tuple[int, int] | None = None
    tried: Tried | None = None


Handler = Callable[[RequestContext], Awaitable[Outcome]]
