"""Shared dictionaries: fetched from the bucket of the object that needs one, verified, kept.

Rule: kept by bucket and id, never by id alone; used only when its fingerprint is the id and, where
its metadata tells the whole digest, that, too.
"""

from typing import Final

from s4gateway.codecs.base import CodecError
from s4gateway.codecs.zstd_dict import MAX_DICTIONARY_SIZE, ZstdDict
from s4gateway.s4fs import paths
from s4gateway.s4fs.errors import S4DictionaryError
from s4gateway.s4fs.lru import Lru
from s4gateway.s4fs.store import Store
from s4gateway.wire.manifest import DICT_SHA256

_KEPT: Final = 16


class Dictionaries:
    """The dictionaries of all buckets of one filesystem."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kept: Lru[str, ZstdDict] = Lru(_KEPT)

    def get(self, path: str, dictionary_id: str) -> ZstdDict:
        """Return the dictionary an object at `path` names. S4DictionaryError; OSError."""
        where = paths.dictionary_path(self._store, path, dictionary_id)
        if where is None:
            raise S4DictionaryError(f"{path} names the dictionary {dictionary_id!r}: no such id")
        kept = self._kept.get(where)
        if kept is None:
            kept = self._fetch(path, where, dictionary_id)
            self._kept.put(where, kept)
        return kept

    def _fetch(self, path: str, where: str, dictionary_id: str) -> ZstdDict:
        try:
            head, data = self._store.first(where, MAX_DICTIONARY_SIZE, whole=True)
        except FileNotFoundError as error:
            msg = f"{path} needs the dictionary {where}, which is not there; restore it"
            raise S4DictionaryError(msg) from error
        if len(data) != head.size:
            msg = f"{path} needs the dictionary {where}, which has {head.size} bytes, over 1 MiB"
            raise S4DictionaryError(msg)
        try:
            return ZstdDict.verified(data, dictionary_id, head.metadata.get(DICT_SHA256))
        except CodecError as error:
            msg = f"{path} needs the dictionary {where}, which is not the one of that name: {error}"
            raise S4DictionaryError(msg) from error
