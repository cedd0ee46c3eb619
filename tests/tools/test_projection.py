"""Projections from samples: right on average, and as far off as they say."""

import math
import random

import pytest

from s4gateway.tools.projection import NORMAL_95, Sample
from s4gateway.tools.storage_classes import CLASSES
from s4gateway.tools.strata import Strata
from s4gateway.tools.walk import Listed


def test_without_a_sample_nothing_shrinks():
    found = Sample().project(1000, 0.5)
    assert (found.stored, found.variance) == (1000, 0)


def test_what_was_looked_at_whole_is_added_up():
    sample = Sample()
    sample.add(100, 10.0)
    sample.add(300, 290.0)
    found = sample.project(400, None)
    assert (found.stored, found.variance) == (300, 0)


def test_one_object_leaves_everything_open():
    sample = Sample()
    sample.add(100, 10.0)
    found = sample.project(1000, 0.01)
    assert (found.stored, math.sqrt(found.variance)) == (100, 1000)


@pytest.mark.parametrize("spread", [0.5, 2.0])
def test_projections_are_right_on_average_and_their_margin_holds(spread: float):
    """Objects of one kind whose sizes and ratios differ widely, drawn 100 times."""
    draw = random.Random(8)
    sizes = [int(draw.lognormvariate(9, spread)) + 1 for _ in range(600)]
    stored = {f"{n}": size * draw.choice([0.1, 0.3, 1.0]) for n, size in enumerate(sizes)}
    total, truth = sum(sizes), sum(stored.values())
    errors, held = [], 0
    for seed in range(100):
        strata = Strata(CLASSES["STANDARD"], seed, 61)
        for number, size in enumerate(sizes):
            strata.add(Listed(f"{number}", size, "e", None))
        *looked, beyond = strata.sorted()[0].drawn
        sample = Sample()
        for each in looked:
            sample.add(each.entry.size, stored[each.entry.key])
        found = sample.project(total, beyond.rank)
        errors.append(found.stored - truth)
        held += abs(errors[-1]) <= NORMAL_95 * math.sqrt(found.variance)
    assert abs(sum(errors) / len(errors)) < 0.02 * truth
    assert held >= 0.85 * len(errors)
