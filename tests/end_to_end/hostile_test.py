#!/usr/bin/env python3
"""Files that change or lie while c2r reads them, and signals while it writes: one line, and nothing left behind."""
import json
import os
import pathlib
import resource
import signal
import subprocess
import time
import unittest

from command_line import C2R, IMPORT, CommandLine

LARGE_MODEL = str(pathlib.Path(__file__).resolve().parents[2] / "models" / "nano-llama-moe")


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.0005)


class Inputs(CommandLine):
    def test_a_mapped_file_that_shrinks_is_named(self):
        weights = self.folder / "model" / "model.safetensors"
        with subprocess.Popen([C2R, "generate", "model", "--prompts", "-", "--max-new-tokens", "8"], cwd=self.folder, text=True,
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
            maps = pathlib.Path(f"/proc/{running.pid}/maps")
            wait_for(lambda: str(weights) in maps.read_text())
            time.sleep(0.5)  # the header is read
            os.truncate(weights, 0)
            _, said = running.communicate('"Hello"\n', timeout=60)
        self.assertEqual((running.returncode, said), (
            1, f"c2r: {weights.resolve()} has become shorter while it was read, or its disk has failed; replace files "
               "by renaming new ones, as c2r does\n"))

    def test_names_in_files_do_not_reach_the_terminal_raw(self):
        (self.folder / "model" / "model.safetensors").unlink()
        evil = "\x1b[2J\x9b31m\n\x7f.safetensors"
        (self.folder / "model" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": evil}}))
        done = self.run_c2r("inspect", "model")
        self.assertEqual(done.returncode, 1)
        self.assertIn(r"\x1b[2J\u009b31m\n\x7f.safetensors", done.stderr)
        self.assertTrue(done.stderr[:-1].isprintable(), done.stderr)


class Outputs(CommandLine):
    def hidden(self):
        return [path.name for path in self.folder.iterdir() if path.name.startswith(".")]

    def prepare_large(self):
        self.succeed("profile", LARGE_MODEL, "--text", "text.txt", "-o", "trace.safetensors")
        self.succeed("plan", "trace.safetensors", "--cluster", "1x2", "--effort", "0.1", "-o", "plan.json")
        return [C2R, "permute-checkpoint", LARGE_MODEL, "--plan", "plan.json", "-o", "permuted"]

    def test_signals_leave_no_temporary_files(self):
        words = self.prepare_large()
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            for _ in range(20):  # until one is still writing when the signal comes
                with subprocess.Popen(words, cwd=self.folder, stderr=subprocess.PIPE) as running:
                    wait_for(lambda: self.hidden() or running.poll() is not None)
                    running.send_signal(number)
                    running.communicate(timeout=60)
                if running.returncode != 0:
                    break
                subprocess.run(["rm", "-r", self.folder / "permuted"], check=True)
            with self.subTest(signal=number):
                self.assertEqual(running.returncode, -number)
                self.assertEqual(self.hidden(), [])
                self.assertFalse((self.folder / "permuted").exists())

    def test_what_a_killed_process_left_is_removed_by_the_next_run(self):
        words = self.prepare_large()
        for _ in range(20):  # until one is still writing when it is killed
            with subprocess.Popen(words, cwd=self.folder, stderr=subprocess.PIPE) as running:
                wait_for(lambda: self.hidden() or running.poll() is not None)
                running.kill()
                running.communicate(timeout=60)
            if self.hidden():
                break
            subprocess.run(["rm", "-r", self.folder / "permuted"], check=True)
        self.assertEqual(len(self.hidden()), 1)
        self.assertEqual(subprocess.run(words, cwd=self.folder, check=False).returncode, 0)
        self.assertEqual(self.hidden(), [])
        self.assertTrue((self.folder / "permuted" / "model.safetensors").exists())

    def test_a_signal_that_was_ignored_stays_ignored(self):
        for number in (signal.SIGHUP, signal.SIGINT):  # as nohup and shells set them
            with subprocess.Popen([C2R, "tokenize", "model", "-"], cwd=self.folder, text=True, stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE,
                                  preexec_fn=lambda number=number: signal.signal(number, signal.SIG_IGN)) as running:
                wait_for(lambda: len(list(pathlib.Path(f"/proc/{running.pid}/task").iterdir())) == 2)
                time.sleep(0.2)
                running.send_signal(number)
                running.communicate("Hello", timeout=60)
            self.assertEqual(running.returncode, 0)

    def fails_beyond(self, limit, most, message, *words):
        """Runs c2r with a limit of the system."""
        done = subprocess.run([C2R, *words], cwd=self.folder, text=True, capture_output=True, timeout=60, check=False,
                              # LeakSanitizer needs files of its own.
                              env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"},
                              preexec_fn=lambda: resource.setrlimit(limit, (most, most)))
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, rf"^c2r {words[0]}: .*{message}\n$")
        self.assertEqual(self.hidden(), [])

    def test_a_limit_of_file_sizes_is_an_error(self):
        self.fails_beyond(resource.RLIMIT_FSIZE, 2000, "File too large", *IMPORT, "--sequences", "sequences.csv", "-o",
                          "trace.safetensors")

    def test_plans_of_a_front_are_written_all_or_none(self):
        self.make_trace()
        self.fails_beyond(resource.RLIMIT_NOFILE, 5, "Too many open files", "compare", "trace.safetensors", "--cluster",
                          "2x2", "--on", "even", "--baselines", "none", "--pareto", "4", "--front-plans", "front")
        self.assertEqual(list(self.folder.glob("front*.json")), [])

    def test_a_front_whose_last_name_is_too_long_is_not_written(self):
        self.make_trace()
        name = "f" * 249  # with 9.json it has 255 characters, the most of Linux
        done = self.run_c2r("compare", "trace.safetensors", "--cluster", "2x2", "--on", "even", "--baselines", "none",
                            "--pareto", "12", "--front-plans", name)
        self.assertEqual((done.returncode, done.stderr),
                         (1, f"c2r compare: cannot write '{name}10.json': File name too long\n"))
        self.assertEqual(list(self.folder.glob("f*.json")), [])


if __name__ == "__main__":
    unittest.main(verbosity=2)
