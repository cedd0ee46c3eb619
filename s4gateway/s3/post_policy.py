"""The policy of a form upload: what its signer allows whoever holds the form to store.

Rule: the signature is verified over the policy exactly as the field carries it before a byte of it
is parsed, every condition must hold, and every field must be covered by one, so that the holder of
a form can add nothing to it. The bucket is the one of the request, never the one a field names.
Comparisons of signatures take constant time, and the clock is an argument.
https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-HTTPPOSTConstructPolicy.html
https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-authentication-HTTPPOST.html
https://docs.aws.amazon.com/AmazonS3/latest/API/HTTPPOSTForms.html
"""

import base64
import binascii
import hmac
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NoReturn

from s4gateway.s3 import presigned, sigv4
from s4gateway.s3.errors import S3Error
from s4gateway.s3.keyed_hash import hmac_sha256
from s4gateway.s3.post_form import FormFields

_SIGNED_BY: Final = ("policy", "x-amz-signature", "awsaccesskeyid", "signature")
_V4_FIELDS: Final = ("X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Signature")
# Fields that need no condition: they are the proof itself.
_UNCOVERED: Final = frozenset({"file", *_SIGNED_BY})
_EXPIRATION: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?Z", re.ASCII)
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_LENGTH: Final = re.compile("[0-9]{1,19}", re.ASCII)
_OPERATORS: Final = ("eq", "starts-with")


def is_signed(fields: FormFields) -> bool:
    """Whether the form claims to be signed, by any field that says so."""
    return any(name in fields for name in (*_SIGNED_BY, "x-amz-credential", "x-amz-algorithm"))


def verify_signature(
    fields: FormFields, lookup: sigv4.Lookup, *, region: str | None = None, sigv2: bool = True
) -> str:
    """Verify the signature over the policy field; return the access key that made it.

    `region` is the only one accepted in a Version 4 scope when given; `sigv2` admits Version 2.
    How long a form is good is in its policy alone. Raises InvalidArgument for a field that is
    missing, AuthorizationQueryParametersError for a malformed scope, InvalidRequest for a version
    that is not admitted, InvalidAccessKeyId and SignatureDoesNotMatch.
    """
    policy = fields.require("policy").encode()
    if any(name.lower() in fields for name in _V4_FIELDS):
        return _verify_v4(fields, policy, lookup, region)
    if not sigv2:
        raise presigned.not_admitted()
    access_key, offered = fields.require("AWSAccessKeyId"), fields.require("signature")
    secret = _secret_of(access_key, lookup)
    expected = base64.b64encode(hmac.digest(secret.encode(), policy, "sha1"))
    return _compare(expected, offered, access_key, policy)


def _verify_v4(fields: FormFields, policy: bytes, lookup: sigv4.Lookup, region: str | None) -> str:
    parameters = {name: fields.require(name) for name in _V4_FIELDS}
    claim = presigned.query_claim(parameters, region)
    secret = _secret_of(claim.access_key, lookup)
    key = sigv4.signing_key(secret, claim.date, claim.region)
    expected = hmac_sha256(key, policy).encode()
    return _compare(expected, claim.signature, claim.access_key, policy)


def _secret_of(access_key: str, lookup: sigv4.Lookup) -> str:
    secret = lookup(access_key)
    if secret is None:
        raise S3Error("InvalidAccessKeyId", AWSAccessKeyId=access_key)
    return secret


def _compare(expected: bytes, offered: str, access_key: str, policy: bytes) -> str:
    if not hmac.compare_digest(expected, offered.strip().encode()):
        raise S3Error(
            "SignatureDoesNotMatch",
            AWSAccessKeyId=access_key,
            StringToSign=policy.decode(),
            SignatureProvided=offered,
            StringToSignBytes=policy.hex(" "),
        )
    return access_key


@dataclass(frozen=True, slots=True)
class Condition:
    """One field's value, or how it must begin; `name` is as the policy spells it."""

    operator: str
    name: str
    value: str

    def holds(self, offered: str | None) -> bool:
        """Whether a field's value is allowed; a field that is absent has none.

        Several content types in one field, separated by commas, must all begin as demanded.
        """
        if offered is None:
            return False
        if self.operator == "eq":
            return offered == self.value
        if self.name.lower() == "content-type":
            return all(each.strip().startswith(self.value) for each in offered.split(","))
        return offered.startswith(self.value)

    def __str__(self) -> str:
        return json.dumps([self.operator, f"${self.name}", self.value], ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class PostPolicy:
    """What a form may store, and until when.

    `sizes` are the smallest and the largest file allowed, in bytes, both inclusive; None when the
    policy says nothing about them.
    """

    expiration: datetime
    conditions: tuple[Condition, ...]
    sizes: tuple[int, int] | None = None

    @classmethod
    def parse(cls, encoded: str) -> "PostPolicy":
        """Read the policy field: base64 of UTF-8 of JSON; raises InvalidPolicyDocument."""
        document = _decode(encoded)
        unknown = [name for name in document if name not in {"expiration", "conditions"}]
        for name in ("expiration", "conditions"):
            if name not in document:
                raise _invalid(f"Policy missing {name}.")
        if unknown:
            raise _invalid(f"Unexpected: '{unknown[0]}'.")
        conditions: list[Condition] = []
        sizes: tuple[int, int] | None = None
        if not isinstance(document["conditions"], list):
            raise _invalid("Conditions must be a List.")
        for item in document["conditions"]:
            if isinstance(item, list) and item and _folded(item[0]) == "content-length-range":
                smallest, largest = _length_range(item)
                sizes = (
                    (smallest, largest)
                    if sizes is None
                    else (max(sizes[0], smallest), min(sizes[1], largest))
                )
            else:
                conditions.append(_condition(item))
        return cls(_expiration(document["expiration"]), tuple(conditions), sizes)

    def check(self, fields: FormFields, bucket: str, now: datetime) -> None:
        """Hold a form against the policy; raises AccessDenied with what does not fit."""
        if now > self.expiration:
            raise _refused("Policy expired.")
        covered = set()
        for condition in self.conditions:
            name = condition.name.lower()
            covered.add(name)
            if not condition.holds(bucket if name == "bucket" else fields.get(name)):
                raise _refused(f"Policy Condition failed: {condition}")
        extra = [name for name in ("bucket", *fields) if name not in covered | _UNCOVERED]
        if extra:
            raise _refused(f"Extra input fields: {', '.join(dict.fromkeys(extra))}")


def _refused(reason: str) -> S3Error:
    return S3Error("AccessDenied", f"Invalid according to Policy: {reason}")


def _invalid(reason: str) -> S3Error:
    return S3Error("InvalidPolicyDocument", f"Invalid Policy: {reason}")


def _decode(encoded: str) -> Mapping[str, Any]:
    try:
        # Hand-made forms break the base64 into lines.
        text = binascii.a2b_base64("".join(encoded.split()), strict_mode=True).decode()
        document = json.loads(_ESCAPE.sub(_plain_escape, text), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise _invalid("Invalid JSON.") from error
    if not isinstance(document, dict):
        raise _invalid("Invalid JSON.")
    return document


def _plain_escape(match: re.Match[str]) -> str:
    r"""Policies may write `\$` and `\v`, which JSON has not."""
    return {"$": "$", "v": "\\u000b"}.get(match[1], match[0])


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _folded(item: object) -> str:
    return item.lower() if isinstance(item, str) else ""


def _expiration(value: object) -> datetime:
    try:
        if isinstance(value, str) and _EXPIRATION.fullmatch(value):
            return datetime.fromisoformat(value).astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise _invalid(f"Invalid 'expiration' value: '{value}'")


def _condition(item: object) -> Condition:
    if isinstance(item, dict):
        if len(item) != 1:
            raise _invalid(
                "Invalid Simple-Condition: Simple-Conditions must have exactly one property "
                "specified."
            )
        (name, value), operator = next(iter(item.items())), "eq"
    elif isinstance(item, list) and len(item) == 3 and _folded(item[0]) in _OPERATORS:
        operator, name, value = _folded(item[0]), item[1], item[2]
        if not isinstance(name, str) or not name.startswith("$"):
            raise _invalid("Invalid Condition: a field's name must begin with '$'.")
        name = name[1:]
    else:
        raise _invalid("Invalid Condition: an object or a List of three elements expected.")
    if not isinstance(value, str):
        raise _invalid("Invalid Simple-Condition: value must be a string.")
    return Condition(operator, name, value)


def _length_range(item: Sequence[object]) -> tuple[int, int]:
    bounds = [
        int(str(bound))
        for bound in item[1:]
        if isinstance(bound, int | str) and _LENGTH.fullmatch(str(bound))
    ]
    if len(item) != 3 or len(bounds) != 2 or bounds[0] > bounds[1]:
        raise _invalid("Invalid content-length-range: two lengths in bytes expected.")
    return bounds[0], bounds[1]
