#!/usr/bin/env python3
"""What a change of flags or code does to our benchmarks: those of two builds in turns, and the ratios of their times.

    pip install numpy
    bench/compare_builds.py build/before build/after [--only experts,placement] [--filter REGEX] [--rounds 15]
                            [--min-time 0.05] [--seconds S]

Each round runs every program of Google Benchmark of both builds, the one that came second in the round before first.
Prints for each benchmark the median of the rounds' ratios, after over before, with its interval of 95 %, and for each
program the median over its benchmarks. Times are those of the clock. With --seconds no round begins that would not end
by then; six rounds are the least for an interval of 95 %.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import time

from expert_parallel_torch import interval


def times(program, args):
    """Nanoseconds of an iteration by the name of the benchmark."""
    options = [f"--benchmark_min_time={args.min_time}", "--benchmark_format=json", f"--benchmark_filter={args.filter}"]
    done = subprocess.run([program, *options], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    rows = json.loads(done.stdout)["benchmarks"]
    wrong = [row["name"] for row in rows if row.get("error_occurred")]
    if wrong:
        sys.exit(f"{program}: wrong results of {', '.join(wrong)}")
    return {row["name"]: row["real_time"] for row in rows}


def measure(programs, args):
    """[benchmark's program and name]: the ratio of each round."""
    ratios, begin = {}, time.monotonic()
    for at in range(args.rounds):
        begin_of_round = time.monotonic()
        for program in programs:
            builds = [args.before, args.after] if at % 2 == 0 else [args.after, args.before]
            of = {build: times(build / program, args) for build in builds}
            for name in of[args.before].keys() & of[args.after].keys():
                ratios.setdefault((program, name), []).append(of[args.after][name] / of[args.before][name])
        now = time.monotonic()
        if args.seconds and now - begin + (now - begin_of_round) > args.seconds:
            break
    return ratios


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=pathlib.Path, help="a folder of a build")
    parser.add_argument("after", type=pathlib.Path, help="that of the other one")
    parser.add_argument("--only", default="", help="modules, separated by commas; default: all with benchmarks")
    parser.add_argument("--filter", default=".", help="of benchmarks, as Google Benchmark's")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--min-time", type=float, default=0.05, help="seconds of one benchmark in one round")
    parser.add_argument("--seconds", type=float, help="of all rounds")
    args = parser.parse_args()
    found = {path.name for path in args.before.glob("*_bench")} & {path.name for path in args.after.glob("*_bench")}
    programs = sorted(found - {"transport_mpi_bench"})  # wants mpirun
    if args.only:
        programs = [name for name in programs if name.removesuffix("_bench") in args.only.split(",")]
    ratios = measure(programs, args)
    if not ratios:
        sys.exit("no benchmark is in both builds")
    for program in programs:
        of = {name: all_rounds for (its, name), all_rounds in ratios.items() if its == program}
        for name, all_rounds in of.items():
            median, low, high = interval(all_rounds) if len(all_rounds) > 1 else 3 * all_rounds
            print(f"{median:6.3f} ({low:.3f} to {high:.3f})  {name}")
        if of:
            middle = statistics.median(statistics.median(all_rounds) for all_rounds in of.values())
            print(f"{middle:6.3f} median of {len(of)} benchmarks of {program}, {len(next(iter(of.values())))} rounds\n")


if __name__ == "__main__":
    main()
