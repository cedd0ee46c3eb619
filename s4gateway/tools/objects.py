"""How a tool reads and writes objects: the same reader and writer the gateway has, for one run.

Rule: there is one way to write an object and one to read it. A tool serves no client, so it has its
own threads and a byte budget of its own, and its caches end with it; it counts what it writes only
where a ledger is given to it.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from s4gateway.backend.base import Backend
from s4gateway.backend.conditional import ConditionalWrites
from s4gateway.codecs.dispatcher import Dispatcher
from s4gateway.codecs.registry import Registry
from s4gateway.objects.accounting import Ledger
from s4gateway.objects.budget import ByteBudget
from s4gateway.objects.cache import AttributeCache, IndexCache
from s4gateway.objects.dictionary_store import DictionaryStore
from s4gateway.objects.encoding import Workshop
from s4gateway.objects.frame_cache import FrameCache
from s4gateway.objects.lanes import Lanes
from s4gateway.objects.ledger_accounts import LedgerAccounts
from s4gateway.objects.part_sending import LARGEST, PART_SIZE
from s4gateway.objects.reader import ObjectReader
from s4gateway.objects.sidecar import Sidecars
from s4gateway.objects.sidecar_slot import Books
from s4gateway.objects.writer import ObjectWriter
from s4gateway.wire.codec_id import CodecId

_MEMORY: Final = 256 * 1024 * 1024  # bytes of bodies held at once
_KEYS: Final = 10_000  # objects a run remembers: it comes by each of them once
_INDEX_BYTES: Final = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Making:
    """What a tool may choose: threads, the zstd level of what it writes, where it spools.

    `memory` bytes of bodies are held at once; bodies above `largest` are written in parts of
    `part_size`.
    """

    threads: int
    zstd_level: int = 3
    codec: CodecId = CodecId.CPU_ZSTD
    spool: Path | None = None
    memory: int = _MEMORY
    conditional_writes: bool | None = None
    largest: int = LARGEST
    part_size: int = PART_SIZE


@dataclass(frozen=True, slots=True)
class Objects:
    """Objects over one store."""

    backend: Backend
    workshop: Workshop
    dispatcher: Dispatcher
    attributes: AttributeCache
    conditional: ConditionalWrites
    sidecars: Sidecars
    reader: ObjectReader
    writer: ObjectWriter


@asynccontextmanager
async def open_objects(
    backend: Backend, making: Making, ledger: Ledger | None = None
) -> AsyncIterator[Objects]:
    """Have a reader and a writer over `backend` while the block runs; `ledger` counts writes."""
    lanes = Lanes(making.threads)
    workshop = Workshop(
        lanes, ByteBudget(making.memory), Registry(making.zstd_level), making.spool, None
    )
    attributes = AttributeCache(_KEYS)
    conditional = ConditionalWrites(backend, making.conditional_writes)
    sidecars = Sidecars(backend, IndexCache(_INDEX_BYTES), lanes)
    frames = FrameCache(lanes.disk, making.spool, 0)
    dictionaries = DictionaryStore(backend, lanes.codec)
    reader = ObjectReader(workshop, sidecars, attributes, frames, dictionaries)
    accounts = None
    if ledger is not None:
        books = Books(backend, sidecars, attributes.tails, conditional)
        accounts = LedgerAccounts(ledger, books)
    writer = ObjectWriter(
        sidecars,
        attributes,
        conditional,
        accounts,
        largest=making.largest,
        part_size=making.part_size,
    )
    try:
        yield Objects(
            backend=backend,
            workshop=workshop,
            dispatcher=Dispatcher(making.codec),
            attributes=attributes,
            conditional=conditional,
            sidecars=sidecars,
            reader=reader,
            writer=writer,
        )
    finally:
        await conditional.close()
        await sidecars.close()
        frames.close()
        lanes.close()
