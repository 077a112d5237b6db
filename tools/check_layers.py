#!/usr/bin/env python3
"""Fails if a module includes one that is not below it, a private header of another module or in an
installed header, or a system header that is not its own.

What is below a module is stated once, as the DEPS of its c2r_module() in CMake. The table of
docs/architecture.md must say the same.
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
FENCED = {  # header prefix -> the only folders that may include it
    "mpi.h": ("c2r/transport/mpi",),
    "nccl.h": ("c2r/transport/nccl",),
    "cuda": ("c2r/core/cuda", "c2r/routing/cuda", "c2r/dispatch/cuda", "c2r/experts/cuda"),
    "cublas": ("c2r/experts/cublas",),
    "iostream": ("c2r/cli",),
}
# Whose headers only their own module includes, besides tests; none of them is installed.
PRIVATE = re.compile(r"_internal\.h$|-inl\.h$|^c2r/placement/search/")
INCLUDE = re.compile(r'^\s*#\s*include\s+[<"]([^>"]+)[>"]')
TEST = re.compile(r"_(test|bench)\.cc$|testing\w*\.h$")


def after(keyword, words):
    """The words between a keyword of c2r_module() and the next."""
    rest = words[words.index(keyword) + 1:] if keyword in words else []
    return rest[:next((at for at, word in enumerate(rest) if word.isupper()), len(rest))]


def allowed_by_cmake():
    """{module: (what it may include, what its tests may include)}, of the folders right below c2r/."""
    allowed = {}
    for path in (ROOT / "CMakeLists.txt", *sorted((ROOT / "cmake").glob("*.cmake"))):
        text = re.sub(r"#.*", "", path.read_text())
        for name, arguments in re.findall(r"\bc2r_module\((\w+)\s*([^)]*)\)", text):
            words = arguments.split()
            if "FOLDER" in words:
                continue
            deps = {"core", *after("DEPS", words)}
            allowed[name] = (deps, deps | set(after("TEST_DEPS", words)))
    return allowed


def violations(path, allowed):
    """Of a path below ROOT."""
    module = path.parts[1]
    if module not in allowed:
        yield f"{path}: the folder {module} is no c2r_module() of CMakeLists.txt"
        return
    is_test = bool(TEST.search(str(path)))
    is_public = path.suffix == ".h" and not is_test and not PRIVATE.search(str(path))
    for number, line in enumerate((ROOT / path).read_text().splitlines(), 1):
        match = INCLUDE.match(line)
        if not match:
            continue
        target = match[1]
        if target.startswith("c2r/"):
            other = target.split("/")[1]
            if other not in {module, *allowed[module][is_test]}:
                yield f"{path}:{number}: {module} must not include {other} ({target})"
            elif other != module and PRIVATE.search(target) and not is_test:
                yield f"{path}:{number}: {target} is private to {other}"
            elif is_public and PRIVATE.search(target):
                yield f"{path}:{number}: {target} is private, but this header is installed"
        for prefix, folders in FENCED.items():
            if target.startswith(prefix) and not str(path).startswith(folders):
                yield f"{path}:{number}: only {' or '.join(folders)} may include <{target}>"


def table_differences(allowed):
    """Where the table of the document says something else."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    table = dict(re.findall(r"^\| `c2r/(\w+)` \|.*\|([^|]*)\|$", text, re.M))
    for module in sorted(allowed.keys() | table.keys()):
        if module not in allowed or module not in table:
            yield f"docs/architecture.md: {module} is only in {'CMake' if module in allowed else 'the table'}"
            continue
        said = set(re.findall(r"\w+", table[module]))
        if said | {"core"} != allowed[module][0] | {"core"}:
            yield (f"docs/architecture.md: {module} may include {' '.join(sorted(said))}, "
                   f"but its DEPS are {' '.join(sorted(allowed[module][0]))}")


def main():
    paths = sorted(p.relative_to(ROOT) for p in (ROOT / "c2r").rglob("*.*"))
    allowed = allowed_by_cmake()
    if not paths or len(allowed) < 10:
        sys.exit(f"{sys.argv[0]}: there are {len(paths)} files and {len(allowed)} modules in {ROOT / 'c2r'}")
    found = [v for p in paths for v in violations(p, allowed)] + list(table_differences(allowed))
    print("\n".join(found) or "layers: ok")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
