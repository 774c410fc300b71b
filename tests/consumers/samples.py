#!/usr/bin/env python3
"""Compiles the samples of the Markdown pages as they are printed.

    samples.py ROOT --cpp "COMPILER FLAGS" [--c "COMPILER FLAGS"] [--cmake "COMMAND OPTIONS"]

Every block fenced as ```cpp, ```c or ```cmake, or with ~~~, is a sample. One that is no whole file says what else belongs to the file in a comment
before its fence, which readers do not see. A line `...` stands for the sample, which comes last where there is none:

    <!-- sample
    #include "nibkv/nibkv.hpp"
    nibkv::Status start(nibkv::Cache& cache) {
    ...
    return nibkv::Status::kOk; }
    -->

After `<!-- sample: goes on` what comes first is the file of the sample of that language above it in the page. A sample of CMake is
configured where nibkv/ is this project and app.cpp a program. Code that is not fenced, or fenced as something else, is a fault.
"""
import argparse
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

PAGES = ("README.md", ".github/**/*.md", "bench/**/*.md", "lib/**/*.md", "ports/**/*.md", "tests/**/*.md",
         "toolchains/**/*.md")
CODE = {"cpp": ".cpp", "c": ".c", "cmake": ""}
NO_CODE = {"text", "sh", "console", "json", "mermaid"}
FENCE = re.compile(r"(`{3,}|~{3,})\s*([^\s`]*)\s*")
LOOKS_LIKE_CODE = re.compile(r"(    |\t)\s*(#include\b|(nibkv|std)::|nibkv_\w+\s*\(|add_subdirectory\s*\(|find_package\s*\()")
FLAGS = {"cpp": ["-std=c++20"], "c": ["-std=c11", "-pedantic"]}
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-Wno-unused-function", "-Wno-unused-variable", "-Wno-unused-const-variable"]


class Sample:
    def __init__(self, where, language, file):
        self.where, self.language, self.file = where, language, file


def read_page(page, text):
    """(the samples of a page, faults of the page)"""
    found, faults, above, comment = [], [], {}, None
    lines = iter(enumerate(text.split("\n"), 1))

    def up_to(end, ends=None):
        body = []
        for _, line in lines:
            if ends.fullmatch(line.strip()) if ends else line.strip() == end:
                return body
            body.append(line)
        faults.append(f"{where}: no {end} after this")
        return body

    for number, line in lines:
        where = f"{page}:{number}"
        if line.strip() in ("<!-- sample", "<!-- sample: goes on"):
            comment = (where, line.strip().endswith("goes on"), up_to("-->"))
        elif FENCE.fullmatch(line.strip()):
            fence, language = FENCE.fullmatch(line.strip()).groups()
            body = up_to(fence, re.compile(f"{fence[0]}{{{len(fence)},}}"))
            if language in CODE:
                goes_on, more = comment[1:] if comment else (False, [])
                stands = more.index("...") if "..." in more else len(more)
                mark = [f"#line {number + 1} \"{page}\""] if CODE[language] else []
                file = (above.get(language, []) if goes_on else []) + more[:stands] + mark + body + more[stands + 1:]
                above[language] = file
                found.append(Sample(where, language, "\n".join(file) + "\n"))
                comment = None
            elif language not in NO_CODE:
                known = ", ".join([*CODE, *sorted(NO_CODE)])
                faults.append(f"{where}: a fence of '{language}', which is none of {known}")
        elif LOOKS_LIKE_CODE.match(line):
            faults.append(f"{where}: code that is not fenced: {line.strip()}")
        if comment and line.strip() and not line.strip().startswith("<!-- sample"):
            faults.append(f"{comment[0]}: no sample follows this")
            comment = None
    if comment:
        faults.append(f"{comment[0]}: no sample follows this")
    return found, faults


def try_sample(sample, pages, root, tools, folder):
    """What is wrong with it, or nothing."""
    if sample.language == "cmake":
        folder.joinpath("CMakeLists.txt").write_text(sample.file)
        folder.joinpath("app.cpp").write_text("int main() {}\n")
        folder.joinpath("nibkv").symlink_to(root)
        command = [*tools["cmake"], "-S", folder, "-B", folder / "build"]
    else:
        file = folder / f"sample{CODE[sample.language]}"
        file.write_text(sample.file)
        command = [*tools[sample.language], *FLAGS[sample.language], *WARNINGS, "-fsyntax-only", f"-I{root}/lib/include", f"-I{root}", file]
    run = subprocess.run(command, cwd=pages, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)
    return f"{sample.where}: {run.stdout}" if run.returncode else None


def check(pages, root, tools):
    """(faults of the pages in a folder, samples tried, samples that there are no tools for)"""
    found, tried, left = [], 0, 0
    for file in sorted(file for pattern in PAGES for file in pages.glob(pattern)):
        page = file.relative_to(pages).as_posix()
        some, faults = read_page(page, file.read_text())
        found += faults
        for sample in some:
            if not tools.get(sample.language):
                left += 1
                continue
            tried += 1
            with tempfile.TemporaryDirectory() as folder:
                fault = try_sample(sample, pages, root, tools, pathlib.Path(folder))
                found += [fault] if fault else []
    return found, tried, left


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=pathlib.Path)
    for tool in CODE:
        parser.add_argument(f"--{tool}", type=shlex.split)
    arguments = parser.parse_args()
    found, tried, left = check(arguments.root, arguments.root.resolve(), vars(arguments))
    print(*found, sep="\n")
    if found:
        print("How a page says what else belongs to a sample: tests/consumers/samples.py")
    print(f"{tried} samples tried, {left} without tools, {len(found)} faults")
    return 1 if found or tried == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
