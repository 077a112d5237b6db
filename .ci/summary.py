#!/usr/bin/env python3
"""The last line of .ci/run: the tests of every part of its log added up.

  summary.py LOG [failed]    failed: a step was not completed, so that at least one failure is counted
"""
import pathlib
import re
import sys

# tools/check.py ends with "N passed, N failed, N skipped"; pytest with "N failed, N passed, N skipped, ... in S s".
LINE = re.compile(r"^\d+ (?:passed|failed|skipped|error|errors|warning|warnings|deselected|xfailed)\b.*", re.M)


def total(log, *words):
    return sum(int(count) for line in LINE.findall(log) for count in re.findall(rf"(\d+) (?:{'|'.join(words)})\b", line))


text = pathlib.Path(sys.argv[1]).read_text(errors="replace")
failed = total(text, "failed", "error", "errors")
print(f"{total(text, 'passed')} passed, {max(failed, int('failed' in sys.argv[2:]))} failed, {total(text, 'skipped')} skipped")
