"""s4gateway: an S3-compatible gateway that compresses what you store, invisibly.

The names of `s4gateway.codec` are also found here, imported when they are first asked for, so that
`import s4gateway` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from s4gateway.codecs.face import *  # noqa: F403 - what __getattr__ finds


def __getattr__(name: str) -> object:
    if not name.startswith("_"):
        face = importlib.import_module("s4gateway.codecs.face")
        if name in face.__all__:
            return getattr(face, name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
