"""The step "tidy" of tools/check.py: clang-tidy on the sources of the library and the program.

Sources that passed before and have not changed since are left out: a source has changed if its text, a
header of the tree that it includes, its options, .clang-tidy or the version of clang-tidy has. Where
nothing was checked before, as in continuous integration, all are read. Headers of the system are taken
to be those of last time: remove build/tidy after an upgrade.
"""
import functools
import hashlib
import json
import pathlib
import re

from commands import BUILD, JOBS, ROOT, StepFailed, run, tracked

FOLDER = BUILD / "tidy"
PASSED = FOLDER / "passed.json"  # {source: digest}
NOT_READ = ("_test.cc", "_bench.cc", "c2r/cli/cuda/main.cc")  # one main function is read


def library_sources():
    """{source: (how the release preset compiles it, whether together with others)}, without tests."""
    sources = {}
    for command in json.loads((BUILD / "release" / "compile_commands.json").read_text()):
        unit = pathlib.Path(command["file"])
        together = unit.parent.name == "Unity"
        texts = re.findall(r'^#include "(.*)"', unit.read_text(), re.M) if together else [unit]
        for text in texts:
            source = str(pathlib.Path(text).relative_to(ROOT))
            if source.startswith("c2r/") and not source.endswith(NOT_READ):
                sources.setdefault(source, (command, together))  # once, not for each MPI
    return sources


def options_of(command):
    found = re.findall(r" (-(?:D|I|isystem |std=|m)\S+)", command["command"])
    return [option for option in found if not option.startswith("-DC2R_COMMIT")]


@functools.cache
def included(name):
    """The headers of the tree that a file includes itself."""
    names = re.findall(r'^\s*#\s*include "(c2r/[^"]+)"', (ROOT / name).read_text(), re.M)
    return [header for header in names if (ROOT / header).exists()]


@functools.cache
def digest_of_text(name):
    return hashlib.sha256((ROOT / name).read_bytes()).hexdigest()


def digest(source, command, rules):
    names, todo = set(), [source]
    while todo:
        name = todo.pop()
        if name not in names:
            names.add(name)
            todo += included(name)
    parts = [rules, *options_of(command), *(name + digest_of_text(name) for name in sorted(names))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def write_units(sources):
    """Writes what clang-tidy reads, with its own compile_commands.json: the sources of unity files joined
    into one file for each job, because most of the time goes into the headers that they share."""
    joined = [source for source, (_, together) in sources.items() if together]
    commands = [command for command, together in sources.values() if not together]
    options = list(dict.fromkeys(option for command, together in sources.values() if together
                                 for option in options_of(command)))
    size = max(1, -(-len(joined) // int(JOBS)))
    for first in range(0, len(joined), size):
        unit = FOLDER / f"unit_{first // size}.cc"
        unit.write_text("".join("// NOLINTNEXTLINE(bugprone-suspicious-include)\n"
                                f'#include "{ROOT / source}"\n' for source in joined[first:first + size]))
        commands.append({"directory": str(FOLDER), "file": str(unit),
                         "command": f"c++ {' '.join(options)} -Wall -Wextra -Wshadow -c {unit}"})
    (FOLDER / "compile_commands.json").write_text(json.dumps(commands))


def unused_names():
    """Using declarations and namespace aliases that their file does not use. clang-tidy looks for
    them in the main file alone, and ours are included in unity files."""
    for source in tracked("*.cc"):
        text = re.sub(r"//.*|#include.*", "", (ROOT / source).read_text())
        for declared in re.finditer(r"^ *(?:using [\w:]*?(\w+)|namespace (\w+) = .*);", text, re.M):
            name = declared[1] or declared[2]
            if not re.search(rf"\b{name}\b", text[:declared.start()] + text[declared.end():]):
                yield f"{source}: error: '{name}' is declared, but not used"


def check_tidy():
    if unused := list(unused_names()):
        raise StepFailed("\n".join(unused))
    sources = library_sources()
    expected = {source for source in tracked("c2r/*.cc") if not source.endswith(NOT_READ)}
    if missed := expected - sources.keys():
        raise StepFailed(f"not compiled by the release preset: {', '.join(sorted(missed))}")
    FOLDER.mkdir(exist_ok=True)
    rules = run("clang-tidy", "--version") + (ROOT / ".clang-tidy").read_text()
    digests = {source: digest(source, command, rules) for source, (command, _) in sources.items()}
    passed = json.loads(PASSED.read_text()) if PASSED.exists() else {}
    changed = {source: how for source, how in sources.items() if passed.get(source) != digests[source]}
    write_units(changed)
    if changed:
        read_units()
    PASSED.write_text(json.dumps(digests, indent=0))


def read_units():
    try:
        run("run-clang-tidy", "-quiet", "-p", "build/tidy", "-j", JOBS)
    except StepFailed as failure:  # leave out the lines on files that are as they should be
        lines = str(failure).splitlines()
        errors = [line for line in lines if "error:" in line]
        raise StepFailed("\n".join(errors or lines[-20:])) from None
