"""The ASGI application: probes, and everything else is S3.

Plain ASGI on the data path: routing and request objects of a framework would cost as much per small
request as verifying its signature does.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from s4gateway.backend.base import Backend
from s4gateway.backend.conditional import ConditionalWrites
from s4gateway.codecs.dispatcher import Dispatcher
from s4gateway.codecs.registry import Registry
from s4gateway.gateway.config import GatewayConfig
from s4gateway.gateway.context import Services
from s4gateway.gateway.dict_monitor import DictMonitor
from s4gateway.gateway.exchange import Exchange
from s4gateway.gateway.generation import GenerationHolder
from s4gateway.gateway.metrics import Metrics
from s4gateway.gateway.observed import ObservedBackend
from s4gateway.objects.accounting import Accounts, NullAccounts
from s4gateway.objects.budget import ByteBudget
from s4gateway.objects.cache import AttributeCache, IndexCache
from s4gateway.objects.completion import Completer, Objects
from s4gateway.objects.copying import ObjectCopier
from s4gateway.objects.dictionary_store import DictionaryStore
from s4gateway.objects.encoding import Workshop
from s4gateway.objects.frame_cache import FrameCache
from s4gateway.objects.lanes import Lanes
from s4gateway.objects.ledger_accounts import LedgerAccounts
from s4gateway.objects.listing import Sizer
from s4gateway.objects.parts import PartWriter
from s4gateway.objects.reader import ObjectReader
from s4gateway.objects.sidecar import Sidecars
from s4gateway.objects.sidecar_slot import Books
from s4gateway.objects.uploads import Uploads
from s4gateway.objects.version_listing import VersionSizer
from s4gateway.objects.writer import ObjectWriter
from s4gateway.state.live_ledger import LiveLedger

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class S4App:
    """One gateway over one backend; `startup` before the first request, `shutdown` after the last.

    `draining` is set by the server when it stops; `in_flight` counts requests being answered.
    """

    def __init__(
        self,
        backend: Backend,
        config: GatewayConfig,
        metrics: Metrics,
        generations: GenerationHolder,
        ledger: LiveLedger | None = None,
    ) -> None:
        backend = ObservedBackend(backend, metrics)
        self.draining = False
        self.in_flight = 0
        self._lanes = Lanes(config.codec_threads)
        budget = ByteBudget(config.memory_budget_bytes)
        spool = config.spool_dir
        codecs = Registry(config.zstd_level)
        profile = config.backend_profile
        workshop = Workshop(self._lanes, budget, codecs, spool, profile.checksums.algorithm)
        attributes = AttributeCache()
        self._conditional = ConditionalWrites(backend, profile.conditional_writes)
        self._sidecars = Sidecars(backend, IndexCache(), self._lanes)
        self._frames = FrameCache(self._lanes.disk, spool, config.frame_cache_bytes)
        sizer = Sizer(backend, attributes, config.listing_head_concurrency)
        accounts: Accounts = NullAccounts(self._sidecars)
        if ledger is not None:
            books = Books(backend, self._sidecars, attributes.tails, self._conditional)
            accounts = LedgerAccounts(ledger, books)
        writer = ObjectWriter(self._sidecars, attributes, self._conditional, accounts)
        dispatcher = Dispatcher(config.codec, config.dispatcher.value)
        uploads = Uploads(backend, uniform=profile.uniform_parts)
        dictionaries = DictionaryStore(
            backend,
            self._lanes.codec,
            lambda: generations.current.dictionaries,
            metrics.dictionaries.fetch,
        )
        reader = ObjectReader(workshop, self._sidecars, attributes, self._frames, dictionaries)
        objects = Objects(reader, writer, self._sidecars, attributes)
        self._completer = Completer(workshop, backend, uploads, objects)
        services = Services(
            config=config,
            backend=backend,
            workshop=workshop,
            dispatcher=dispatcher,
            attributes=attributes,
            conditional=self._conditional,
            sidecars=self._sidecars,
            reader=reader,
            writer=writer,
            completer=self._completer,
            copier=ObjectCopier(backend, self._sidecars, attributes, writer, dictionaries),
            sizer=sizer,
            uploads=uploads,
            parts=PartWriter(uploads, workshop, dispatcher),
            version_sizer=VersionSizer(sizer, attributes),
        )
        monitor = DictMonitor(lambda: generations.current.dictionaries.ids)
        if config.zstd_dict or config.zstd_dict_map is not None:
            metrics.dictionaries.show(monitor.win_rates)
        self._exchange = Exchange(services, metrics, generations, monitor)
        metrics.watch_memory(lambda: budget.used, lambda: budget.limit)

    async def startup(self) -> None:
        """Nothing needs to run before the first request."""

    async def shutdown(self) -> None:
        """Finish what was put off and stop the threads."""
        await self._completer.close()
        await self._conditional.close()
        await self._sidecars.close()
        self._frames.close()
        self._lanes.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        self.in_flight += 1
        try:
            await self._exchange.run(scope, receive, send)
        finally:
            self.in_flight -= 1
