"""``python -m c2r ...``: the command line, as the program c2r of this package."""

import os
import pathlib
import sys


def main():
    program = pathlib.Path(__file__).with_name("c2r")
    if not program.exists():
        sys.exit(f"python -m c2r: the program {program} is missing; pip install . of the repository puts it there")
    os.execv(program, ["c2r", *sys.argv[1:]])


if __name__ == "__main__":
    main()
