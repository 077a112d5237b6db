#!/usr/bin/env python3
"""Writes one broken file for each check of the loaders.

usage: make_files.py FOLDER WELL_FORMED_FOLDER

The files are made here, not stored, so that binary ones can be reviewed as text. expected.tsv has
the loader and the message of each. The second folder gets what they are made from, before it is
broken; the fuzzers start from both.
"""
import pathlib
import sys

from files import containers, imports, loads, models, placements, plans, tokenizers, torch_files, traces

SUBJECTS = [containers, traces, imports, loads, tokenizers, models, plans, placements, torch_files]


def writer(folder):
    def write(name, data):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())

    return write


def main():
    broken, well_formed = map(pathlib.Path, sys.argv[1:])
    for subject in SUBJECTS:
        subject.write_broken(writer(broken))
        subject.write_well_formed(writer(well_formed))


if __name__ == "__main__":
    main()
