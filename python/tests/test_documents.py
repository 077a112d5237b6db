"""The Python of the documents runs, block after block, as one process."""

import os
import pathlib
import re

import pytest
from ranks import run_ranks

ROOT = pathlib.Path(__file__).parents[2]


def run_blocks(rank: int, name: str) -> int:
    os.chdir(ROOT)
    names: dict = {}
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / name).read_text(), re.MULTILINE | re.DOTALL)
    for block in blocks:
        exec(block, names)  # noqa: S102 - our own document
    return len(blocks)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_python_md_does_what_it_says():
    pytest.importorskip("c2r._c2r", reason="pip install . builds the extension module and the program")
    assert run_ranks(1, run_blocks, "python.md") == [5]


def test_huggingface_md_does_what_it_says():
    pytest.importorskip("transformers", minversion="5.23")
    pytest.importorskip("c2r._c2r", reason="pip install . builds the extension module and the program")
    assert run_ranks(1, run_blocks, "huggingface.md", timeout_s=300) == [1]
