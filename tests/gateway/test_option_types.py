from s4gateway.gateway import option_types


def test_available_cores_is_at_least_one():
    assert option_types.available_cores() >= 1
