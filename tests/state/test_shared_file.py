"""Several gateways and one file: nothing is lost, nothing counts twice, nothing is overwritten."""

import errno
import itertools
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s4gateway.state import files, ledger, owed
from s4gateway.state.ledger import Counters, Delta
from s4gateway.state.shared_file import SharedFile, lock_path, replace_bucket
from tests.state import disk

FEW = settings(max_examples=40)  # each example makes files and synchronises them
SOUND = ledger.render({"b": Counters(50, 40, 3, 2)})


class Aside:
    """Remembers what was set aside."""

    def __init__(self) -> None:
        self.moved: list[tuple[files.StateFileError, Path]] = []

    def __call__(self, error: files.StateFileError, moved_to: Path) -> None:
        self.moved.append((error, moved_to))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.json"


Open = Callable[..., SharedFile]


@pytest.fixture
def aside() -> Aside:
    return Aside()


@pytest.fixture
def clock() -> list[float]:
    return [1000.0]


@pytest.fixture
def opened(path: Path, aside: Aside, clock: list[float]) -> Iterator[Open]:
    """Another process' way to the file, loaded."""
    with ExitStack() as stack:

        def start() -> SharedFile:
            shared = SharedFile(path, aside, lambda: clock[0])
            stack.callback(shared.close)
            shared.load()
            return shared

        yield start


@contextmanager
def _scratch(count: int) -> Iterator[tuple[Path, list[SharedFile]]]:
    """A file of its own for each example of a property."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        path = Path(folder) / "ledger.json"
        ways = [SharedFile(path, Aside(), lambda: 1000.0) for _ in range(count)]
        for each in ways:
            stack.callback(each.close)
            each.load()
        yield path, ways


small = st.integers(-20, 20)
changes = st.dictionaries(
    st.sampled_from("abc"), st.builds(Delta, small, small, small, st.integers(0, 3)), max_size=3
)


@FEW
@given(st.lists(st.tuples(st.integers(0, 2), changes), max_size=12))
def test_any_interleaving_of_changes_sums_exactly(steps: list[tuple[int, dict[str, Delta]]]):
    whole: dict[str, Delta] = {}
    with _scratch(3) as (path, ways):
        for which, deltas in steps:
            merged = ways[which].merge(deltas)
            whole = ledger.summed(whole, deltas)
            expected = {bucket: ledger.changed(ledger.EMPTY, whole[bucket]) for bucket in whole}
            assert merged.totals == expected
            assert ledger.load(path) == expected
        for each in ways:
            assert each.refresh() == (expected if steps else {})


@FEW
@given(st.lists(changes, max_size=6), st.randoms(use_true_random=False))
def test_the_order_in_which_processes_come_to_the_file_does_not_matter(
    deltas: list[dict[str, Delta]], draw: "st.DrawFn"
):
    results = []
    for order in (deltas, draw.sample(deltas, len(deltas))):  # type: ignore[attr-defined]
        with _scratch(2) as (path, ways):
            for number, each in enumerate(order):
                ways[number % 2].merge(each)
            results.append(ledger.load(path) or {})
    assert results[0] == results[1]


def test_a_subtraction_before_its_addition_loses_nothing(opened: Open):
    writer, replacer = opened(), opened()
    assert replacer.merge({"b": Delta(-1000, -400, 0)}).totals["b"] == Counters()
    assert writer.merge({"b": Delta(5000, 900, 1)}).totals["b"] == Counters(4000, 500, 1)
    assert lock_path(writer.path).stat().st_size == 0


def test_what_was_never_counted_is_forgotten_after_a_while(opened: Open, clock: list[float]):
    one = opened()
    one.merge({"b": Delta(-1000)})
    clock[0] += owed.OWED_SECONDS - 1
    one.merge({"b": Delta(-10)})  # does not make the older note last longer
    clock[0] += 2
    assert one.merge({"b": Delta(30)}).totals["b"] == Counters(30)


def test_notes_survive_the_process_that_made_them(opened: Open):
    first = opened()
    first.merge({"b": Delta(-7)})
    first.close()
    assert opened().merge({"b": Delta(10)}).totals["b"] == Counters(3)


@FEW
@given(st.binary(max_size=60))
def test_notes_that_make_no_sense_are_none(data: bytes):
    with _scratch(1) as (path, (one,)):
        lock_path(path).write_bytes(data)
        assert one.merge({"b": Delta(5)}).totals == {"b": Counters(5)}


@pytest.mark.parametrize(
    "data",
    [
        b'{"b":[1005,5,0,0,0]}',  # owing less than nothing
        b'{"b":[99999,-5,0,0,0]}',  # from a clock far ahead
        b'{"b":[900,-5,0,0,0]}',
        b'{"b":[1005,-5]}x',
        b'{"b":[1005,-5,0,0,0,0,0]}',
        b'{"b":[1005,-1e400,0,0,0]}',
        b'{"b":["1005","x",0,0,0]}',
        b"[" * 50_000,
        b" " * 2_000_000,
    ],
)
def test_forged_notes_take_nothing(opened: Open, data: bytes):
    one = opened()
    lock_path(one.path).write_bytes(data)
    assert one.merge({"b": Delta(9)}).totals == {"b": Counters(9)}


# --- bad files


@FEW
@given(st.binary(min_size=1, max_size=80))
def test_any_bytes_as_a_file_are_read_or_set_aside_and_never_overwritten(data: bytes):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.json"
        path.write_bytes(data)
        aside = Aside()
        shared = SharedFile(path, aside, lambda: 1000.0)
        shared.load()
        shared.merge({"b": Delta(1)})
        shared.close()
        kept = [moved_to.read_bytes() for _, moved_to in aside.moved]
        assert kept == ([] if data.isspace() else [data])
        assert ledger.load(path) == {"b": Counters(1)}


def test_a_sound_file_is_where_counting_goes_on(path: Path, opened: Open):
    path.write_bytes(SOUND)
    assert opened().merge({"b": Delta(-1, 1)}).totals == {"b": Counters(49, 41, 3, 2)}


def test_a_file_that_cannot_be_read_is_set_aside(
    path: Path, aside: Aside, opened: Open, monkeypatch: pytest.MonkeyPatch
):
    path.write_bytes(SOUND)
    disk.install(monkeypatch).decide = lambda name, _: errno.EIO if name == "read" else None
    assert opened().load() == {}
    ((error, moved_to),) = aside.moved
    assert isinstance(error, files.StateFileRead)
    assert moved_to.read_bytes() == SOUND


def test_a_file_that_breaks_under_a_running_gateway_is_made_anew_from_what_it_knows(
    path: Path, aside: Aside, opened: Open
):
    one, other = opened(), opened()
    one.merge({"b": Delta(5)})
    other.merge({"b": Delta(1)})
    path.write_bytes(b"half a fi")
    assert one.refresh() == {"b": Counters(5)}
    assert path.read_bytes() == b"half a fi"
    other.merge({"b": Delta(1)})
    assert [moved_to.read_bytes() for _, moved_to in aside.moved] == [b"half a fi"]
    assert one.merge({"b": Delta(3)}).totals == {"b": Counters(10)}


@pytest.mark.parametrize("gone", [lambda path: path.unlink(), lambda path: path.write_bytes(b"")])
def test_a_file_that_has_gone_is_made_anew(opened: Open, gone: Callable[[Path], None]):
    one = opened()
    one.merge({"b": Delta(5)})
    gone(one.path)
    assert one.merge({"c": Delta(1)}).totals == {"b": Counters(5), "c": Counters(1)}


def test_a_read_error_under_a_running_gateway_changes_nothing(
    path: Path, aside: Aside, opened: Open, monkeypatch: pytest.MonkeyPatch
):
    one = opened()
    one.merge({"b": Delta(5)})
    calls = disk.install(monkeypatch)
    calls.decide = lambda name, _: errno.EIO if name == "read" else None
    with pytest.raises(files.StateFileRead):
        one.merge({"b": Delta(1)})
    assert aside.moved == []
    calls.decide = disk.well
    assert one.merge({"b": Delta(1)}).totals == {"b": Counters(6)}


@pytest.mark.parametrize("wrong", [errno.ENOSPC, errno.EIO, -errno.EIO])
def test_whatever_call_fails_a_change_that_is_repeated_counts_once(
    opened: Open, monkeypatch: pytest.MonkeyPatch, wrong: int
):
    one, other = opened(), opened()
    one.merge({"b": Delta(100)})
    calls = disk.install(monkeypatch)
    failed = 0
    for at in itertools.count(1):
        calls.calls.clear()
        calls.decide = lambda _name, number, at=at: wrong if number == at else None
        try:
            one.merge({"b": Delta(10)})
        except files.StateFileError:
            calls.decide = disk.well
            one.merge({"b": Delta(10)})
            failed += 1
        if len(calls.calls) < at:
            break
        calls.decide = disk.well
        assert other.merge({"b": Delta(1)}).totals == {"b": Counters(100 + 11 * at)}
    assert failed > 7


# --- places


def test_places_that_cannot_hold_a_state_are_refused(tmp_path: Path, aside: Aside):
    with pytest.raises(files.StateFileError, match="is a directory"):
        SharedFile(tmp_path, aside)
    with pytest.raises(files.StateFileError, match="not a regular file"):
        SharedFile(Path("/dev/null"), aside)
    with pytest.raises(files.StateFileError, match="No such file or directory"):
        SharedFile(tmp_path / "none" / "ledger.json", aside)
    with pytest.raises(files.StateFileError, match="File name too long"):
        SharedFile(tmp_path / ("x" * 300), aside)
    with pytest.raises(files.StateFileError):
        SharedFile(Path("/proc/ledger.json"), aside)


def test_a_link_goes_on_leading_to_the_file(tmp_path: Path, aside: Aside):
    (tmp_path / "data").mkdir()
    link = tmp_path / "ledger.json"
    link.symlink_to(tmp_path / "data" / "real.json")
    shared = SharedFile(link, aside)
    shared.load()
    shared.merge({"b": Delta(5)})
    shared.close()
    assert link.is_symlink()
    assert ledger.load(tmp_path / "data" / "real.json") == {"b": Counters(5)}


# --- corrected from outside


def test_one_buckets_counters_are_replaced_under_a_running_gateway(opened: Open):
    one = opened()
    one.merge({"a": Delta(1), "b": Delta(-9, 1)})
    replace_bucket(one.path, "b", Counters(70, 60, 5))
    assert one.refresh() == {"a": Counters(1), "b": Counters(70, 60, 5)}
    assert one.merge({"b": Delta(1, 1, 1)}).totals["b"] == Counters(71, 61, 6)


def test_counters_that_are_not_what_was_expected_are_left(path: Path):
    replace_bucket(path, "b", Counters(1))
    assert not replace_bucket(path, "b", Counters(2), expected=Counters(3))
    assert ledger.load(path) == {"b": Counters(1)}
    assert replace_bucket(path, "b", Counters(2), expected=Counters(1))
    assert replace_bucket(path, "new", Counters(5), expected=Counters())
    assert ledger.load(path) == {"b": Counters(2), "new": Counters(5)}


def test_replacing_makes_the_file_and_leaves_what_is_no_state(path: Path):
    replace_bucket(path, "b", Counters(1))
    assert ledger.load(path) == {"b": Counters(1)}
    path.write_bytes(b"not a state")
    with pytest.raises(files.StateFileParse):
        replace_bucket(path, "b", Counters(2))
    assert path.read_bytes() == b"not a state"
