"""Dictionaries in use: those of the present mappings, and those that objects being read ask for.

    Dictionaries      one generation: mappings and their dictionaries, digested; immutable
    DictionaryStore   what a read asks: the generation's, then those fetched lately, then the bucket

Rule: a dictionary is digested once and then shared by all requests; a request that was given one
keeps it however long it runs, whatever is swapped or forgotten meanwhile. Everything is known by
(bucket, id): an id says nothing about another bucket.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from functools import partial
from types import MappingProxyType
from typing import Final

from s4gateway.backend.base import Backend
from s4gateway.codecs import zstd
from s4gateway.codecs.base import CodecError
from s4gateway.codecs.zstd_dict import ZstdDict
from s4gateway.objects import dict_map, dictionaries
from s4gateway.objects.dict_map import DictMap, DictMapping
from s4gateway.objects.dictionaries import DictionaryError
from s4gateway.objects.fan_out import fan_out
from s4gateway.values import immutable
from s4gateway.wire.manifest import Form, Stored

_FETCHES: Final = 8
_LRU_ENTRIES: Final = 16
_LRU_BYTES: Final = 8 * 1024 * 1024

DictionaryName = tuple[str, str]  # bucket, id


@immutable
class Choice:
    """The dictionary to try on one new object; `label` is the configured prefix it came by."""

    label: str
    codec: ZstdDict


class Dictionaries:
    """Mappings and the dictionaries they name; `max_body` bounds the bodies they are tried on.

    >>> NONE.choose("bucket", "key", 100) is None
    True
    """

    __slots__ = ("_codecs", "_max_body", "ids", "mappings")

    mappings: DictMap
    ids: Mapping[str, str]  # by configured prefix

    def __init__(
        self,
        mappings: DictMap,
        codecs: Mapping[DictionaryName, ZstdDict],
        max_body: int = dict_map.DEFAULT_MAX_BODY,
    ) -> None:
        self.mappings = mappings
        self.ids = MappingProxyType({each.label: each.dict_id for each in mappings.mappings})
        self._codecs = codecs
        self._max_body = max_body

    def choose(self, bucket: str, key: str, length: int | None) -> Choice | None:
        """Return what to try on a new object of at most `length` bytes; None of unknown length."""
        if not self._codecs or length is None or not 0 < length <= self._max_body:
            return None
        found = self.mappings.match(bucket, key)
        if found is None:
            return None
        return Choice(found.label, self._codecs[bucket, found.dict_id])

    def get(self, name: DictionaryName) -> ZstdDict | None:
        """Return a dictionary that is loaded."""
        return self._codecs.get(name)

    def __len__(self) -> int:
        return len(self._codecs)


NONE: Final = Dictionaries(dict_map.EMPTY, {})


class Loader:
    """Makes generations: fetches what a map names, verifies and digests it.

    `level` (of zstd) and `max_body` (bytes) hold for all of them. `backend` carries the gateway's
    own identity.
    """

    def __init__(
        self,
        backend: Backend,
        level: int = zstd.DEFAULT_LEVEL,
        max_body: int = dict_map.DEFAULT_MAX_BODY,
    ) -> None:
        self._backend = backend
        self._level = level
        self._max_body = max_body

    async def load(self, mappings: DictMap, previous: Dictionaries = NONE) -> Dictionaries:
        """Load a generation, taking over what `previous` has; raises DictMapError.

        Each mapped dictionary is read from the bucket it is mapped in. All problems are told.
        """
        wanted: dict[DictionaryName, DictMapping] = {}
        for each in mappings.mappings:
            wanted.setdefault((each.bucket, each.dict_id), each)
        found = await fan_out(wanted, partial(self._load_one, previous), _FETCHES)
        problems = [
            f"mapping {wanted[name].label!r}: {each}"
            for name, each in zip(wanted, found, strict=True)
            if isinstance(each, str)
        ]
        codecs = {
            name: each
            for name, each in zip(wanted, found, strict=True)
            if not isinstance(each, str)
        }
        problems += _ambiguous(codecs)
        if problems:
            raise dict_map.DictMapError(problems)
        return Dictionaries(mappings, _shared(codecs), self._max_body)

    async def _load_one(self, previous: Dictionaries, name: DictionaryName) -> ZstdDict | str:
        """The dictionary, or what is wrong with it."""
        known = previous.get(name)
        if known is not None:
            return known
        try:
            data = await dictionaries.fetch(self._backend, *name)
            codec = await asyncio.to_thread(ZstdDict, data, self._level)
        except DictionaryError as error:
            return str(error)
        except CodecError as error:
            return f"dictionary {name[1]} of bucket {name[0]}: {error}"
        if not codec.is_trained:
            return (
                f"dictionary {name[1]} of bucket {name[0]}: raw content, which what is compressed "
                "with it does not name; train one with s4 train-dict"
            )
        return codec


def _ambiguous(codecs: Mapping[DictionaryName, ZstdDict]) -> Iterable[str]:
    """Ids that stand for different bytes in different buckets."""
    digests: dict[str, str] = {}
    for (_, dict_id), codec in codecs.items():
        if digests.setdefault(dict_id, codec.sha256) != codec.sha256:
            yield f"dictionary {dict_id}: other bytes in another bucket"


def _shared(codecs: Mapping[DictionaryName, ZstdDict]) -> Mapping[DictionaryName, ZstdDict]:
    """The same with one digested dictionary for the same bytes in several buckets."""
    by_digest: dict[str, ZstdDict] = {}
    return {name: by_digest.setdefault(each.sha256, each) for name, each in codecs.items()}


def _none() -> Dictionaries:
    return NONE


def _uncounted(*, ok: bool) -> None:
    """Nobody counts."""


class DictionaryStore:
    """Finds the dictionary of an object that is read; shared by all requests of a process.

    `present` returns the present generation. `fetched(ok=...)` is told of every fetch for a read.
    At most `entries` dictionaries of `limit` bytes together are kept; used on one event loop.
    """

    def __init__(
        self,
        backend: Backend,
        executor: Executor,
        present: Callable[[], Dictionaries] = _none,
        fetched: Callable[..., None] = _uncounted,
        *,
        entries: int = _LRU_ENTRIES,
        limit: int = _LRU_BYTES,
    ) -> None:
        self._backend = backend
        self._executor = executor
        self._present = present
        self._fetched = fetched
        self._entries = entries
        self._limit = limit
        self._used = 0
        self._known: OrderedDict[DictionaryName, ZstdDict] = OrderedDict()
        self._fetching: dict[DictionaryName, asyncio.Future[ZstdDict | None]] = {}

    async def needed_by(self, bucket: str, stored: Stored) -> ZstdDict | None:
        """Return the dictionary an object of `bucket` needs; None when it needs none.

        Raises DictionaryError.
        """
        if stored.form is not Form.DICTIONARY:
            return None
        assert stored.dict_id is not None
        return await self.find(bucket, stored.dict_id)

    async def find(self, bucket: str, dict_id: str) -> ZstdDict:
        """Return a dictionary of `bucket`, verified; raises DictionaryError."""
        name = bucket, dict_id
        codec = self._present().get(name)
        if codec is not None:
            return codec
        codec = self._known.get(name)
        if codec is not None:
            self._known.move_to_end(name)
            return codec
        return await self._fetch_once(name)

    async def _fetch_once(self, name: DictionaryName) -> ZstdDict:
        """Fetch, or wait for the one who does; who leaves early leaves it to the others."""
        while (fetching := self._fetching.get(name)) is not None:
            await asyncio.wait([fetching])
            codec = fetching.result()
            if codec is not None:
                return codec
        future = self._fetching[name] = asyncio.get_running_loop().create_future()
        try:
            codec = await self._fetch(name)
        except DictionaryError as error:
            future.set_exception(error)
            future.exception()  # read here: nobody may be waiting
            raise
        else:
            future.set_result(codec)
            return codec
        finally:
            del self._fetching[name]
            if not future.done():
                future.set_result(None)

    async def _fetch(self, name: DictionaryName) -> ZstdDict:
        bucket, dict_id = name
        try:
            data = await dictionaries.fetch(self._backend, bucket, dict_id)
            loop = asyncio.get_running_loop()
            codec = await loop.run_in_executor(self._executor, ZstdDict, data)
        except CodecError as error:
            self._fetched(ok=False)
            raise DictionaryError(bucket, dict_id, str(error)) from error
        except DictionaryError:
            self._fetched(ok=False)
            raise
        self._fetched(ok=True)
        self._keep(name, codec)
        return codec

    def _keep(self, name: DictionaryName, codec: ZstdDict) -> None:
        self._known[name] = codec
        self._used += codec.size
        while len(self._known) > self._entries or self._used > self._limit:
            _, oldest = self._known.popitem(last=False)
            self._used -= oldest.size
