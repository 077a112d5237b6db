#!/usr/bin/env python3
"""bash completes command lines of c2r: commands, options, values of options, and names of files.

  completion_test.py C2R
"""
import functools
import os
import pathlib
import pty
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

from command_line import C2R

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "c2r" / "cli" / "completion.bash"
# Calls the function that the script registers as bash does; its first argument is the program.
CALL = 'source "$0"; program=$1; shift; COMP_WORDS=(c2r "$@"); COMP_CWORD=$#; _c2r "$program"; printf "%s\\n" "${COMPREPLY[@]}"'


def completed(*words):
    """How bash is told to complete the last of the words after the program's name."""
    done = subprocess.run(["bash", "--norc", "-c", CALL, SCRIPT, C2R, *words], text=True, check=True,
                          capture_output=True, timeout=60)
    return done.stdout.split()


def said(*words):
    """The same without bash, as the program says it: one process fewer."""
    return subprocess.run([C2R, "--complete", *words], text=True, check=True, capture_output=True).stdout.split()


@functools.cache
def help_of(*command):
    return subprocess.run([C2R, "help", *command], text=True, check=True, capture_output=True).stdout


def typed(folder, line):
    """The arguments that c2r gets of a line typed into an interactive bash; it shows them and does nothing else."""
    setup = (f'PS1=; source {SCRIPT}; '
             f'c2r() {{ if [ "$1" = --complete ]; then {C2R} "$@"; else printf "<%s>" "$@"; echo; exit; fi; }}\n')
    main, terminal = pty.openpty()
    bash = subprocess.Popen(["bash", "--norc", "--noprofile", "-i"], cwd=folder, stdin=terminal, stdout=subprocess.PIPE,
                            stderr=subprocess.DEVNULL, text=True, env={**os.environ, "TERM": "dumb", "INPUTRC": "/dev/null"})
    os.close(terminal)
    os.write(main, (setup + line + "\n").encode())
    out, _ = bash.communicate(timeout=60)
    os.close(main)
    return re.findall("<([^>]*)>", out)


COMMANDS = [name for name in said("") if name != "help"]


class Completion(unittest.TestCase):
    def test_commands_are_those_of_the_help(self):
        names = completed("")
        self.assertEqual(names, re.findall(r"^  ([a-z-]+) ", help_of().split("commands:")[-1], re.M))
        self.assertEqual(completed("pl"), ["plan"])
        self.assertEqual(completed("bench", ""), ["layer", "exchange", "model"])
        self.assertEqual(completed("help", "sim"), ["simulate"])

    def test_options_are_those_of_the_command(self):
        self.assertEqual(completed("plan", "--fi"), ["--fit"])
        self.assertEqual(completed("plan", "trace.safetensors", "--fit", "even", "--redundant-s"), ["--redundant-slots"])
        self.assertEqual(completed("bench", "layer", "olmoe", "--ra"), ["--ranks"])
        self.assertIn("--version", completed("--"))
        for command in COMMANDS:
            for name in said(command, "--"):
                self.assertIn(name, help_of(command))

    def test_values_are_those_that_the_help_names(self):
        self.assertEqual(completed("plan", "--fit", "ev"), ["even"])
        self.assertEqual(completed("plan", "--fit", "=", "first"), ["first-half"])
        self.assertEqual(completed("plan", "--fit", "="), ["all", "even", "odd", "first-half", "second-half"])
        self.assertEqual(completed("simulate", "--phase", ""), ["prefill", "decode"])
        self.assertEqual(completed("compare", "--baselines", "contiguous,ep"), ["contiguous,eplb"])
        self.assertEqual(completed("bench", "layer", "olm"), ["olmoe"])
        self.assertIn("sglang", completed("import", "--from", ""))
        num_lists = 0
        for command in COMMANDS:
            text = help_of(command)
            for name in (name for name in said(command, "--") if re.search(f"{name} [A-Z]", text)):
                values = said(command, name, "")
                num_lists += len(values) > 0
                if name != "--backend":  # which has those of all engines
                    self.assertEqual([value for value in values if value not in text], [], f"{command} {name}")
        self.assertGreater(num_lists, 30)

    def test_nothing_is_said_where_files_and_numbers_belong(self):
        for words in [["plan", ""], ["plan", "--cluster", ""], ["report", "t", "--plan", ""], ["plan", "--seed", "1"],
                      ["nonsense", "--"], ["plan", "--json", "x", ""]]:
            self.assertEqual([word for word in completed(*words) if not word.startswith("--")], [], words)

    def test_an_interactive_bash_completes_words_and_files(self):
        with tempfile.TemporaryDirectory() as folder:
            (pathlib.Path(folder) / "trace of today.safetensors").touch()
            self.assertEqual(typed(folder, "c2r pla\ttrac\t--fit=ev\t--redun\t2"),
                             ["plan", "trace of today.safetensors", "--fit=even", "--redundant-slots", "2"])


class ManualPage(unittest.TestCase):
    def test_it_shows_the_help_of_every_command(self):
        page = subprocess.run([C2R, "--man"], text=True, check=True, capture_output=True).stdout
        shown = page.replace("\\&", "").replace("\\-", "-").replace("\\e", "\\")
        for command in COMMANDS:
            self.assertIn(f'.SH "c2r {command}"\n.nf\n{help_of(command)}', shown)
        self.assertIn(help_of("bench", "layer"), shown)
        formatter = shutil.which("groff")  # of Debian's man-db; it is not needed to make the page
        if formatter:
            done = subprocess.run([formatter, "-man", "-Tascii", "-ww", "-z"], input=page, text=True, check=True,
                                  capture_output=True)
            self.assertEqual(done.stderr, "")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
