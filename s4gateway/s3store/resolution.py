"""Which data files a snapshot consists of: listed, and let through by their commit markers.

Rule: a file without a commit marker in the same listing does not exist. Of several files of one
token, the marker's metadata names the one that counts. A file and its marker on different pages of
a listing are looked at in the same way, because a retry may have come between the pages and the
file that counts may stand on neither.
"""

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from s4gateway.s3store import layout
from s4gateway.s3store.commit import Commit
from s4gateway.s3store.fan_out import fan_out
from s4gateway.s3store.patterns import Plan
from s4gateway.s3store.results import DataFile
from s4gateway.s3store.target import S3Target
from s4gateway.s3store.transport import Listed

_Slot = tuple[str, str]  # partition, token


@dataclass(slots=True)
class _Found:
    """What a listing says of one (partition, token), and on which pages."""

    files: dict[str, tuple[Listed, int]] = field(default_factory=dict)  # by attempt
    marker_page: int | None = None

    @property
    def certain(self) -> bool:
        """Whether the one file is known to be the one that counts."""
        return len(self.files) == 1 and next(iter(self.files.values()))[1] == self.marker_page


async def resolve(target: S3Target, plans: Sequence[Plan]) -> list[DataFile]:
    """Return the committed files of the plans' partitions, by partition and key.

    Costs the pages of each plan's listing and one HEAD for each token that is not certain.
    """
    calls = target.calls
    listings = await fan_out(target.telemetry, plans, lambda plan: _list(target, plan), calls.limit)
    certain: dict[_Slot, DataFile] = {}
    doubtful: dict[_Slot, dict[str, Listed]] = {}
    for listing in listings:
        for slot, found in listing.items():
            candidates = {attempt: listed for attempt, (listed, _) in found.files.items()}
            if found.certain:
                ((attempt, listed),) = candidates.items()
                certain[slot] = _data_file(slot, attempt, listed)
            elif candidates and found.marker_page is not None:
                doubtful.setdefault(slot, {}).update(candidates)
    undecided = [(slot, found) for slot, found in doubtful.items() if slot not in certain]
    chosen = await fan_out(
        target.telemetry, undecided, lambda item: _canonical(target, *item), calls.limit
    )
    files = [*certain.values(), *(file for file in chosen if file is not None)]
    return sorted(files, key=lambda file: (file.partition.encode(), file.key.encode()))


async def _list(target: S3Target, plan: Plan) -> dict[_Slot, _Found]:
    keys = target.keys
    found: dict[_Slot, _Found] = {}
    matching: dict[str, bool] = {}  # partitions of this listing
    pages = target.calls.list_pages(keys.data_root + plan.list_prefix)
    async with aclosing(pages):
        number = 0
        async for page in pages:
            number += 1
            for listed in page.objects:
                split = keys.split_data_key(listed.key)
                if split is None:
                    continue
                partition, name = split
                if partition not in matching:
                    matching[partition] = plan.matches(partition)
                if matching[partition]:
                    _note(found, partition, name, listed, number)
    return found


def _note(found: dict[_Slot, _Found], partition: str, name: str, listed: Listed, page: int) -> None:
    """Enter a data file or a commit marker; any other name is nobody's."""
    data = layout.split_data_name(name)
    if data is not None:
        token, attempt = data
        found.setdefault((partition, token), _Found()).files[attempt] = (listed, page)
    elif (committed := layout.commit_token(name)) is not None:
        found.setdefault((partition, committed), _Found()).marker_page = page


async def _canonical(
    target: S3Target, slot: _Slot, candidates: dict[str, Listed]
) -> DataFile | None:
    """The file the marker names, None when that is not listed or the marker is gone."""
    key = target.keys.commit(*slot)
    head = await target.calls.head(key)
    if head is None:
        return None
    attempt = Commit.parse(key, head.metadata).attempt
    listed = candidates.get(attempt)
    return None if listed is None else _data_file(slot, attempt, listed)


def _data_file(slot: _Slot, attempt: str, listed: Listed) -> DataFile:
    partition, token = slot
    return DataFile(listed.key, partition, token, attempt, listed.size, listed.last_modified)
