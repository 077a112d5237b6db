#!/usr/bin/env python3
"""Fails if a module includes one that is not below it, or a system header that is not its own."""
import pathlib
import re
import sys

# Each module may include itself, core and what stands to its right; nothing else.
ALLOWED = {
    "core": "", "io": "", "transport": "", "experts": "",
    "routing": "io", "tokenizer": "io",
    "collaboration": "io routing",
    "placement": "io routing collaboration",
    "plan": "io routing collaboration placement",
    "dispatch": "routing placement transport",
    "model": "io routing placement plan transport dispatch experts tokenizer",
    "engine": "io routing collaboration placement plan transport dispatch experts tokenizer model",
    "report": "io routing collaboration placement plan",
    "cli": "io routing collaboration placement plan transport dispatch experts tokenizer model "
           "engine report",
}
FENCED = {  # header prefix -> the only folders that may include it
    "mpi.h": ("c2r/transport/mpi",),
    "nccl.h": ("c2r/transport/nccl",),
    "cuda": ("c2r/core/cuda", "c2r/experts/cuda", "c2r/dispatch/cuda", "c2r/transport/nccl"),
    "iostream": ("c2r/cli",),
}
ROOT = pathlib.Path(__file__).resolve().parent.parent
INCLUDE = re.compile(r'^\s*#\s*include\s+[<"]([^>"]+)[>"]')


def violations(path):
    """Of a path below ROOT."""
    module = path.parts[1]
    if module not in ALLOWED:
        yield f"{path}: the folder {module} is not a module that {sys.argv[0]} knows"
        return
    for number, line in enumerate((ROOT / path).read_text().splitlines(), 1):
        match = INCLUDE.match(line)
        if not match:
            continue
        target = match[1]
        if target.startswith("c2r/"):
            other = target.split("/")[1]
            if other not in {module, "core", *ALLOWED[module].split()}:
                yield f"{path}:{number}: {module} must not include {other} ({target})"
        for prefix, folders in FENCED.items():
            if target.startswith(prefix) and not str(path).startswith(folders):
                yield f"{path}:{number}: only {' or '.join(folders)} may include <{target}>"


paths = sorted(p.relative_to(ROOT) for p in (ROOT / "c2r").rglob("*.*"))
if not paths:
    sys.exit(f"{sys.argv[0]}: there are no files in {ROOT / 'c2r'}")
found = [v for p in paths for v in violations(p)]
print("\n".join(found) or "layers: ok")
sys.exit(bool(found))
