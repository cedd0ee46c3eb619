"""PostObject: https://docs.aws.amazon.com/AmazonS3/latest/API/RESTObjectPOST.html.

Rule: a form is another way of writing a PutObject. Whoever signed it was authorised to put this
key, its fields have become headers, and from there on it is stored like any other object; only the
answer is made for a browser.
"""

import contextlib
from dataclasses import replace
from typing import Final

from s4gateway.backend.base import BackendError
from s4gateway.gateway import responses, storing
from s4gateway.gateway.context import HeaderPairs, Outcome, RequestContext, Response
from s4gateway.gateway.form import Form
from s4gateway.s3 import etag, post_form, query
from s4gateway.s3.checksums import Declared
from s4gateway.s3.headers import OF_THE_REQUEST, Headers

_CROSS_ORIGIN: Final = (
    "access-control-allow-credentials",
    "access-control-allow-origin",
    "access-control-expose-headers",
    "vary",
)


async def post_object(context: RequestContext) -> Outcome:
    """Store the file of a form."""
    form = context.form
    assert form is not None
    headers = form.fields.headers()
    form.declared = Declared.parse(headers)
    asked = context.headers.named(OF_THE_REQUEST)  # whatever the form says about the object
    kept = [(name, value) for name, value in asked if name not in headers]
    as_put = replace(context, headers=Headers(headers.items() + kept))
    outcome = await storing.store_object(as_put, form)
    answer = outcome.response.headers + await _cross_origin(context)
    return replace(outcome, response=_response(context, form, answer))


def _response(context: RequestContext, form: Form, headers: HeaderPairs) -> Response:
    tag = etag.strip(Headers(headers)["etag"])
    redirect = form.fields.redirect(context.bucket, tag)
    if redirect is not None:
        return Response(303, [*headers, ("location", redirect)])
    location = _location(context)
    headers = [*headers, ("location", location)]
    status = form.fields.status
    if status != 201:
        return Response(status, headers)
    body = post_form.response(location, context.bucket, context.key, tag)
    return Response(status, [*headers, ("content-type", responses.XML)], body)


def _location(context: RequestContext) -> str:
    """Where the object is, in the style of address the form was sent to."""
    scheme = "http" if context.services.config.tls_cert is None else "https"
    host = context.head.headers.get("host", "")
    base = context.head.raw_path.rstrip("/")
    return f"{scheme}://{host}{base}/{query.quote_path(context.key)}"


async def _cross_origin(context: RequestContext) -> HeaderPairs:
    """What lets the page that sent the form read the answer, by the bucket's rules about POST.

    The backend has seen a PUT, so it is asked as a browser would ask it. The object is stored: an
    answer that cannot be had takes nothing away from that.
    """
    origin = context.head.headers.get("origin")
    if origin is None:
        return []
    backend = context.services.backend.with_identity(None)
    asked = [("origin", origin), ("access-control-request-method", "POST")]
    with contextlib.suppress(BackendError):
        path = f"/{query.quote(context.bucket)}/{query.quote_path(context.key)}"
        async with await backend.forward("OPTIONS", path, "", asked) as answer:
            if answer.head.status < 300:
                found = answer.head.headers.items()
                return [pair for pair in found if pair[0] in _CROSS_ORIGIN]
    return []
