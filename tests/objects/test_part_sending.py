"""What goes with each request of a body that is sent in parts."""

from s4gateway.backend import base
from s4gateway.backend.memory import MemoryBackend
from s4gateway.objects.encoding import EncodedObject
from s4gateway.objects.part_sending import PartSender
from s4gateway.wire.codec_id import CodecId
from s4gateway.wire.manifest import Manifest

MIB = 1024 * 1024
CARRIED = [
    ("consistency-control", "strong-site"),
    ("x-amz-expected-bucket-owner", "123456789012"),
    ("x-amz-request-payer", "requester"),
    ("x-amz-server-side-encryption-customer-key", "secret"),
]


class Recording(MemoryBackend):
    """Notes the headers of every request it is forwarded."""

    def __init__(self) -> None:
        super().__init__({"b": {}})
        self.sent: list[tuple[str, str, list[tuple[str, str]]]] = []

    async def forward(
        self,
        method: str,
        raw_path: str,
        raw_query: str,
        headers: base.HeaderList,
        body: base.Body | None = None,
    ) -> base.ObjectStream:
        self.sent.append((method, raw_query.partition("=")[0], list(headers)))
        return await super().forward(method, raw_path, raw_query, headers, body)


async def test_what_a_request_says_about_itself_goes_with_each_part_and_the_end_and_nothing_else():
    store = Recording()
    body = EncodedObject(
        base.Body.of(b"x" * 7 * MIB), Manifest(CodecId.PASSTHROUGH, 7 * MIB, 7 * MIB, 0), None
    )
    stored = [*CARRIED, ("content-type", "text/plain"), ("x-amz-meta-colour", "blue")]
    await PartSender(6 * MIB).send(store, ("b", "k"), body, [*stored, ("if-none-match", "*")])
    begun, *parts, ended = store.sent
    assert begun == ("POST", "uploads", stored)
    assert [each for each in parts if each != ("PUT", "partNumber", CARRIED)] == []
    assert len(parts) == 2
    method, _, headers = ended
    assert method == "POST"
    assert {*CARRIED, ("if-none-match", "*")} <= set(headers)
    assert not {("content-type", "text/plain"), ("x-amz-meta-colour", "blue")} & set(headers)
