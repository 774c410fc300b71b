#!/usr/bin/env python3
"""Plants faults in pages and expects samples.py to find them.

    samples_bite.py ROOT --cpp "COMPILER FLAGS" [--c "COMPILER FLAGS"] [--cmake "COMMAND OPTIONS"]
"""
import pathlib
import shlex
import sys
import tempfile

import samples

HEADER = "```cpp\n#include \"nibkv/nibkv.hpp\"\n"
# a page, after its path unless that is lib/page.md, and what must be said of it; None: nothing
PLANTS = [
    (HEADER + "auto footprint = nibkv::no_such_name;\n```\n", "lib/page.md:3:"),
    (HEADER + "void f(nibkv::Cache& cache) { nibkv::append(cache, 0, {}, {}); }\n```\n", "lib/page.md:3:"),  # [[nodiscard]]
    (HEADER + "static_assert(nibkv::kArenaAlignment == 63);\n```\n", "lib/page.md:3:"),
    ("```c\n#include \"nibkv/nibkv.hpp\"\n```\n", "lib/page.md:1"),
    ("```cmake\nproject(app NONE)\nfind_package(no_such_package REQUIRED)\n```\n", "no_such_package"),
    ("```\nnibkv::Cache cache;\n```\n", "a fence of ''"),
    ("```c++\nnibkv::Cache cache;\n```\n", "a fence of 'c++'"),
    (HEADER, "lib/page.md:1: no ``` after this"),
    ("~~~cpp\nint x = no_such_name;\n~~~\n", "lib/page.md:2:"),
    ("~~~\nnibkv::Cache cache;\n~~~\n", "a fence of ''"),
    ("~~~~cpp\nint x;\n~~~\n```\n", "lib/page.md:1: no ~~~~ after this"),
    ("toolchains/page.md", "```cpp\nint x = no_such_name;\n```\n", "toolchains/page.md:2:"),
    ("Text:\n\n    nibkv::Cache cache;\n", "lib/page.md:3: code that is not fenced"),
    ("<!-- sample\nint x;\n-->\n\nText.\n", "lib/page.md:1: no sample follows"),
    ("<!-- sample\nint x;\n", "lib/page.md:1: no --> after this"),
    ("<!-- sample\nint f() {\n...\n-->\n```cpp\nreturn 1;\n```\n", "lib/page.md"),  # a brace is missing
    # Not faults:
    ("<!-- sample\nint f() {\n...\n}\n-->\n\n```cpp\nreturn 1;\n```\n", None),
    ("```cpp\nint one = 1;\n```\n\n<!-- sample: goes on\n-->\n```cpp\nint two = one + one;\n```\n", None),
    ("```c\n#include \"nibkv/nibkv.h\"\nnibkv_cache cache;\n```\n", None),
    ("```cmake\ncmake_minimum_required(VERSION 3.20)\nproject(app CXX)\nadd_executable(app app.cpp)\nfind_package(nibkv 0.1 REQUIRED)\n"
     "target_link_libraries(app PRIVATE nibkv::nibkv)\n```\n", None),
    ("```sh\nls\n```\n\n    cmake -S . -B build\n", None),
    ("~~~~cpp\nint x;\n~~~~~\n\n~~~text\n```\n~~~\n", None),
]


def main():
    tools = {name[2:]: shlex.split(command) for name, command in zip(sys.argv[2::2], sys.argv[3::2])}
    failed = 0
    for *path, text, expected in PLANTS:
        with tempfile.TemporaryDirectory() as folder:
            page = pathlib.Path(folder, *(path or ["lib/page.md"]))
            page.parent.mkdir()
            page.write_text(text)
            found, _, left = samples.check(pathlib.Path(folder), pathlib.Path(sys.argv[1]).resolve(), tools)
        good = left or (not found if expected is None else any(expected in fault for fault in found))
        print("passed" if good else "FAILED", repr(text), "expected", expected, "found", found)
        failed += not good
    print(f"{len(PLANTS) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
