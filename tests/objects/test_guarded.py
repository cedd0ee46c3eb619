"""A request that is sure of what it replaces: against races, refusals, lost answers and silence."""

from dataclasses import dataclass, field

import pytest

from s4gateway.backend.base import BackendAnswer, BackendError, BackendUnavailable, HeaderList
from s4gateway.objects.guarded import Guarded

REFUSED = BackendAnswer(412, "PreconditionFailed")
LOST = BackendUnavailable("reset")
DENIED = BackendAnswer(403, "AccessDenied")


@dataclass(frozen=True)
class Thing:
    etag: str


@dataclass
class Key:
    """What stands at one key; `script` is what becomes of each request in turn."""

    stands: Thing | None = None
    script: list[BackendError | str | None] = field(default_factory=list)
    sent: list[HeaderList] = field(default_factory=list)
    blind: bool = False

    async def look(self) -> Thing | None:
        if self.blind:
            raise DENIED
        return self.stands

    async def send(self, headers: HeaderList) -> str:
        """A text in the script is somebody else's write, and a refusal; an error carries out
        nothing unless it is LOST."""
        self.sent.append(tuple(headers))
        happens = self.script.pop(0) if self.script else None
        if isinstance(happens, str):
            self.stands = Thing(happens)
            raise REFUSED
        if happens is None or happens is LOST:
            self.stands = Thing("ours")
        if happens is not None:
            raise happens
        return "done"

    def guarded(self, *, decides: bool = True, repeats: bool = True) -> Guarded[Thing, str]:
        return Guarded(
            send=self.send,
            look=self.look,
            is_made=lambda seen: seen == Thing("ours"),
            decides=decides,
            repeats=repeats,
            attempts=3,
        )


NONE_MATCH = (("if-none-match", "*"),)


def match(etag: str) -> HeaderList:
    return (("if-match", f'"{etag}"'),)


@pytest.mark.parametrize("stands", [None, Thing("a")])
async def test_what_was_seen_is_the_condition(stands: Thing | None):
    key = Key(stands)
    guarded = key.guarded()
    assert await guarded.run() == "done"
    assert guarded.old == stands
    assert key.sent == [NONE_MATCH if stands is None else match("a")]


async def test_a_refusal_is_looked_into_and_the_last_try_goes_without_a_condition():
    key = Key(Thing("a"), ["b"])
    guarded = key.guarded()
    await guarded.run()
    assert (guarded.old, key.sent) == (Thing("b"), [match("a"), match("b")])
    key = Key(Thing("a"), ["b", "c", "d"])
    guarded = key.guarded()
    await guarded.run()
    assert guarded.old == Thing("d")
    assert key.sent == [match("a"), match("b"), match("c"), ()]


async def test_a_store_that_decides_nothing_is_asked_without_conditions():
    key = Key(Thing("a"))
    guarded = key.guarded(decides=False)
    await guarded.run()
    assert (guarded.old, key.sent) == (Thing("a"), [()])


async def test_a_guess_that_fails_is_no_failure():
    key = Key(Thing("b"), [REFUSED])
    guarded = key.guarded()
    assert await guarded.guess(Thing("a")) is None
    assert await guarded.run() == "done"
    assert (guarded.old, key.sent) == (Thing("b"), [match("a"), match("b")])


async def test_what_a_lost_try_has_made_is_not_what_is_replaced():
    key = Key(Thing("a"), [LOST])
    guarded = key.guarded()
    assert await guarded.run() == "done"
    assert (guarded.old, key.sent) == (Thing("a"), [match("a"), ()])
    key = Key(None, [LOST])
    guarded = key.guarded()
    assert await guarded.guess(None) is None
    await guarded.run()
    assert guarded.old is None


async def test_a_failure_says_whether_it_was_carried_out_all_the_same():
    key = Key(Thing("a"), [LOST, LOST])
    guarded = key.guarded()
    with pytest.raises(BackendUnavailable):
        await guarded.run()
    assert (guarded.carried_out, guarded.old, guarded.seen) == (True, Thing("a"), Thing("ours"))
    for error in (DENIED, BackendUnavailable("refused", unsent=True), BackendAnswer(503, "Slow")):
        key = Key(Thing("a"), [error, error])
        guarded = key.guarded()
        with pytest.raises(type(error)):
            await guarded.run()
        assert not guarded.carried_out


async def test_what_must_not_be_repeated_is_sent_once():
    key = Key(Thing("a"), [LOST])
    with pytest.raises(BackendUnavailable):
        await key.guarded(repeats=False).run()
    assert len(key.sent) == 1
    key = Key(Thing("a"), ["b"])
    assert await key.guarded(repeats=False).run() == "done"


async def test_who_cannot_look_sends_without_a_condition_and_claims_nothing():
    key = Key(Thing("a"), blind=True)
    guarded = key.guarded()
    assert await guarded.run() == "done"
    assert (guarded.old, key.sent) == (None, [()])


async def test_what_has_no_known_etag_is_replaced_without_a_condition():
    key = Key(Thing(""))
    guarded = key.guarded()
    await guarded.run()
    assert (guarded.old, key.sent) == (Thing(""), [()])
