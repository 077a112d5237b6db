#!/usr/bin/env python3
"""Everything that must hold before a change lands, in the order of what fails fastest.

Called by `make check`. Each step prints one line; a failing one prints its output and ends the run.
The last line counts the tests of all presets. Options for working on a change:

  tools/check.py --list          the steps
  tools/check.py format release  only these
"""
import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import textwrap
import time
import xml.etree.ElementTree

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
JOBS = str(len(os.sched_getaffinity(0)))
FUZZ_SECONDS = "3"  # per program; longer runs are done by hand with tools/fuzz.sh

results = []  # one JUnit file a ctest run


class StepFailed(Exception):
    pass


def run(*command, **options):
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, text=True, errors="replace",
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, **options)
    if done.returncode != 0:
        words = textwrap.shorten(" ".join(map(str, command)), 200)
        raise StepFailed(f"{done.stdout}\n{words}: exit {done.returncode}")
    return done.stdout


def tracked(*patterns):
    names = run("git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns)
    return [name for name in names.split() if (ROOT / name).exists()]


def check_format():
    run("clang-format", "--dry-run", "-Werror", *tracked("*.h", "*.cc"))


def library_commands():
    """How each file of the library and the program is compiled: (command, its sources)."""
    for command in json.loads((BUILD / "release" / "compile_commands.json").read_text()):
        unit = pathlib.Path(command["file"])
        sources = [unit]
        if unit.parent.name == "Unity":
            sources = map(pathlib.Path, re.findall(r'^#include "(.*)"', unit.read_text(), re.M))
        sources = [str(source.relative_to(ROOT)) for source in sources]
        if sources[0].startswith("c2r/") and not sources[0].endswith(("_test.cc", "_bench.cc")):
            yield command, sources


def write_lint_units():
    """Writes what clang-tidy reads, with its own compile_commands.json: the unity files joined into one
    for each job, because most of the time goes into the headers that they share. Returns all sources."""
    folder = BUILD / "tidy"
    folder.mkdir(exist_ok=True)
    joined, commands, options, seen = [], [], {}, set()
    for command, sources in library_commands():
        if seen.issuperset(sources):  # the MPI transport is compiled once for each MPI
            continue
        seen.update(sources)
        if len(sources) == 1:
            commands.append(command)
            continue
        joined += sources
        found = re.findall(r" (-(?:D|I|isystem |std=|m)\S+)", command["command"])
        options.update(dict.fromkeys(found))
    size = -(-len(joined) // int(JOBS))
    for first in range(0, len(joined), size):
        unit = folder / f"unit_{first // size}.cc"
        unit.write_text("".join("// NOLINTNEXTLINE(bugprone-suspicious-include)\n"
                                f'#include "{ROOT / source}"\n' for source in joined[first:first + size]))
        commands.append({"directory": str(folder), "file": str(unit),
                         "command": f"c++ {' '.join(options)} -Wall -Wextra -Wshadow -c {unit}"})
    (folder / "compile_commands.json").write_text(json.dumps(commands))
    return seen


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
    sources = {s for s in tracked("c2r/*.cc") if not s.endswith(("_test.cc", "_bench.cc"))}
    if missed := sources - write_lint_units():
        raise StepFailed(f"not compiled by the release preset: {', '.join(sorted(missed))}")
    try:
        run("run-clang-tidy", "-quiet", "-p", "build/tidy", "-j", JOBS)
    except StepFailed as failure:  # leave out the lines on files that are as they should be
        lines = str(failure).splitlines()
        errors = [line for line in lines if "error:" in line]
        raise StepFailed("\n".join(errors or lines[-20:])) from None


def build(preset, target="all"):
    run("cmake", "--preset", preset)
    run("cmake", "--build", "--preset", preset, "-j", JOBS, "--target", target)


def ctest(preset, *options):
    report = BUILD / preset / "junit.xml"
    report.unlink(missing_ok=True)
    try:
        run("ctest", "--preset", preset, "-j", JOBS, "--output-junit", report,
            "--test-output-size-passed", "1000000", *options)
    finally:
        if report.exists():
            results.append(report)


def check_release():
    build("release")
    ctest("release")


def check_asan():
    build("asan")
    # What runs the installed program was checked in release already, and so was what waits for time
    # limits of ranks, most of them of MPI, whose libraries sanitizers do not know.
    ctest("asan", "-E", "^(bench_transport_mpi_runs|layers|documents|consumer|cluster|transport_mpi.failures|rank_failures|command_line.ranks)$")


def check_tsan():
    build("tsan", "threaded_tests")
    ctest("tsan", "-L", "threaded")


def check_fuzz():
    run("tools/fuzz.sh", FUZZ_SECONDS)


STEPS = {"format": check_format, "release": check_release, "tidy": check_tidy,
         "asan": check_asan, "tsan": check_tsan, "fuzz": check_fuzz}


def data_is_present():
    cache = (BUILD / "release" / "CMakeCache.txt").read_text()
    line = next(line for line in cache.splitlines() if line.startswith("C2R_DATA_DIR:"))
    return pathlib.Path(line.split("=", 1)[1]).is_dir()


def namespaces_are_permitted():
    # As `ip netns exec` does, which a chroot does not permit.
    return subprocess.run(["unshare", "--net", "--mount", "--propagation", "slave", "true"],
                          stderr=subprocess.DEVNULL, check=False).returncode == 0


def has_reason_to_skip(name, preset):
    if "OnRealData" in name:
        return not data_is_present()
    if name == "cluster":
        return not namespaces_are_permitted()
    if "CannotBeStarted" in name or name == "command_line.threads":
        # They limit the memory of a process, of which sanitizers need all addresses.
        return preset in ("asan", "tsan")
    if "avx512_bf16" in name:
        return "avx512_bf16" not in pathlib.Path("/proc/cpuinfo").read_text()
    return False


def count():
    """Passed and skipped tests of all runs, and what is wrong with others: they failed, or were skipped
    without a reason, whole or in part, or were not although there was one."""
    passed, skipped, wrong = 0, 0, []
    for report in results:
        preset = report.parent.name
        for case in xml.etree.ElementTree.parse(report).getroot().iter("testcase"):
            name, output = case.get("name"), case.findtext("system-out", "")
            if case.find("failure") is not None:
                wrong.append(f"{preset} {name} failed")
                continue
            is_skipped = case.find("skipped") is not None or case.get("status") != "run"
            if is_skipped:
                skipped += 1
                print(f"skipped: {preset} {name}")
            else:
                passed += 1
            if is_skipped != has_reason_to_skip(name, preset):
                wrong.append(f"{preset} {name} was{'' if is_skipped else ' not'} skipped, but should "
                             f"{'not ' if is_skipped else ''}be")
            if not is_skipped and re.search(r"^\[  SKIPPED \]|\.\.\. skipped ", output, re.MULTILINE):
                wrong.append(f"{preset} {name} skipped some of its tests")
    return passed, skipped, wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="print the steps")
    parser.add_argument("steps", nargs="*", metavar="STEP", help="default: all of them")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(STEPS))
        return 0
    unknown = set(arguments.steps) - set(STEPS)
    if unknown:
        parser.error(f"unknown step {', '.join(unknown)}; there are {', '.join(STEPS)}")
    BUILD.mkdir(exist_ok=True)

    has_failed = False
    for name in arguments.steps or STEPS:
        start = time.monotonic()
        print(f"{name:10}", end="", flush=True)
        try:
            STEPS[name]()
            print(f"ok      {time.monotonic() - start:6.1f} s", flush=True)
        except StepFailed as failure:
            print(f"FAILED  {time.monotonic() - start:6.1f} s\n{failure}", flush=True)
            has_failed = True
            break
    passed, skipped, wrong = count()
    for line in wrong:
        print(f"wrong: {line}")
    # A step that is no test, like the format, must not be lost in the count.
    num_failed = max(len(wrong), int(has_failed))
    print(f"{passed} passed, {num_failed} failed, {skipped} skipped")
    return int(num_failed > 0)


sys.exit(main())
