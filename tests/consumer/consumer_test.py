#!/usr/bin/env python3
"""Projects of others use c2r: installed with CMake or pkg-config, in whole or in part, and as a folder.

  consumer_test.py WORK CXX    WORK/prefix: an installed c2r, CXX: its compiler
"""
import os
import pathlib
import re
import subprocess
import sys
import unittest

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
WORK = pathlib.Path(sys.argv.pop(1)).resolve()
CXX = sys.argv.pop(1)
PREFIX = WORK / "prefix"
PRINTED = "names expert 9.*pairs 1, choices 2"


def without(*packages):
    """Options that make CMake find none of these packages."""
    return [f"-DCMAKE_DISABLE_FIND_PACKAGE_{name}=ON" for name in packages]


class Consumer(unittest.TestCase):
    def run_command(self, *command, fails=False):
        lib = next(PREFIX.glob("lib*"))
        environment = {**os.environ, "PKG_CONFIG_PATH": str(next(lib.rglob("pkgconfig")))}
        done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              env=environment, timeout=250, check=False)
        self.assertEqual(done.returncode != 0, fails, f"{command}\n{done.stdout}")
        return re.sub(r"\s+", " ", done.stdout)

    def configure(self, source, name, *options, **how):
        return self.run_command("cmake", "--fresh", "-S", source, "-B", WORK / name,
                                f"-DCMAKE_CXX_COMPILER={CXX}", f"-DCMAKE_PREFIX_PATH={PREFIX}",
                                *options, **how)

    def test_components_need_only_their_own_libraries(self):
        self.configure(HERE, "dispatch", "-DCOMPONENTS=dispatch",
                       *without("PkgConfig", "Eigen3", "CLI11", "MPI", "GTest", "benchmark"))
        self.run_command("cmake", "--build", WORK / "dispatch")
        self.assertRegex(self.run_command(WORK / "dispatch" / "consumer"), PRINTED)

    def test_all_components_are_found_at_once(self):
        self.configure(HERE, "all", *without("Eigen3", "CLI11", "MPI", "GTest"))

    def test_a_missing_library_is_named_with_its_component(self):
        out = self.configure(HERE, "missing", "-DCOMPONENTS=tokenizer", *without("PkgConfig"), fails=True)
        self.assertIn("the component tokenizer needs PkgConfig::pcre2, which was not found (Debian: "
                      "libpcre2-dev)", out)

    def test_pip_install_names_a_missing_debian_package(self):
        # What pyproject.toml gives CMake; pip shows what CMake says.
        package = ["-DC2R_BUILD_PYTHON=ON", "-DC2R_BUILD_TESTS=OFF", "-DC2R_MPI=none"]
        for missing, debian in [("hwy", "libhwy-dev"), ("CLI11", "libcli11-dev"), ("PkgConfig", "libpcre2-dev"),
                                ("Python", "python3-dev")]:
            out = self.configure(ROOT, "python", *package, *without(missing), fails=True)
            self.assertIn(f"(Debian: {debian})", out)

    def test_an_unknown_component_is_named_with_those_there_are(self):
        out = self.configure(HERE, "unknown", "-DCOMPONENTS=nonsense", fails=True)
        self.assertIn("there is no component 'nonsense'; c2r has core, io, ", out)

    def test_pkg_config_gives_what_a_static_link_needs(self):
        flags = self.run_command("pkg-config", "--cflags", "--libs", "--static", "c2r-collaboration")
        self.assertNotIn("pcre2", flags)
        consumer = WORK / "by_pkg_config"
        self.run_command(CXX, "-std=c++20", HERE / "consumer.cc", "-o", consumer, *flags.split())
        self.assertRegex(self.run_command(consumer), PRINTED)

    def test_pkg_config_names_everything_that_the_whole_library_needs(self):
        source = WORK / "nothing.cc"
        source.write_text("int main() {}\n")
        flags = self.run_command("pkg-config", "--cflags", "--libs", "c2r").split()
        self.run_command(CXX, "-std=c++20", source, "-o", WORK / "nothing",
                         "-Wl,--whole-archive", *flags, "-Wl,--no-whole-archive")

    def test_the_headers_can_be_included_together(self):
        headers = sorted(str(path.relative_to(PREFIX / "include"))
                         for path in (PREFIX / "include").rglob("*.h"))
        self.assertGreater(len(headers), 50)
        private = [name for name in headers
                   if re.search(r"_internal\.h|-inl\.h|testing|placement/search/", name)]
        self.assertEqual(private, [])
        everything = WORK / "everything.cc"
        everything.write_text("".join(f"#include <{name}>\n" for name in headers))
        names = ["c2r", "c2r-transport_conformance"]
        if any("transport/mpi" in name for name in headers):
            names.append("c2r-transport_mpi")
        flags = self.run_command("pkg-config", "--cflags", *names).split()
        self.run_command(CXX, "-std=c++20", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", everything,
                         *flags)

    def test_a_project_with_c2r_as_a_folder_is_left_as_it_was(self):
        self.configure(HERE / "parent", "parent", f"-DC2R={ROOT}",
                       *without("PkgConfig", "Eigen3", "CLI11", "MPI", "GTest", "benchmark", "hwy",
                                "LibLZMA", "ZLIB", "zstd", "nlohmann_json"))
        self.run_command("cmake", "--build", WORK / "parent")
        self.assertIn("sum 6", self.run_command(WORK / "parent" / "program"))

    def test_modules_are_built_without_the_libraries_of_others(self):
        options = ["-DC2R_BUILD_TESTS=OFF", *without("PkgConfig", "CLI11", "MPI", "GTest", "benchmark")]
        out = self.configure(ROOT, "part", "-DC2R_MODULES=dispatch;nonsense", *options, fails=True)
        self.assertIn("C2R_MODULES names 'nonsense'; there are all, library, core, io, ", out)
        out = self.configure(ROOT, "part", "-DC2R_MODULES=transport_mpi", *options, fails=True)
        self.assertIn("C2R_MODULES names transport_mpi, but no MPI was found", out)
        out = self.configure(ROOT, "part", "-DC2R_MODULES=tokenizer", *options, fails=True)
        self.assertIn("the module tokenizer needs PkgConfig::pcre2, which was not found; install it (Debian: "
                      "libpcre2-dev), or name in C2R_MODULES only the modules that you need", out)
        self.configure(ROOT, "part", "-DC2R_MODULES=dispatch", *options)

    def test_how_c2r_is_hardened_is_no_flag_of_others(self):
        told = [path for pattern in ("*.cmake", "*.pc") for path in PREFIX.rglob(pattern)]
        self.assertGreater(len(told), 20)
        for path in told:
            self.assertNotRegex(path.read_text(), "FORTIFY|stack-protector|GLIBCXX_ASSERTIONS|relro", path)

    def test_the_program_is_installed(self):
        self.assertIn("c2r 0.", self.run_command(PREFIX / "bin" / "c2r", "--version"))


if __name__ == "__main__":
    unittest.main(verbosity=2)
