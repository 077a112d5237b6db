"""The examples in docstrings of c2r.torch and c2r.hf, and that every public name has a docstring and types."""

import doctest
import importlib
import inspect
import pkgutil

import pytest
from ranks import run_ranks

import c2r
import c2r.hf
import c2r.torch

MODULES = sorted(module.name for module in pkgutil.iter_modules(c2r.torch.__path__, "c2r.torch."))
WITHOUT_EXAMPLES = {"c2r.torch.exchange"}
PUBLIC = [(package, name) for package in (c2r.torch, c2r.hf) for name in package.__all__]


def run_examples(rank: int, name: str) -> None:
    module = importlib.import_module(name)
    names = {
        "torch": importlib.import_module("torch"),
        **{name: getattr(c2r.torch, name) for name in c2r.torch.__all__},
    }
    result = doctest.testmod(module, extraglobs=names, raise_on_error=True)
    assert result.attempted > 0 or name in WITHOUT_EXAMPLES


@pytest.mark.parametrize("name", [*MODULES, "c2r.hf.constrain", "c2r.hf.permute"])
def test_examples_do_what_they_say(name):
    run_ranks(1, run_examples, name)


@pytest.mark.parametrize("package, name", PUBLIC)
def test_a_public_name_has_a_docstring_and_types(package, name):
    found = getattr(package, name)
    if not callable(found):
        return
    members = [found]
    if inspect.isclass(found):
        members += [value for key, value in vars(found).items() if inspect.isfunction(value) and key[0] != "_"]
    for member in members:
        text = inspect.getdoc(member)
        assert text and "." in text, f"{member} has no docstring"
        if inspect.isfunction(member) and member.__name__ != "forward":
            told = inspect.signature(member)
            types = [told.return_annotation] + [p.annotation for p in told.parameters.values() if p.name != "self"]
            assert inspect.Signature.empty not in types, f"{member.__qualname__}{told} is not typed"


def sent_by_one_rank(rank: int) -> None:
    torch = importlib.import_module("torch")
    c2r.torch.reset_traffic()
    topk_idx = torch.tensor([[0], [1]])
    handle = c2r.torch.make_handle(topk_idx, torch.tensor([0, 1]))
    c2r.torch.dispatch(torch.ones(2, 3), torch.ones(2, 1), handle)
    assert c2r.traffic() == c2r.torch.traffic() and len(c2r.traffic()) > 0
    c2r.torch.reset_traffic()
    assert c2r.traffic() == []


def test_traffic_is_that_of_the_torch_part():
    run_ranks(2, sent_by_one_rank)
