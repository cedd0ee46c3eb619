"""What a deletion means for the sidecar: it is never what a listing still shows of an object.

Rule: where nothing is left at a key to be read, its sidecar is not the current version of its own
key either: else a directory that holds nothing visible would go on being listed. On a versioned
bucket it is put behind a delete marker, as its object was, and comes back when the object's marker
is removed; with the object's last version all of its own go. Deleting one version leaves the
sidecar alone as long as another version is current: it describes at most one of them, and a version
without its sidecar is read more slowly, never wrongly.

All of it is done with the gateway's own identity, and none of it fails the client's request.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/DeleteMarker.html
"""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Final

from s4gateway.objects.cache import KnownObject, ObjectName
from s4gateway.objects.sidecar import Sidecars

_AT_ONCE: Final = 16  # requests about the sidecars of one deletion of many


@dataclass(frozen=True, slots=True)
class Deletion:
    """One deletion the store has carried out.

    `of_version`: a version was named. `marker`: a delete marker was made, or removed by naming it.
    `versioned`: the bucket keeps versions, as far as the answer tells. `before` is what was known
    of the object.
    """

    name: ObjectName
    of_version: bool
    marker: bool
    versioned: bool
    before: KnownObject | None = None


async def follow(sidecars: Sidecars, deletions: Sequence[Deletion]) -> None:
    """Let the sidecars follow what was deleted; raises nothing."""
    gone: dict[ObjectName, None] = {}
    looked_at: dict[ObjectName, bool] = {}  # whether a delete marker was removed
    retired: dict[ObjectName, None] = {}
    for each in deletions:
        if each.of_version:
            looked_at[each.name] = each.marker or looked_at.get(each.name, False)
        elif each.versioned:
            retired[each.name] = None
        elif each.before is not None and each.before.indexed is False:
            sidecars.removals.add(each.name)  # another gateway may have written one since
        else:
            gone[each.name] = None
    if gone:
        await sidecars.remove(*gone)
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(work: Coroutine[None, None, None]) -> None:
        async with gate:
            await work

    works = [sidecars.retire(name) for name in retired if name not in looked_at]
    works += [_look_at(sidecars, name, came_back=back) for name, back in looked_at.items()]
    await asyncio.gather(*map(one, works))


async def _look_at(sidecars: Sidecars, name: ObjectName, *, came_back: bool) -> None:
    """Bring the sidecar to the state its object is in after versions of it were deleted."""
    if not await sidecars.has_no_object(name):
        if came_back:
            await sidecars.revive(name)
    elif not await sidecars.purge(name):
        await sidecars.retire(name)
