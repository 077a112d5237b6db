#!/usr/bin/env python3
"""Everything that must hold before a change lands, in the order of what fails fastest.

Called by `make check`. Each step prints one line; a failing one prints its output and ends the run.
The last line counts the tests of all presets. Options for working on a change:

  tools/check.py --list          the steps
  tools/check.py format release  only these
  tools/check.py tidy            clang-tidy, which `make tidy` runs; likewise tsan
  tools/check.py --long          the steps of `make check-long`: what costs more than two minutes each
"""
import argparse
import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys
import time
import xml.etree.ElementTree

from check_tidy import check_tidy
from commands import BUILD, JOBS, ROOT, StepFailed, run, tracked

FUZZ_SECONDS = "1"  # per loader
LONG_FUZZ_SECONDS = "60"
MPI_REPEATS = "5"

results = []  # one JUnit file of each run of ctest and pytest


def check_format():
    run("clang-format", "--dry-run", "-Werror", *tracked("*.h", "*.cc"))


def build(preset, target="all"):
    run("cmake", "--preset", preset)
    run("cmake", "--build", "--preset", preset, "-j", JOBS, "--target", target)


def ctest(preset, *options, name="junit", jobs=JOBS):
    report = BUILD / preset / f"{name}.xml"
    report.unlink(missing_ok=True)
    try:
        run("ctest", "--preset", preset, "-j", jobs, "--output-junit", report,
            "--test-output-size-passed", "1000000", *options)
    finally:
        if report.exists():
            results.append(report)


# A million tokens of each model's shape; fewer tokens of more kinds are compared in every check.
LONG_TESTS = "^ManyTokens[.]"

# What sanitizers would only repeat, for minutes: installed programs and ranks (MPI's libraries do not know
# sanitizers); then searches and commands on much data, whose code other tests run on less.
# `make check-long` runs the last group with AddressSanitizer as well.
NOT_WITH_SANITIZERS = ["layers", "documents", "install", "consumer", "examples", "command_line.ranks"]
SLOW_SEARCHES = [
    "OptimizeOnRealData.*", "FrozenProblems.*", "SearchRounds.AreNeverWorse.*", "PartitionStages.ReachOnSamples.*",
    "MendPlacement.RelievesTheBusyRank.*", "Scenarios.AreBoundedByTheSearch.*"]
SLOW_TESTS = [
    *SLOW_SEARCHES, "DispatchOnRealData.*", "Goals.BalanceWithinABound.*", "Sample.DrawsWithTopPAsIf.*",
    "(dispatch.over_mpi|transport_mpi.conformance)_[34]", "command_line.(plan|program|model|engine|compare)"]


def any_of(names):
    return f"^({'|'.join(names)})$"


def keep_objects():
    """The wheel has the library of the release preset. A compiler cache in build/ compiles it only once, unless a
    folder was configured with another one."""
    settings = {"CMAKE_CXX_COMPILER_LAUNCHER": "ccache", "CCACHE_DIR": str(BUILD / "ccache"),
                "CCACHE_BASEDIR": str(ROOT),  # relative paths, which are the same from each folder of build/
                "CCACHE_IGNOREOPTIONS": "-Werror",
                "CXX": os.environ.get("CXX", "c++"),  # the wheel's build would call it g++, another name to the cache
                "CCACHE_DEPEND": "1"}  # dependencies by the compiler instead of a run of the preprocessor
    if "CMAKE_CXX_COMPILER_LAUNCHER" not in os.environ:
        os.environ.update(settings)


def check_release():
    build("release")
    # Two more, since ranks of failing runs wait for each other for minutes.
    ctest("release", "-LE", "long", "-E", LONG_TESTS, jobs=str(int(JOBS) + 2))


def check_asan():
    build("asan")
    ctest("asan", "-E", any_of([*NOT_WITH_SANITIZERS, *SLOW_TESTS]))


def check_long_asan():
    """What check_asan leaves out because it takes long."""
    build("asan")
    ctest("asan", "-R", any_of(SLOW_TESTS), "-E", any_of(NOT_WITH_SANITIZERS), name="long")


def check_tsan():
    build("tsan", "threaded_tests")
    ctest("tsan", "-L", "threaded", "-E", any_of(SLOW_TESTS))


def check_fuzz():
    run("tools/fuzz.sh", FUZZ_SECONDS)


def check_single():
    """Each file alone, which finds a forgotten include, and tests with assertions, unoptimised.

    The slow searches have theirs in check_long_asan.
    """
    build("single")
    ctest("single", "-LE", "long", "-E", any_of(SLOW_SEARCHES))


def check_headers():
    """Each public header comes first in a file, so that it includes what it uses."""
    build("release")
    prefix = BUILD / "headers"
    run("cmake", "--install", BUILD / "release", "--prefix", prefix)
    folder = next(prefix.rglob("pkgconfig"))
    names = [file.stem for file in folder.glob("c2r-transport_*.pc")]
    flags = run("pkg-config", "--cflags", "c2r", *names, env={"PATH": os.environ["PATH"],
                                                              "PKG_CONFIG_PATH": str(folder)}).split()
    headers = sorted((prefix / "include").rglob("*.h"))
    if len(headers) < 50:
        raise StepFailed(f"only {len(headers)} headers are installed")

    def compile_alone(header):
        run("c++", "-std=c++20", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", *flags,
            "-include", header, "-x", "c++", "/dev/null")

    with concurrent.futures.ThreadPoolExecutor(int(JOBS)) as pool:
        list(pool.map(compile_alone, headers))


def check_mpi():
    """What takes long in a release and under any MPI, then all else that starts ranks, several times."""
    build("release")
    ctest("release", "-R", LONG_TESTS, name="many")
    ctest("release", "-L", "long", name="long")
    ctest("release", "-L", "mpi", "-LE", "long", "--repeat", f"until-fail:{MPI_REPEATS}", name="repeats")


def build_cuda(folder, targets, *options):
    """Builds targets that need nvcc, or says that there is none."""
    run("cmake", "--preset", "release", "-B", BUILD / folder, *options)
    if not re.search(r"^C2R_HAS_CUDA:INTERNAL=ON$", (BUILD / folder / "CMakeCache.txt").read_text(), re.M):
        print("no nvcc, skipped  ", end="", flush=True)
        return
    run("cmake", "--build", BUILD / folder, "-j", JOBS, "--target", *targets)


def check_cuda():
    """Compiles what runs on NVIDIA GPUs, its tests, which `make check-gpu` runs, and the program with it."""
    build_cuda("release", ["cuda_test", "c2r_cuda_program", "cuda_kernels"])


def check_cuda_architectures():
    """Compiles the kernels for the other architectures."""
    build_cuda("cuda", ["cuda_kernels"], "-DC2R_CUDA_ARCHITECTURES=80;100")


def check_python():
    """Builds the package's wheel, as `pip install .` does, and tests it in a fresh environment without PyTorch."""
    run("tools/setup.sh", "python")
    environment, report = BUILD / "venv-python", BUILD / "python" / "junit.xml"
    python = environment / "bin" / "python"
    run("python3", "-m", "venv", "--clear", environment)
    wheel = run("tools/build_wheel.sh", env={**os.environ, "PYTHON": str(python)}).strip()
    run(python, "-m", "pip", "install", "-q", f"{wheel}[test]")
    report.parent.mkdir(exist_ok=True)
    report.unlink(missing_ok=True)
    try:
        run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib",
            f"--junitxml={report}", "python/tests/library")
    finally:
        if report.exists():
            results.append(report)


def check_browser():
    """The page of c2r report in Debian's chromium."""
    run("tools/setup.sh", "browser")
    build("release")
    environment, report = BUILD / "venv-browser", BUILD / "browser" / "junit.xml"
    python = environment / "bin" / "python"
    run("python3", "-m", "venv", "--clear", environment)
    run(python, "-m", "pip", "install", "-q", "pytest", "playwright==1.65.2")
    report.unlink(missing_ok=True)
    try:
        run("env", f"C2R={BUILD / 'release' / 'c2r'}", python, "-m", "pytest", "-q", "-p", "no:cacheprovider",
            f"--junitxml={report}", "tests/browser")
    finally:
        if report.exists():
            results.append(report)


def check_long_fuzz():
    run("tools/fuzz.sh", LONG_FUZZ_SECONDS)


def check_mutations():
    """20,000 mutated files through the command line, with sanitizers."""
    for target in ("c2r", "mutated_commands"):
        build("asan", target)
    run("tests/fuzz/mutated_commands_test.py", BUILD / "asan")


STEPS = {"format": check_format, "release": check_release, "cuda": check_cuda,
         "asan": check_asan, "fuzz": check_fuzz, "python": check_python}
LONG_STEPS = {"single": check_single, "headers": check_headers, "mpi": check_mpi, "browser": check_browser,
              "long-asan": check_long_asan, "cuda-all": check_cuda_architectures, "long-fuzz": check_long_fuzz,
              "mutations": check_mutations}
# `make tsan` and `make tidy`, which .ci/run runs beside `make check`, so that this stays under 25 minutes.
OTHER_STEPS = {"tsan": check_tsan, "tidy": check_tidy}


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
    if name in ("cluster", "command_line.memory"):
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
            if case.find("failure") is not None or case.find("error") is not None:
                wrong.append(f"{preset} {name} failed")
                continue
            is_skipped = case.find("skipped") is not None or case.get("status", "run") != "run"
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
    parser.add_argument("--long", action="store_true", help="the long steps instead of the usual ones")
    parser.add_argument("steps", nargs="*", metavar="STEP", help="default: all of them")
    arguments = parser.parse_args()
    usual, every = LONG_STEPS if arguments.long else STEPS, STEPS | LONG_STEPS | OTHER_STEPS
    if arguments.list:
        print("\n".join(usual))
        return 0
    unknown = set(arguments.steps) - set(every)
    if unknown:
        parser.error(f"unknown step {', '.join(unknown)}; there are {', '.join(every)}")
    BUILD.mkdir(exist_ok=True)
    keep_objects()

    has_failed = False
    for name in arguments.steps or usual:
        start = time.monotonic()
        print(f"{name:10}", end="", flush=True)
        try:
            every[name]()
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
