"""What a deletion means for the sidecar: it is never what a listing still shows of an object.

Rule: where nothing is left at a key to be read, its sidecar is not the current version of its own
key either: else a directory that holds nothing visible would go on being listed. On a versioned
bucket it is put behind a delete marker, as its object was, and comes back when the object's marker
is removed. Deleting one version leaves the sidecar alone as long as another version is current: it
describes at most one of them, and a version without its sidecar is read more slowly, never wrongly.

All of it is done with the gateway's own identity, and none of it fails the client's request.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/DeleteMarker.html
"""

import asyncio
from collections.abc import Sequence
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
    others: dict[tuple[ObjectName, bool, bool], Deletion] = {}
    for each in deletions:
        if each.of_version or each.versioned:
            others[each.name, each.of_version, each.marker] = each
        elif each.before is not None and each.before.indexed is False:
            sidecars.removals.add(each.name)  # another gateway may have written one since
        else:
            gone[each.name] = None
    if gone:
        await sidecars.remove(*gone)
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(deletion: Deletion) -> None:
        async with gate:
            await _follow(sidecars, deletion)

    await asyncio.gather(*map(one, others.values()))


async def _follow(sidecars: Sidecars, deletion: Deletion) -> None:
    name = deletion.name
    if not deletion.of_version:
        await sidecars.retire(name)
    elif deletion.marker:
        await sidecars.revive(name)
    elif await sidecars.has_no_object(name):
        await sidecars.retire(name)
