"""One request from its head to its log line: the only place where effects happen.

    identify -> authenticate -> authorise -> guard reserved keys -> handle -> send -> record

Rule: whatever is raised anywhere below becomes an S3 error document here, once, with the request
id that is also in the log. A fault after the head was sent breaks the connection instead.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import replace
from datetime import UTC, datetime
from time import perf_counter
from typing import Any, Final

from s4gateway.backend.base import Backend
from s4gateway.gateway import auth, faults, logs, responses
from s4gateway.gateway.auth import AuthRules, Caller
from s4gateway.gateway.body import ClientGone, RequestBody
from s4gateway.gateway.client_keys import ClientKey
from s4gateway.gateway.context import Outcome, RequestContext, Response, Services
from s4gateway.gateway.dict_monitor import DictMonitor
from s4gateway.gateway.form import Form
from s4gateway.gateway.generation import GenerationHolder
from s4gateway.gateway.metrics import Metrics
from s4gateway.gateway.routes import handler_for
from s4gateway.objects.encoding import Tried
from s4gateway.s3 import addressing, operations, presigned
from s4gateway.s3.addressing import Address
from s4gateway.s3.checksums import CHECKSUM_PREFIX
from s4gateway.s3.errors import S3Error
from s4gateway.s3.headers import Headers, RequestHead
from s4gateway.s3.operations import Operation
from s4gateway.s3.query import quote_path
from s4gateway.s3.sigv4 import Credentials
from s4gateway.wire import keys

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Scope = MutableMapping[str, Any]

_log: Final = logging.getLogger("s4.exchange")
_DATA_OPERATIONS: Final = {
    Operation.PutObject: "put",
    Operation.PostObject: "put",
    Operation.GetObject: "get",
}
_OBJECT_CHECKSUM: Final = (CHECKSUM_PREFIX, "x-amz-sdk-checksum-")


class Exchange:
    """Answers S3 requests; shared by all of them."""

    def __init__(
        self,
        services: Services,
        metrics: Metrics,
        generations: GenerationHolder,
        monitor: DictMonitor,
    ) -> None:
        self._services = services
        self._metrics = metrics
        self._generations = generations
        self._monitor = monitor
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
        record = _Record(self._metrics, self._monitor, scope)
        head = RequestHead(
            scope["method"],
            scope["raw_path"].decode("latin-1"),
            scope["query_string"].decode("latin-1"),
            Headers(scope["headers"]),
        )
        context: RequestContext | None = None
        try:
            context = self._admit(head, receive, record)
            if context.operation is Operation.PostObject:
                context = await self._open_form(context, record)
            outcome = await handler_for(context.operation)(context)
        except ClientGone:
            record.gone()
            return
        except asyncio.CancelledError:
            record.gone()
            raise
        except Exception as error:
            fault = record.fault(error)
            response = responses.error_response(fault, head.raw_path, record.request_id)
            outcome = Outcome(response, op=record.op)
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
        if caller.presigned:
            is_version_4 = caller.authenticated is not None and caller.authenticated.scope
            headers = presigned.with_hoisted(headers, head.query, version=4 if is_version_4 else 2)
        query = head.query if head.raw_query else []
        operation = operations.identify(
            head.method, address.bucket is not None, address.key is not None, query, headers
        )
        record.operation = operation
        parameters = dict(query)
        auth.authorize(caller, operation, address, parameters.get("prefix", ""))
        _guard_reserved(operation, address, self._services.config.allow_legacy_reserved_key_reads)
        body = RequestBody(
            receive,
            _about_body(operation, headers),
            caller.authenticated,
            self._services.config.max_body_bytes,
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
            dictionaries=generation.dictionaries,
            query=parameters,
        )

    async def _open_form(self, context: RequestContext, record: "_Record") -> RequestContext:
        """Admit a form, which names its key and its signer inside the body."""
        form = await Form.open(context.body, context.head.headers)
        caller, form.sizes = auth.authenticate_form(
            form.fields,
            context.address,
            context.caller,
            self._generations.current.keys,
            self._rules,
            context.now,
        )
        record.caller = caller
        raw_key = quote_path(form.fields.key)
        address = replace(context.address, key=addressing.parse_key(raw_key), raw_key=raw_key)
        record.address = address
        auth.authorize(caller, Operation.PutObject, address, "")
        _guard_reserved(context.operation, address, allow_legacy_reads=False)
        return replace(
            context, address=address, caller=caller, backend=self._backend_for(caller), form=form
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
        response = outcome.response
        try:
            sent = await responses.send(
                response, send, record.request_id, is_head=is_head, close=close
            )
        except (ConnectionError, asyncio.CancelledError) as error:
            record.gone()
            await responses.close_content(response.content)
            if isinstance(error, asyncio.CancelledError):
                raise
            return
        except responses.BrokenAnswer as broken:
            record.fault(broken.reason)
            record.broken(outcome)
            return
        except Exception as error:
            fault = record.fault(error)
            failed = responses.error_response(fault, record.path, record.request_id)
            record.finish(Outcome(failed, op=outcome.op, codec=outcome.codec), 0)
            await responses.send(failed, send, record.request_id, is_head=is_head, close=close)
            return
        record.finish(outcome, sent)


def _body_is_unread(context: RequestContext | None, head: RequestHead) -> bool:
    """Whether bytes of the request may still be on their way."""
    if context is not None:
        return not context.body.finished and (
            context.body.is_announced or "transfer-encoding" in head.headers
        )
    length = head.headers.get("content-length", "0")
    return length != "0" or "transfer-encoding" in head.headers


def _about_body(operation: Operation, headers: Headers) -> Headers:
    """The headers that describe the request's body, or what is no checksum at all.

    The checksums in the headers of a completion are those of the object, not of the document.
    """
    if operation is not Operation.CompleteMultipartUpload:
        return headers
    return Headers([pair for pair in headers.items() if not pair[0].startswith(_OBJECT_CHECKSUM)])


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
        "_metrics", "_monitor", "_scope", "_started", "address", "backend_busy", "caller", "error",
        "operation", "request_id",
    )  # fmt: skip

    def __init__(self, metrics: Metrics, monitor: DictMonitor, scope: Scope) -> None:
        self._metrics = metrics
        self._monitor = monitor
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
        return None if self.operation is None else _DATA_OPERATIONS.get(self.operation)

    def fault(self, error: Exception) -> S3Error:
        """Take note of what went wrong; what is our side's fault is logged."""
        fault = faults.translate(error, self.caller)
        self.error = fault.s3
        self.backend_busy = fault.backend_busy
        fields = {"request_id": self.request_id, "path": self.path}
        if fault.event == faults.UNEXPECTED:
            _log.error(fault.event, exc_info=error, extra={"fields": fields})
        elif fault.event is not None:
            logs.event(_log, logging.ERROR, fault.event, **fields, error=str(error))
        return fault.s3

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
        metrics.request(self.operation or "other", status)
        if outcome.fallback is not None:
            metrics.range_fallback(outcome.fallback)
        if outcome.sidecar is not None:
            metrics.sidecar_write("ok" if outcome.sidecar else "err")
        if outcome.listed is not None:
            metrics.listing_cache("hit", outcome.listed[0])
            metrics.listing_cache("miss", outcome.listed[1])
        if outcome.tried is not None:
            self._tried(outcome.tried)
        if self.error is not None and self.error.code == "SlowDown":
            metrics.slowdown("backend" if self.backend_busy else "memory")
        if outcome.op is not None:
            self._data(outcome, sent, ok=status < 400)
        self._access(status, outcome, sent)

    def _tried(self, tried: Tried) -> None:
        """Count how a dictionary did, and say so when it no longer helps."""
        self._metrics.dictionaries.put(tried)
        stale = self._monitor.record(tried)
        if stale is not None:
            logs.event(
                _log,
                logging.WARNING,
                "dictionary may be stale; consider retraining (s4 train-dict)",
                prefix=stale.prefix,
                dictionary=stale.dict_id,
                win_rate=stale.win_rate,
            )

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
            "operation": self.operation or "-",
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
