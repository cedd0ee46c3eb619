import dataclasses

from s4gateway.gateway import config
from s4gateway.gateway.config import GatewayConfig


def test_every_field_is_an_option_with_help_and_three_spellings():
    fields = [field.name for field in dataclasses.fields(GatewayConfig)]
    assert [option.field for option in config.OPTIONS] == fields
    for option in config.OPTIONS:
        assert option.help.endswith(".")
        assert option.flag == "--" + option.key
        assert option.variable == "S4_" + option.field.upper()
        assert option.boolean or option.metavar
