"""Listings of the filesystem below, as readers of objects see them.

Internal names are left out; sizes and ETags are those of the originals. A listing of the store
tells neither, so each object that is not known yet costs a HEAD, many of them side by side; what
was found is remembered by name, ETag and stored size.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

from s4gateway.s4fs import paths, threads
from s4gateway.s4fs.attributes import Attributes
from s4gateway.s4fs.lru import Lru
from s4gateway.s4fs.reader import Reader
from s4gateway.s4fs.store import Store

Entry = dict[str, Any]
_KNOWN: Final = 100_000


def presented(entry: Mapping[str, Any], attributes: Attributes) -> Entry:
    """Return an entry of the filesystem below with the size and ETag of the original.

    `s4_size_exact` is False where nothing tells the size and the stored one stands for it.
    """
    shown = dict(entry)
    for name in {"size", "Size"} & shown.keys() | {"size"}:
        shown[name] = attributes.shown_size
    shown["s4_size_exact"] = attributes.size is not None
    shown["s4_stored_size"] = attributes.head.size
    if attributes.etag is not None:
        shown["ETag"] = f'"{attributes.etag}"'
    for name in {"metadata", "Metadata"} & shown.keys():
        shown[name] = {
            key: value
            for key, value in dict(shown[name] or {}).items()
            if not key.lower().startswith("s4-")
        }
    return shown


class Listings:
    """Hides and completes entries. `physical` leaves sizes and ETags as they are stored."""

    def __init__(self, store: Store, reader: Reader, *, physical: bool) -> None:
        self._store = store
        self._reader = reader
        self._physical = physical
        self._known: Lru[tuple[str, str, int], Attributes] = Lru(_KNOWN)

    def visible(self, entries: Sequence[Entry]) -> list[Entry]:
        """Return the entries that are not internal."""
        return [
            entry
            for entry in entries
            if not paths.is_hidden(
                self._store, entry["name"], directory=entry["type"] == "directory"
            )
        ]

    def complete(self, entries: Sequence[Entry]) -> list[Entry]:
        """Return the entries with the originals' sizes and ETags."""
        if self._physical:
            return [
                entry if entry["type"] != "file" else {**entry, "s4_size_exact": False}
                for entry in entries
            ]
        work = [partial(self._complete, entry) for entry in entries]
        return threads.together(work, "look") if work else []

    def _complete(self, entry: Entry) -> Entry:
        if entry["type"] != "file":
            return dict(entry)
        key = (entry["name"], str(entry.get("ETag")), int(entry["size"]))
        attributes = self._known.get(key) if "ETag" in entry else None
        if attributes is None:
            try:
                attributes = self._reader.glance(entry["name"])
            except (FileNotFoundError, PermissionError):  # gone since, or listed but not to be read
                return {**entry, "s4_size_exact": False}
            self._known.put(key, attributes)
        return presented(entry, attributes)
