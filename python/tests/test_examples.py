"""The examples in docstrings."""

import doctest
import importlib
import pkgutil

import pytest
from ranks import run_ranks

import c2r.torch

MODULES = sorted(module.name for module in pkgutil.iter_modules(c2r.torch.__path__, "c2r.torch."))


def run_examples(rank: int, name: str) -> None:
    module = importlib.import_module(name)
    names = {
        "torch": importlib.import_module("torch"),
        **{name: getattr(c2r.torch, name) for name in c2r.torch.__all__},
    }
    result = doctest.testmod(module, extraglobs=names, raise_on_error=True)
    has_code = name != "c2r.torch.exchange"
    assert result.attempted > 0 or not has_code


@pytest.mark.parametrize("name", MODULES)
def test_examples_do_what_they_say(name):
    run_ranks(1, run_examples, name)
