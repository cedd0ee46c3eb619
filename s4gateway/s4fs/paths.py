"""Which names belong to the gateway, and where sidecars and dictionaries stand."""

from s4gateway.s4fs.store import Store
from s4gateway.wire import keys

VERSION_MARK = "?versionId="


def is_hidden(store: Store, path: str, *, directory: bool = False) -> bool:
    """Whether a path is internal: it is not listed, does not exist and cannot be written."""
    _, key = store.split(path)
    if directory:
        return keys.is_hidden_prefix(key.rstrip("/") + "/")
    return keys.is_hidden(key) or keys.is_hidden_prefix(key + "/")


def sidecar_path(path: str) -> str:
    """Return where the sidecar of an object stands; versions of one share it.

    >>> sidecar_path("bucket/a.csv?versionId=7")
    'bucket/a.csv.s4index'
    """
    return keys.sidecar_key(path.partition(VERSION_MARK)[0])


def dictionary_path(store: Store, path: str, dictionary_id: str) -> str | None:
    """Return where a dictionary of an object stands: in its bucket; None for what is no id."""
    key = keys.dictionary_key(dictionary_id)
    return None if key is None else f"{store.split(path)[0]}/{key}"
