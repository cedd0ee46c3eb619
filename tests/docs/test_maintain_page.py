"""The page about policies shows one that is valid, and names every key in the actions it is for."""

import tomllib

from s4gateway.tools import rules
from tests.docs import pages

_PAGE = pages.DOCS / "how-to" / "maintain-a-bucket.md"


def test_the_policy_that_is_shown_is_valid():
    (block,) = [block for block in pages.blocks(_PAGE) if "policy" in block.words]
    problems: list[str] = []
    found = rules.parse_table(tomllib.loads(block.text), problems)
    assert problems == []
    assert [rule.action for rule in found] == list(rules.KEYS)


def test_every_key_has_its_line_with_the_actions_that_have_it():
    shown: dict[str, set[str]] = {}
    for key, where, *_ in pages.rows(_PAGE, "Write the policy"):
        if key.startswith("`"):
            named = pages.words_in_code(where)
            every = set(rules.KEYS) if where.startswith("all") else set()
            shown[key.strip("`")] = every - named if every else named
    declared = {key for keys in rules.KEYS.values() for key in keys}
    assert shown == {
        key: {action for action, keys in rules.KEYS.items() if key in keys} for key in declared
    }
