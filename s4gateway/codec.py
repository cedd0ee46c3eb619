"""`s4gateway.codec`: the stored format for programs, under its guaranteed name.

>>> from s4gateway import codec
>>> codec.frame_iter(codec.encode_s4_object(b"hello" * 100)["body"])[0][0]["original_size"]
500
"""

from s4gateway.codecs import face
from s4gateway.codecs.face import *  # noqa: F403 - the face is one list of names, kept in one place

__all__ = face.__all__
