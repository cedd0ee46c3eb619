"""Which codec stands behind a number.

Two refusals are kept apart: a codec that needs a GPU build is known and named, a number without
meaning was written by a newer version. Neither ever passes a payload through as data.
"""

from typing import Final

from s4gateway.codecs import base, gzip, passthrough, zstd, zstd_dict
from s4gateway.wire.codec_id import CodecId


class Registry:
    """The codecs of this process, one instance each, shared by all threads.

    `level` is the zstd level to write with; what is read may have any.

    >>> Registry(level=3).get(CodecId.CPU_GZIP).id.label
    'cpu-gzip'
    """

    __slots__ = ("_codecs",)

    def __init__(self, level: int = zstd.DEFAULT_LEVEL) -> None:
        self._codecs: Final[dict[int, base.Codec]] = {
            CodecId.PASSTHROUGH: passthrough.Passthrough(),
            CodecId.CPU_ZSTD: zstd.Zstd(level),
            CodecId.CPU_GZIP: gzip.Gzip(),
        }

    def get(self, codec: int, dictionary: zstd_dict.ZstdDict | None = None) -> base.Codec:
        """Return the codec of this number; `dictionary` serves the dictionary frames of an object.

        CodecError: codec-unavailable, dictionary-missing, unknown-codec.
        """
        found = self._codecs.get(codec)
        if found is None:
            found = dictionary if codec == CodecId.CPU_ZSTD_DICT else None
        if found is None:
            raise _refusal(codec)
        return found


def _refusal(codec: int) -> base.CodecError:
    try:
        known = CodecId(codec)
    except ValueError:
        return base.CodecError("unknown-codec", f"{codec} was written by a newer version")
    if known.needs_gpu:
        return base.CodecError("codec-unavailable", f"{known.label} needs the GPU build")
    return base.CodecError("dictionary-missing", f"{known.label} without its dictionary")
