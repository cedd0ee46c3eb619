"""The rolling win rate of each prefix, and when it is worth a warning."""

from s4gateway.gateway.dict_monitor import QUIET_SECONDS, WINDOW, DictMonitor, Stale
from s4gateway.objects.encoding import Tried

PREFIX, OTHER = "logs/app/", "logs/db/"
OLD, NEW = "0" * 16, "1" * 16


class World:
    """A monitor, what is mapped, and a clock that stands still."""

    def __init__(self) -> None:
        self.now = 0.0
        self.mapped = {PREFIX: OLD, OTHER: OLD}
        self.monitor = DictMonitor(lambda: self.mapped, lambda: self.now)

    def record(
        self, wins: int, losses: int, prefix: str = PREFIX, dict_id: str = OLD
    ) -> list[Stale]:
        outcomes = [True] * wins + [False] * losses
        said = [self.monitor.record(Tried(prefix, dict_id, won, 100, 50, 60)) for won in outcomes]
        return [each for each in said if each is not None]


def test_a_full_window_below_half_is_warned_of():
    world = World()
    assert world.record(49, 50) == []
    assert world.record(0, 1) == [Stale(PREFIX, OLD, 0.49)]


def test_half_is_not_below_half_and_a_window_that_is_not_full_says_nothing():
    world = World()
    assert world.record(50, 50) == []
    assert world.record(0, WINDOW - 1, OTHER) == []


def test_only_the_last_hundred_count():
    world = World()
    assert world.record(300, 50) == []
    assert world.monitor.win_rates() == {PREFIX: 0.5}
    assert len(world.record(0, 1)) == 1
    assert world.record(100, 0) == []
    assert world.monitor.win_rates() == {PREFIX: 1.0}


def test_one_warning_an_hour_and_prefix():
    world = World()
    assert len(world.record(0, 500)) == 1
    assert len(world.record(0, 500, OTHER)) == 1
    world.now = QUIET_SECONDS - 1
    assert world.record(0, 500) == []
    world.now = QUIET_SECONDS
    assert len(world.record(0, 500)) == 1


def test_a_new_dictionary_begins_anew():
    world = World()
    world.record(0, WINDOW)
    world.mapped = {PREFIX: NEW}
    assert world.monitor.win_rates() == {}
    world.now = QUIET_SECONDS
    assert world.record(0, WINDOW - 1, dict_id=NEW) == []
    assert world.monitor.win_rates() == {PREFIX: 0.0}
    assert world.record(0, 1, dict_id=NEW) == [Stale(PREFIX, NEW, 0.0)]


def test_what_older_requests_report_does_not_disturb_the_new_window():
    world = World()
    world.mapped = {PREFIX: NEW}
    world.record(10, 0, dict_id=NEW)
    assert world.record(0, WINDOW, dict_id=OLD) == []
    assert world.record(0, WINDOW, "logs/gone/") == []
    assert world.monitor.win_rates() == {PREFIX: 1.0}
