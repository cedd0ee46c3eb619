"""What a bucket holds, key by key: the versions of an object with those of the sidecar beside it.

Rule: a listing is read once and in order, and no more than one key's versions are held. A sidecar
usually follows its object; where other keys stand between them it comes alone, with the name of the
object it belongs to. Everything else the gateway keeps for itself comes as `Internal`.

SeaweedFS finds the versions of `k.s4index` before those of `k`, sorts a page afterwards and goes on
behind the page's last name, so a page that ends between them lacks `k`. A sidecar whose object was
not listed before it is therefore a reason to ask for that object's versions.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, replace

from s4gateway.backend.base import Backend
from s4gateway.tools.target import Target
from s4gateway.tools.walk import walk, walk_versions
from s4gateway.wire import keys


@dataclass(frozen=True, slots=True)
class Stored:
    """One stored version; `version_id` is None where it is the only one, `size` in bytes."""

    version_id: str | None
    size: int
    storage_class: str


@dataclass(frozen=True, slots=True)
class StoredKey:
    """An object and its sidecar, each with all its versions; `objects` is empty for a lone sidecar.

    Delete markers are left out: they take no bytes.
    """

    key: str
    objects: tuple[Stored, ...] = ()
    sidecars: tuple[Stored, ...] = ()

    @property
    def size(self) -> int:
        """Bytes stored under both keys."""
        return sum(each.size for each in (*self.objects, *self.sidecars))


@dataclass(frozen=True, slots=True)
class Internal:
    """A dictionary, or the record of a multipart upload."""

    key: str
    versions: tuple[Stored, ...]


class _Above:
    """The listed keys that the current one begins with: at most as many as a key has bytes."""

    def __init__(self) -> None:
        self._keys: list[str] = []

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    def reach(self, key: str, *, listed: bool) -> None:
        """Come to a key of a sorted listing; `listed` remembers it."""
        while self._keys and not key.startswith(self._keys[-1]):
            self._keys.pop()
        if listed:
            self._keys.append(key)


async def stored_keys(
    backend: Backend, target: Target, *, versions: bool
) -> AsyncGenerator[StoredKey | Internal, None]:
    """Everything below `target`, with all `versions` or the current ones; raises BackendError."""
    held: StoredKey | None = None
    above = _Above()
    rows = _versions(backend, target) if versions else _current(backend, target)
    async with aclosing(rows), aclosing(_by_key(rows)) as groups:
        async for key, found in groups:
            owner = _owner(key)
            above.reach(key, listed=not keys.is_hidden(key))
            if held is not None and held.key == owner:
                yield replace(held, sidecars=found)
                held = None
                continue
            if held is not None:
                yield held
                held = None
            if owner is not None:
                missed = versions and owner not in above
                objects = await _versions_of(backend, target.bucket, owner) if missed else ()
                yield StoredKey(owner, objects, found)
            elif keys.is_hidden(key):
                yield Internal(key, found)
            else:
                held = StoredKey(key, found)
    if held is not None:
        yield held


def _owner(key: str) -> str | None:
    """The object a sidecar belongs to; None for what is no sidecar of an object."""
    owner = key.removesuffix(keys.SIDECAR_SUFFIX)
    return None if owner == key or keys.is_hidden(owner) else owner


async def _versions_of(backend: Backend, bucket: str, key: str) -> tuple[Stored, ...]:
    """All versions of one key; the first listed below its own name."""
    found = []
    async with aclosing(_versions(backend, Target(bucket, key))) as rows:
        async for name, stored in rows:
            if name == key:
                found.append(stored)
            elif name != keys.sidecar_key(key):
                break
    return tuple(found)


async def _by_key(
    rows: AsyncIterator[tuple[str, Stored]],
) -> AsyncGenerator[tuple[str, tuple[Stored, ...]], None]:
    current: str | None = None
    found: list[Stored] = []
    async for key, stored in rows:
        if key != current and current is not None:
            yield current, tuple(found)
            found = []
        current = key
        found.append(stored)
    if current is not None:
        yield current, tuple(found)


async def _current(backend: Backend, target: Target) -> AsyncGenerator[tuple[str, Stored], None]:
    async with aclosing(walk(backend, target, internal=True)) as listed:
        async for each in listed:
            yield each.key, Stored(None, each.size, each.storage_class)


async def _versions(backend: Backend, target: Target) -> AsyncGenerator[tuple[str, Stored], None]:
    async with aclosing(walk_versions(backend, target, internal=True)) as listed:
        async for each in listed:
            if not each.is_marker:
                yield each.key, Stored(each.version_id, each.size, each.storage_class)
