"""The Python of docs/python.md runs, block after block, as one process."""

import pathlib
import re

from ranks import run_ranks

DOCUMENT = pathlib.Path(__file__).parents[2] / "docs" / "python.md"


def run_blocks(rank: int) -> int:
    names: dict = {}
    blocks = re.findall(r"^```python\n(.*?)^```", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    for block in blocks:
        exec(block, names)  # noqa: S102 - our own document
    return len(blocks)


def test_the_document_does_what_it_says():
    assert run_ranks(1, run_blocks) == [4]
