"""Generated pages are what the program says today, and leave no setting out."""

from pathlib import Path

import pytest

from s4gateway.cli import main
from s4gateway.gateway import config
from tests.docs import generate, pages

_CLI = pages.REFERENCE / "cli.md"
_CONFIGURATION = pages.REFERENCE / "configuration.md"


@pytest.mark.parametrize("page", generate.generated(), ids=lambda page: page.name)
def test_a_generated_page_is_current(page: Path):
    assert page.read_text() == generate.generated()[page], "run `make docs`"


def test_every_setting_stands_in_exactly_one_group():
    grouped = [name for fields in generate.GROUPS.values() for name in fields]
    assert sorted(grouped) == sorted(option.field for option in config.OPTIONS)


@pytest.mark.parametrize("option", config.OPTIONS, ids=lambda option: option.key)
def test_a_setting_has_its_line_with_all_three_spellings(option: config.Option):
    flag = f"--[no-]{option.key}" if option.boolean else option.flag
    lines = [row for row in pages.rows(_CONFIGURATION) if row[0] == f"`{flag}`"]
    assert len(lines) == 1
    assert lines[0][1:3] == [f"`{option.variable}`", f"`{option.key}`"]
    assert lines[0][-1] == option.help


@pytest.mark.parametrize("option", config.OPTIONS, ids=lambda option: option.key)
def test_a_setting_stands_in_the_help_of_serve(option: config.Option):
    help_text = _CLI.read_text().partition("## s4 serve")[2].partition("\n## ")[0]
    assert f"\n  {option.flag} " in help_text
    assert f"env: {option.variable}" in " ".join(help_text.split()).replace("[ ", "[")


def test_every_command_has_its_section():
    text = _CLI.read_text()
    assert [name for name in main.COMMANDS if f"\n## s4 {name}\n" not in text] == []


def test_no_page_holds_what_only_this_machine_knows():
    by_field = {option.field: option for option in config.OPTIONS}
    for field in generate.MACHINE_DEFAULTS:
        default = config.show(by_field[field].default)
        assert f"default: {default}]" not in _CLI.read_text()
        assert f"`{default}`" not in next(
            row[4] for row in pages.rows(_CONFIGURATION) if row[0] == f"`{by_field[field].flag}`"
        )
