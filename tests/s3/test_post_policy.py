import base64
import hmac
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.config import Config
from hypothesis import given
from hypothesis import strategies as st

from s4gateway.s3 import post_policy, sigv4
from s4gateway.s3.errors import S3Error
from s4gateway.s3.post_form import FormFields
from s4gateway.s3.post_policy import PostPolicy

KEY = "AKIAIOSFODNN7EXAMPLE"
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
LOOKUP = {KEY: SECRET}.get
NOW = datetime(2015, 12, 29, 12, tzinfo=UTC)
LATER = "2015-12-30T12:00:00.000Z"

# https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-post-example.html
PUBLISHED_POLICY = """\
{ "expiration": "2015-12-30T12:00:00.000Z",
  "conditions": [
    {"bucket": "sigv4examplebucket"},
    ["starts-with", "$key", "user/user1/"],
    {"acl": "public-read"},
    {"success_action_redirect": "http://sigv4examplebucket.s3.amazonaws.com/successful_upload.html"},
    ["starts-with", "$Content-Type", "image/"],
    {"x-amz-meta-uuid": "14365123651274"},
    {"x-amz-server-side-encryption": "AES256"},
    ["starts-with", "$x-amz-meta-tag", ""],

    {"x-amz-credential": "AKIAIOSFODNN7EXAMPLE/20151229/us-east-1/s3/aws4_request"},
    {"x-amz-algorithm": "AWS4-HMAC-SHA256"},
    {"x-amz-date": "20151229T000000Z" }
  ]
}"""
PUBLISHED_SIGNATURE = "8afdbf4008c03f22c2cd3cdb72e4afbb1f6a588f3255ac628749a66d7f09699e"
PUBLISHED_FORM = {
    "key": "user/user1/${filename}",
    "acl": "public-read",
    "success_action_redirect": "http://sigv4examplebucket.s3.amazonaws.com/successful_upload.html",
    "Content-Type": "image/jpeg",
    "x-amz-meta-uuid": "14365123651274",
    "x-amz-server-side-encryption": "AES256",
    "X-Amz-Credential": f"{KEY}/20151229/us-east-1/s3/aws4_request",
    "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
    "X-Amz-Date": "20151229T000000Z",
    "x-amz-meta-tag": "",
    "Policy": base64.b64encode(PUBLISHED_POLICY.replace("\n", "\r\n").encode()).decode(),
    "X-Amz-Signature": PUBLISHED_SIGNATURE,
}


def fields_of(form: dict[str, str], file_name: str = "photo.jpg") -> FormFields:
    return FormFields(form.items(), file_name)


def encoded(*conditions: Any, **more: Any) -> str:
    document = {"expiration": LATER, "conditions": list(conditions)} | more
    return base64.b64encode(json.dumps(document).encode()).decode()


def refusal(call: Any, *arguments: Any, **more: Any) -> S3Error:
    with pytest.raises(S3Error) as caught:
        call(*arguments, **more)
    return caught.value


def check(form: dict[str, str], *conditions: Any, bucket: str = "b") -> None:
    PostPolicy.parse(encoded(*conditions)).check(fields_of(form), bucket, NOW)


def why_not(form: dict[str, str], *conditions: Any, bucket: str = "b") -> tuple[int, str, str]:
    error = refusal(check, form, *conditions, bucket=bucket)
    return error.status, error.code, error.message


def invalid(policy: str) -> str:
    error = refusal(PostPolicy.parse, policy)
    assert (error.status, error.code) == (400, "InvalidPolicyDocument")
    return error.message


class TestTheExampleAwsPublishes:
    def test_its_signature_verifies_and_its_form_fits(self):
        fields = fields_of(PUBLISHED_FORM)
        assert post_policy.verify_signature(fields, LOOKUP, region="us-east-1") == KEY
        policy = PostPolicy.parse(fields.require("policy"))
        policy.check(fields, "sigv4examplebucket", NOW)
        assert policy.sizes is None
        assert fields.key == "user/user1/photo.jpg"

    def test_it_is_good_for_no_other_bucket(self):
        fields = fields_of(PUBLISHED_FORM)
        policy = PostPolicy.parse(fields.require("policy"))
        error = refusal(policy.check, fields, "other", NOW)
        assert error.code == "AccessDenied"
        assert error.message == (
            "Invalid according to Policy: Policy Condition failed: "
            '["eq", "$bucket", "sigv4examplebucket"]'
        )

    @pytest.mark.parametrize(
        ("field", "value", "code"),
        [
            ("X-Amz-Signature", PUBLISHED_SIGNATURE.replace("8", "9"), "SignatureDoesNotMatch"),
            ("X-Amz-Signature", "é", "SignatureDoesNotMatch"),
            ("Policy", PUBLISHED_FORM["Policy"][:-4], "SignatureDoesNotMatch"),
            (
                "X-Amz-Credential",
                "AKIAOTHER/20151229/us-east-1/s3/aws4_request",
                "InvalidAccessKeyId",
            ),
            (
                "X-Amz-Credential",
                f"{KEY}/20151229/eu-west-1/s3/aws4_request",
                "AuthorizationQueryParametersError",
            ),
            (
                "X-Amz-Credential",
                f"{KEY}/20151230/us-east-1/s3/aws4_request",
                "AuthorizationQueryParametersError",
            ),
            ("X-Amz-Credential", KEY, "AuthorizationQueryParametersError"),
            ("X-Amz-Algorithm", "", "AuthorizationQueryParametersError"),
            ("X-Amz-Algorithm", "AWS4-ECDSA-P256-SHA256", "NotImplemented"),
        ],
    )
    def test_a_changed_proof_is_refused(self, field: str, value: str, code: str):
        form = fields_of(PUBLISHED_FORM | {field: value})
        error = refusal(post_policy.verify_signature, form, LOOKUP, region="us-east-1")
        assert error.code == code

    @pytest.mark.parametrize(
        "name", ["X-Amz-Credential", "X-Amz-Algorithm", "X-Amz-Date", "X-Amz-Signature", "policy"]
    )
    def test_what_is_missing_is_named(self, name: str):
        form = {n: value for n, value in PUBLISHED_FORM.items() if n.lower() != name.lower()}
        error = refusal(post_policy.verify_signature, fields_of(form), LOOKUP)
        assert (error.status, error.code, error.fields["ArgumentName"]) == (
            400,
            "InvalidArgument",
            name,
        )
        assert error.message == (
            f"Bucket POST must contain a field named '{name}'.  If it is specified, please check "
            "the order of the fields."
        )


class TestVersion2:
    @staticmethod
    def form(policy: str, secret: str = SECRET) -> FormFields:
        signature = base64.b64encode(hmac.digest(secret.encode(), policy.encode(), "sha1"))
        return fields_of({"AWSAccessKeyId": KEY, "policy": policy, "signature": signature.decode()})

    def test_its_signature_is_accepted_where_version_2_is(self):
        form = self.form(encoded())
        assert post_policy.verify_signature(form, LOOKUP) == KEY
        assert refusal(post_policy.verify_signature, form, LOOKUP, sigv2=False).code == (
            "InvalidRequest"
        )

    def test_another_secret_is_refused(self):
        error = refusal(post_policy.verify_signature, self.form(encoded(), "other"), LOOKUP)
        assert (error.status, error.code) == (403, "SignatureDoesNotMatch")

    @pytest.mark.parametrize("name", ["AWSAccessKeyId", "signature"])
    def test_what_is_missing_is_named(self, name: str):
        form = {"AWSAccessKeyId": KEY, "policy": encoded(), "signature": "x"}
        del form[name]
        error = refusal(post_policy.verify_signature, fields_of(form), LOOKUP)
        assert (error.code, error.fields["ArgumentName"]) == ("InvalidArgument", name)


@pytest.mark.parametrize("version", ["s3", "s3v4"])
@pytest.mark.parametrize("token", [None, "session"])
def test_what_boto3_signs_is_accepted(version: str, token: str | None):
    client = boto3.client(
        "s3",
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        aws_session_token=token,
        region_name="us-east-1",
        endpoint_url="http://gw:8014",
        config=Config(signature_version=version),
    )
    post = client.generate_presigned_post("b", "a/${filename}", {"acl": "private"}, [
        {"acl": "private"}, ["content-length-range", 1, 10],
    ])  # fmt: skip
    client.close()
    fields = fields_of(post["fields"])
    assert ("x-amz-security-token" in fields) is (token is not None)
    assert post_policy.verify_signature(fields, LOOKUP, region="us-east-1") == KEY
    policy = PostPolicy.parse(fields.require("policy"))
    policy.check(fields, "b", datetime.now(UTC))
    assert policy.sizes == (1, 10)


class TestConditions:
    BUCKET = {"bucket": "b"}  # noqa: RUF012 - never changed

    def test_names_and_operators_have_no_case_and_values_have(self):
        check({"kEy": "foo"}, {"BuCkEt": "b"}, ["StArTs-WiTh", "$KeY", "fo"])
        assert why_not({"key": "foo"}, self.BUCKET, ["eq", "$key", "FOO"])[2].endswith(
            'Policy Condition failed: ["eq", "$key", "FOO"]'
        )

    def test_a_field_a_condition_speaks_of_must_be_there_even_for_an_empty_prefix(self):
        for condition in (["starts-with", "$tag", ""], {"tag": ""}):
            status, code, message = why_not({"key": "k"}, self.BUCKET, condition)
            assert (status, code) == (403, "AccessDenied")
            assert "Policy Condition failed" in message

    def test_every_field_must_be_covered_and_so_must_the_bucket(self):
        covering = [self.BUCKET, {"key": "k"}]
        assert why_not({"key": "k"}, {"key": "k"}) == (
            403,
            "AccessDenied",
            "Invalid according to Policy: Extra input fields: bucket",
        )
        assert why_not({"key": "k", "x-amz-meta-a": "1"}, *covering)[2] == (
            "Invalid according to Policy: Extra input fields: x-amz-meta-a"
        )
        proof = {"policy": "", "signature": "", "AWSAccessKeyId": "", "X-Amz-Signature": ""}
        check({"key": "k", "x-ignore-me": "1", "file": "x"} | proof, *covering)
        assert "x-amz-date" in why_not({"key": "k", "x-amz-date": "1"}, *covering)[2]

    def test_the_bucket_is_the_one_of_the_request_whatever_a_field_says(self):
        form = {"key": "k", "bucket": "b"}
        assert why_not(form, self.BUCKET, {"key": "k"}, bucket="other")[1] == "AccessDenied"
        check(form | {"bucket": "other"}, self.BUCKET, {"key": "k"})

    def test_content_types_in_a_list_must_all_fit(self):
        rule = ["starts-with", "$Content-Type", "image/"]
        check({"content-type": "image/png, image/gif"}, self.BUCKET, rule)
        assert why_not({"content-type": "image/png,text/html"}, self.BUCKET, rule)[0] == 403
        assert why_not({"key": "a,b"}, self.BUCKET, {"key": "a"})[0] == 403

    def test_a_policy_is_good_until_it_expires(self):
        policy = PostPolicy.parse(encoded(self.BUCKET))
        policy.check(fields_of({}), "b", policy.expiration)
        late = policy.expiration + timedelta(microseconds=1)
        error = refusal(policy.check, fields_of({}), "b", late)
        assert (error.status, error.code, error.message) == (
            403,
            "AccessDenied",
            "Invalid according to Policy: Policy expired.",
        )

    def test_a_dollar_may_be_escaped_and_a_backslash_stays_one(self):
        def of(raw: str) -> str:
            document = f'{{"expiration": "{LATER}", "conditions": [{raw}]}}'
            return base64.b64encode(document.encode()).decode()

        (condition,) = PostPolicy.parse(of(r'["eq", "$key", "\$a\v\\$b\n"]')).conditions
        assert condition.value == "$a\v\\$b\n"

    @given(st.text(), st.text())
    def test_starts_with_is_what_it_says(self, value: str, prefix: str):
        condition = post_policy.Condition("starts-with", "key", prefix)
        assert condition.holds(value) is value.startswith(prefix)
        assert condition.holds(prefix + value)


class TestDocuments:
    @pytest.mark.parametrize(
        "text",
        ["", "[]", "1", "null", "{", '{"a": NaN}', "[" * 15_000, '{"a": 1,}', "\x00", "1" * 5000],
    )
    def test_what_is_no_object_is_refused(self, text: str):
        assert invalid(base64.b64encode(text.encode()).decode()) == "Invalid Policy: Invalid JSON."

    @pytest.mark.parametrize("policy", ["!", "é", "e30", "e30=\x00", "/w=="])
    def test_what_is_no_base64_of_utf_8_is_refused(self, policy: str):
        assert invalid(policy) == "Invalid Policy: Invalid JSON."

    def test_base64_may_be_broken_into_lines(self):
        policy = encoded({"bucket": "b"})
        assert PostPolicy.parse(policy[:20] + "\r\n" + policy[20:]) == PostPolicy.parse(policy)

    @pytest.mark.parametrize("name", ["expiration", "conditions"])
    def test_both_elements_are_needed_and_their_names_have_a_case(self, name: str):
        document = {"expiration": LATER, "conditions": []}
        document[name.upper()] = document.pop(name)
        policy = base64.b64encode(json.dumps(document).encode()).decode()
        assert invalid(policy) == f"Invalid Policy: Policy missing {name}."

    def test_an_element_nobody_knows_is_refused(self):
        assert invalid(encoded(version="1")) == "Invalid Policy: Unexpected: 'version'."

    @pytest.mark.parametrize(
        "value",
        [
            "2015-12-30", "2015-12-30 12:00:00+00:00", "2015-12-30T12:00:00",
            "2015-13-30T12:00:00Z", "2015-12-30T12:00:00+02:00", "", None, 5,
            ["2015-12-30T12:00:00Z"], "\u0662\u0660\u0661\u0665-12-30T12:00:00Z",
        ],
    )  # fmt: skip
    def test_the_expiration_is_a_moment_in_utc(self, value: object):
        assert invalid(encoded(expiration=value)).startswith("Invalid Policy: Invalid 'expiration'")

    @pytest.mark.parametrize(
        "condition",
        [
            {}, {"a": "1", "b": "2"}, {"a": 1}, {"a": None}, [], ["eq"], ["eq", "$a"], "eq", 7,
            None, ["eq", "a", "b"], ["eq", "$a", 1], ["eq", 1, "b"], ["eq", "$a", "b", "c"],
            ["ends-with", "$a", "b"], [["eq"], "$a", "b"], ["eq", "", "b"],
        ],
    )  # fmt: skip
    def test_a_condition_that_is_none_is_refused(self, condition: object):
        assert invalid(encoded(condition)).startswith("Invalid Policy: ")

    def test_conditions_are_a_list(self):
        assert invalid(encoded(conditions={"bucket": "b"})).startswith("Invalid Policy: ")

    @pytest.mark.parametrize(
        "bounds",
        [[], [0], [-1, 0], [0, 1, 2], [5, 4], [0.0, 1], [True, 2], ["a", 1], [None, 1], [0, 1e3]],
    )
    def test_a_length_range_has_two_lengths(self, bounds: list[object]):
        assert invalid(encoded(["content-length-range", *bounds])).startswith(
            "Invalid Policy: Invalid content-length-range"
        )

    def test_length_ranges_all_hold(self):
        ranges = (["content-length-range", 1, 10], ["CONTENT-length-range", "5", "20"])
        assert PostPolicy.parse(encoded(*ranges)).sizes == (5, 10)

    @given(st.text(max_size=200))
    def test_no_policy_field_raises_anything_else(self, text: str):
        for policy in (text, base64.b64encode(text.encode()).decode()):
            assert invalid(policy)

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=8,
        )
    )
    def test_no_condition_raises_anything_else(self, condition: object):
        try:
            policy = PostPolicy.parse(encoded(condition))
        except S3Error as error:
            code = error.code
        else:
            code = ""
            assert len(policy.conditions) + (policy.sizes is not None) == 1
        assert code in {"", "InvalidPolicyDocument"}


def test_only_a_form_with_a_trace_of_a_signature_is_signed():
    assert not post_policy.is_signed(fields_of({"key": "k", "acl": "private"}))
    for name in ("policy", "signature", "AWSAccessKeyId", "X-Amz-Signature", "X-Amz-Credential"):
        assert post_policy.is_signed(fields_of({name: ""}))


def test_the_signing_key_is_the_one_of_the_scope():
    key = sigv4.signing_key(SECRET, "20151229", "us-east-1")
    policy = PUBLISHED_FORM["Policy"].encode()
    assert hmac.digest(key, policy, "sha256").hex() == PUBLISHED_SIGNATURE
