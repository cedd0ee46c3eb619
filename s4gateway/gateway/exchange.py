"""One request from its head to its log line: the only place where effects happen.

    identify -> authenticate -> authorise -> guard reserved keys -> handle -> send -> record

Rule: whatever is raised anywhere below becomes an S3 error document here, once, with the request
id that is also in the log. A fault after the head was sent breaks the connection instead.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from datetime import UTC, datetime
from time import perf_counter
from typing import Any, Final

from s4gateway.backend.base import (
    Backend,
    BackendAnswer,
    BackendProtocolError,
    BackendUnavailable,
)
from s4gateway.gateway import auth, logs, responses
from s4gateway.gateway.auth import AuthRules, Caller
from s4gateway.gateway.body import ClientGone, RequestBody
from s4gateway.gateway.client_keys import ClientKey
from s4gateway.gateway.context import Outcome, RequestContext, Response, Services
from s4gateway.gateway.generation import GenerationHolder
from s4gateway.gateway.metrics import Metrics
from s4gateway.gateway.routes import handler_for
from s4gateway.objects.errors import DamagedObject, UnreadableObject
from s4gateway.s3 import addressing, operations, presigned
from s4gateway.s3.addressing import Address
from s4gateway.s3.errors import S3Error
from s4gateway.s3.headers import Headers, RequestHead
from s4gateway.s3.operations import Operation
from s4gateway.s3.sigv4 import Credentials
from s4gateway.wire import keys

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Scope = MutableMapping[str, Any]

_log: Final = logging.getLogger("s4.exchange")

# What the backend says about the gateway's own signature says nothing about the client's.
_OWN_CREDENTIAL_CODES: Final = frozenset(
    {
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "ExpiredToken",
        "InvalidToken",
        "RequestTimeTooSkewed",
        "AuthorizationHeaderMalformed",
    }
)


class Exchange:
    """Answers S3 requests; shared by all of them."""

    def __init__(self, services: Services, metrics: Metrics, generations: GenerationHolder) -> None:
        self._services = services
        self._metrics = metrics
        self._generations = generations
        config = services.config
        self._domains = tuple(config.domain)
        self._rules = AuthRules(
            region=config.region,
            sigv2=config.allow_sigv2_presigned,
            anonymous_backend=config.anonymous == "backend",
        )
        self._identities: dict[str, tuple[ClientKey, Backend]] = {}

    async def run(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        record = _Record(self._metrics, scope)
        head = RequestHead(
            scope["method"],
            scope["raw_path"].decode("latin-1"),
            scope["query_string"].decode("latin-1"),
            Headers(scope["headers"]),
        )
        context: RequestContext | None = None
        try:
            context = self._admit(head, receive, record)
            outcome = await handler_for(context.operation)(context)
        except ClientGone:
            record.gone()
            return
        except asyncio.CancelledError:
            record.gone()
            raise
        except Exception as error:
            fault = self._as_s3_error(error, record)
            response = responses.error_response(fault, head.raw_path, record.request_id)
            outcome = Outcome(response, op=record.op)
            record.error = fault
        unread = _body_is_unread(context, head)
        await self._send(outcome, send, record, is_head=head.method == "HEAD", close=unread)

    def _admit(self, head: RequestHead, receive: Receive, record: "_Record") -> RequestContext:
        """Find out what is asked for and by whom, and whether that may be."""
        host = head.headers.get("host", "")
        address = addressing.resolve(head.raw_path, host, self._domains)
        record.address = address
        virtual = addressing.host_bucket(host, self._domains)
        now = datetime.now(UTC)
        generation = self._generations.current
        caller = auth.authenticate(head, address, generation.keys, self._rules, now, virtual)
        record.caller = caller
        headers = head.headers
        if caller.presigned and (hoisted := presigned.hoisted_headers(head.query)):
            headers = Headers(headers.items() + hoisted)
        query = head.query if head.raw_query else []
        operation = operations.identify(
            head.method, address.bucket is not None, address.key is not None, query, headers
        )
        record.operation = operation
        parameters = dict(query)
        auth.authorize(caller, operation, address, parameters.get("prefix", ""))
        _guard_reserved(operation, address, self._services.config.allow_legacy_reserved_key_reads)
        body = RequestBody(
            receive, headers, caller.authenticated, self._services.config.max_body_bytes
        )
        return RequestContext(
            request_id=record.request_id,
            now=now,
            head=head,
            headers=headers,
            address=address,
            operation=operation,
            caller=caller,
            backend=self._backend_for(caller),
            body=body,
            services=self._services,
            query=parameters,
        )

    def _backend_for(self, caller: Caller) -> Backend:
        if caller.unsigned:
            return self._services.backend.with_identity(None)
        key = caller.key
        if key is None or not key.signs_backend:
            return self._services.backend
        known = self._identities.get(key.access_key)
        if known is None or known[0] is not key:
            backend = self._services.backend.with_identity(Credentials(key.access_key, key.secret))
            known = self._identities[key.access_key] = (key, backend)
        return known[1]

    async def _send(
        self, outcome: Outcome, send: Send, record: "_Record", *, is_head: bool, close: bool
    ) -> None:
        state = _HeadState()

        async def tracked(message: MutableMapping[str, Any]) -> None:
            state.started = True
            await send(message)

        response = outcome.response
        try:
            sent = await responses.send(
                response, tracked, record.request_id, is_head=is_head, close=close
            )
        except (ConnectionError, asyncio.CancelledError) as error:
            record.gone()
            await responses.close_content(response.content)
            if isinstance(error, asyncio.CancelledError):
                raise
            return
        except Exception as error:
            fault = self._as_s3_error(error, record)
            record.error = fault
            if not state.started:
                failed = responses.error_response(fault, record.path, record.request_id)
                record.finish(Outcome(failed, op=outcome.op, codec=outcome.codec), 0)
                await responses.send(failed, send, record.request_id, is_head=is_head, close=close)
                return
            record.broken(outcome)
            return
        record.finish(outcome, sent)

    def _as_s3_error(self, error: Exception, record: "_Record") -> S3Error:
        """Say in S3's words what went wrong; what is our fault is logged with the request id."""
        if isinstance(error, S3Error):
            return error
        if isinstance(error, BackendAnswer):
            return self._relayed(error, record)
        if isinstance(error, BackendUnavailable):
            record.log("backend unavailable", error)
            return S3Error("ServiceUnavailable", headers={"Retry-After": "1"})
        if isinstance(error, BackendProtocolError):
            record.log("backend answer refused", error)
            return S3Error("InternalError", "The backend gave an answer that cannot be trusted.")
        if isinstance(error, DamagedObject):
            record.log("object damaged", error)
            return S3Error("InternalError", "The stored object failed its integrity check.")
        if isinstance(error, UnreadableObject):
            record.log("object unreadable", error)
            return S3Error("NotImplemented", f"The stored object cannot be opened here: {error}")
        if isinstance(error, OSError):
            record.log("spool failed", error)
            return S3Error("ServiceUnavailable", headers={"Retry-After": "5"})
        _log.error(
            "request failed",
            exc_info=error,
            extra={"fields": {"request_id": record.request_id, "path": record.path}},
        )
        return S3Error("InternalError")

    def _relayed(self, error: BackendAnswer, record: "_Record") -> S3Error:
        own = record.caller is not None and (
            record.caller.unsigned
            or (record.caller.key is not None and record.caller.key.signs_backend)
        )
        if error.code in _OWN_CREDENTIAL_CODES and not own:
            record.log("backend refuses the gateway's credentials", error)
            return S3Error("InternalError", "The gateway cannot authenticate to its backend.")
        if error.status in {429, 503}:
            retry = error.headers.get("retry-after", "1")
            record.backend_busy = True
            return S3Error("SlowDown", headers={"Retry-After": retry})
        return S3Error(error.code, error.message or None, status=error.status)


class _HeadState:
    __slots__ = ("started",)

    def __init__(self) -> None:
        self.started = False


def _body_is_unread(context: RequestContext | None, head: RequestHead) -> bool:
    """Whether bytes of the request may still be on their way."""
    if context is not None:
        return not context.body.finished and (
            context.body.is_announced or "transfer-encoding" in head.headers
        )
    length = head.headers.get("content-length", "0")
    return length != "0" or "transfer-encoding" in head.headers


def _guard_reserved(operation: Operation, address: Address, allow_legacy_reads: bool) -> None:
    """Keep clients away from the keys that hold the gateway's own objects."""
    key = address.key
    if key is None:
        return
    if operations.is_write(operation):
        if keys.is_write_reserved(key):
            raise S3Error(
                "InvalidObjectName", "This key is reserved for the gateway's own objects."
            )
    elif keys.is_read_reserved(key) and not allow_legacy_reads:
        raise S3Error("NoSuchKey", Key=key)


class _Record:
    """What is known about one request when it ends, counted and logged once."""

    __slots__ = (
        "_metrics", "_scope", "_started", "address", "backend_busy", "caller", "error",
        "operation", "request_id",
    )  # fmt: skip

    def __init__(self, metrics: Metrics, scope: Scope) -> None:
        self._metrics = metrics
        self._scope = scope
        self._started = perf_counter()
        self.request_id = logs.new_request_id()
        self.address: Address | None = None
        self.caller: Caller | None = None
        self.operation: Operation | None = None
        self.error: S3Error | None = None
        self.backend_busy = False

    @property
    def path(self) -> str:
        """The request path as received."""
        path: str = self._scope["raw_path"].decode("latin-1")
        return path

    @property
    def op(self) -> str | None:
        """The data operation this request was, for its metrics."""
        if self.operation is Operation.PutObject:
            return "put"
        return "get" if self.operation is Operation.GetObject else None

    def log(self, event: str, error: Exception) -> None:
        """Log a fault on our side of the gateway."""
        logs.event(
            _log, logging.ERROR, event, request_id=self.request_id, path=self.path, error=str(error)
        )

    def gone(self) -> None:
        """The client left."""
        self._metrics.client_abort()
        self._access(499, Outcome(Response(499, [])), 0)

    def broken(self, outcome: Outcome) -> None:
        """The answer broke off after its head was sent."""
        if outcome.op is not None:
            self._data(outcome, 0, ok=False)
        self._access(outcome.response.status, outcome, 0)

    def finish(self, outcome: Outcome, sent: int) -> None:
        """The answer was sent."""
        status = outcome.response.status
        metrics = self._metrics
        metrics.request(self.operation.value if self.operation is not None else "other", status)
        if outcome.fallback is not None:
            metrics.range_fallback(outcome.fallback)
        if outcome.sidecar is not None:
            metrics.sidecar_write("ok" if outcome.sidecar else "err")
        if outcome.listed is not None:
            metrics.listing_cache("hit", outcome.listed[0])
            metrics.listing_cache("miss", outcome.listed[1])
        if self.error is not None and self.error.code == "SlowDown":
            metrics.slowdown("backend" if self.backend_busy else "memory")
        if outcome.op is not None:
            self._data(outcome, sent, ok=status < 400)
        self._access(status, outcome, sent)

    def _data(self, outcome: Outcome, sent: int, *, ok: bool) -> None:
        bytes_in, bytes_out = outcome.bytes_in, outcome.bytes_out
        content = outcome.response.content
        if outcome.op == "get":
            bytes_in = getattr(content, "backend_bytes", 0)
            bytes_out = sent
        self._metrics.data(
            outcome.op or "get",
            outcome.codec,
            ok=ok,
            bytes_in=bytes_in,
            bytes_out=bytes_out,
            seconds=perf_counter() - self._started,
        )

    def _access(self, status: int, outcome: Outcome, sent: int) -> None:
        address = self.address
        fields: dict[str, object] = {
            "request_id": self.request_id,
            "method": self._scope["method"],
            "operation": self.operation.value if self.operation is not None else "-",
            "bucket": (address.bucket if address is not None else None) or "-",
            "key": (address.key if address is not None else None) or "-",
            "status": status,
            "caller": self.caller.access_key if self.caller is not None else "-",
            "ms": round((perf_counter() - self._started) * 1000, 2),
            "sent": sent,
        }
        if outcome.op == "put":
            fields["logical"] = outcome.bytes_in
            fields["stored"] = outcome.bytes_out
            fields["codec"] = outcome.codec
        if self.error is not None:
            fields["error"] = self.error.code
        if outcome.fallback is not None:
            fields["fallback"] = outcome.fallback
        if outcome.listed is not None:
            fields["known"], fields["asked"] = outcome.listed
        logs.access(fields)
