"""Every public name has types and a docstring, and the examples of docstrings do what they say."""

import ast
import doctest
import inspect
import pathlib

import numpy as np
import pytest

import c2r
import c2r._numpy

PACKAGE = pathlib.Path(c2r.__file__).parent
STUB = ast.parse((PACKAGE / "_c2r.pyi").read_text())


def public_names():
    """'Trace', 'Trace.topk_idx', 'plan', ..."""
    for name in [*c2r._numpy.__all__, "traffic"]:
        yield name
        if inspect.isclass(getattr(c2r, name)):
            yield from (f"{name}.{member}" for member in vars(getattr(c2r, name)) if not member.startswith("_"))


def find(name):
    found = c2r
    for part in name.split("."):
        found = inspect.getattr_static(found, part) if inspect.isclass(found) else getattr(found, part)
    return found


def definitions(name):
    """What the stub says about a name of the extension module: one or more overloads."""
    owner, _, member = name.rpartition(".")
    body = STUB.body
    if owner:
        (body,) = (node.body for node in STUB.body if isinstance(node, ast.ClassDef) and node.name == owner)
    return [node for node in body if getattr(node, "name", None) == member]


def is_of_extension(name):
    return getattr(c2r, name.split(".")[0]).__module__ == "c2r._c2r"


NAMES = sorted(public_names())
FUNCTIONS = [name for name in NAMES if callable(find(name)) and not inspect.isclass(find(name))]


def test_the_package_says_that_it_is_typed():
    assert (PACKAGE / "py.typed").exists()


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_has_a_docstring(name):
    text = inspect.getdoc(find(name))
    assert text, f"c2r.{name} has no docstring"
    first = text.split("\n\n", 1)[1] if is_of_extension(name) and name in FUNCTIONS else text  # after the signature
    assert first.strip()[0].isupper() and "." in first


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_says_what_it_takes_returns_and_raises(name):
    text = inspect.getdoc(find(name))
    has_arguments, returns_nothing = signature(name)
    assert ("Args:" in text) == has_arguments
    assert ("Returns:" in text) != returns_nothing
    if has_arguments:
        assert "Raises:" in text


def signature(name):
    """Whether it takes arguments besides self, and whether it returns nothing."""
    if is_of_extension(name):
        arguments = definitions(name)[0].args
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        return [a.arg for a in every] not in ([], ["self"]), ast.unparse(definitions(name)[0].returns) == "None"
    told = inspect.signature(find(name))
    return bool(told.parameters), told.return_annotation is None


@pytest.mark.parametrize("name", [name for name in NAMES if is_of_extension(name)])
def test_the_stub_types_what_the_extension_module_has(name):
    nodes = definitions(name)
    assert nodes, f"_c2r.pyi does not know {name}"
    for node in nodes:
        if isinstance(node, ast.ClassDef):
            continue
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        assert all(argument.annotation for argument in arguments if argument.arg != "self"), ast.unparse(node)
        assert ast.unparse(node.returns) not in ("object", "Any", "list", "tuple"), ast.unparse(node)


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if not is_of_extension(name)])
def test_a_function_of_the_package_is_typed(name):
    told = inspect.signature(find(name))
    assert told.return_annotation is not inspect.Signature.empty
    for parameter in told.parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty, f"{parameter} of c2r.{name} has no type"


@pytest.mark.parametrize("name", [name for name in NAMES if ">>>" in (inspect.getdoc(find(name)) or "")])
def test_the_example_of_a_docstring_does_what_it_says(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    example = doctest.DocTestParser().get_doctest(inspect.getdoc(find(name)), {"c2r": c2r, "np": np}, name, None, 0)
    said = []
    result = doctest.DocTestRunner().run(example, out=said.append)
    assert result.attempted > 0 and result.failed == 0, "".join(said)


def test_what_is_worth_an_example_has_one():
    with_example = {name for name in NAMES if ">>>" in (inspect.getdoc(find(name)) or "")}
    without = {name for name in NAMES if "." not in name} - with_example
    assert without == {"load_statistics", "traffic"}  # which CollaborationStatistics and c2r.torch show
