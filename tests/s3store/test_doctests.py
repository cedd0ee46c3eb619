"""The examples in the docstrings run."""

import doctest
import importlib
import pkgutil

import pytest

from s4gateway import s3store

_MODULES = [f"s4gateway.s3store.{each.name}" for each in pkgutil.iter_modules(s3store.__path__)]


@pytest.mark.parametrize("name", _MODULES)
def test_the_examples_of_a_module_run(name: str):
    found = doctest.testmod(importlib.import_module(name))
    assert found.failed == 0
