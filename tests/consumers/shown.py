#!/usr/bin/env python3
"""Proves that the shared library exports its interface and nothing else; a library with planted faults must be refused.

    shown.py NM PREFIX COMPILER
"""
import pathlib
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "gates"))
import symbols  # noqa: E402

# Symbols from the start-up files of the C library.
START_UP = re.compile(r"_ITM_\w+|__cxa_finalize|__gmon_start__")


def interface(headers):
    """(names of C, names of C++, inline functions of C++) of the public headers; the C++ ones without nibkv::, methods as
    Class::name."""
    c_names, cpp_names, inline_names = set(), set(), set()
    for header in headers.iterdir():
        if header.name == "file_store.hpp":  # the library has nothing of it
            continue
        text = re.sub(r"//[^\n]*|/\*.*?\*/|^\s*#(?:\\\n|[^\n])*", "", header.read_text(), flags=re.DOTALL | re.MULTILINE)
        if header.suffix == ".h":
            c_names.update(re.findall(r"\bNIBKV_API\b[^;(]*\b(nibkv_\w+)\(", text))
            continue
        inline_names.update(re.findall(r"^ *(?:constexpr|inline) [\w:&*<> ]*?(\w+)\(", text, flags=re.MULTILINE))
        classes = re.findall(r"^class (\w+) \{(.*?)^\};", text, flags=re.DOTALL | re.MULTILINE)
        declared = r"\b(\w+)\([^;{}()]*(?:\{\}[^;{}()]*)*\)(?: const)?;"
        for name, body in classes:
            if re.search(rf"template <[^;]*>\s*class {name} ", text):
                continue
            cpp_names.update(f"{name}::{method}" for method in re.findall(declared, body))
        free = re.sub(r"^class (\w+) \{(.*?)^\};", "", text, flags=re.DOTALL | re.MULTILINE)
        cpp_names.update(re.findall(r"^[A-Za-z][\w:&* ]* " + declared, free, flags=re.MULTILINE))
    return c_names, cpp_names, inline_names


def faults(nm, library, expected):
    expected_c, expected_cpp, inline = expected
    found, c_names, cpp_names = [], set(), set()
    for line in symbols.output(nm, "-D", "-C", "--format=posix", library).splitlines():
        name, kind = re.match(r"(.*?) ([A-Za-z])(?: [0-9a-f]+)*\s*$", line).groups()
        plain = name.split("@")[0]
        if kind in "Uvw":
            if not symbols.NEEDED.fullmatch(plain) and not START_UP.fullmatch(plain):
                found.append(f"needs {name}")
            continue
        cpp = re.match(r"(?:[\w:* ]+ )?nibkv::([\w:]+)[(<]", name)  # of a template its result comes first
        if kind == "T" and plain in expected_c:
            c_names.add(plain)
        elif kind == "T" and cpp and cpp[1] in expected_cpp:
            cpp_names.add(cpp[1])
        # Inline functions of the headers belong to the code that includes them; clang exports its copies.
        elif not (kind == "W" and cpp and cpp[1].removeprefix("detail::") in inline):
            found.append(f"shows {name} ({kind})")
    found.extend(f"does not show {name}" for name in sorted((expected_c - c_names) | (expected_cpp - cpp_names)))
    return found


def main():
    nm, prefix, compiler = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3]
    library = next(prefix.rglob("libnibkv.so"))
    expected = interface(prefix / "include" / "nibkv")
    if not (library.parent / "cmake").exists() or len(expected[1]) < 20 or "Cache::init" not in expected[1]:
        sys.exit(f"shown.py: the headers say {expected}")
    found = faults(nm, library, expected)
    print(*found, sep="\n")
    print(f"{len(expected[0])} functions of C, {len(expected[1])} of C++, {len(found)} faults")

    with tempfile.TemporaryDirectory() as folder:
        source, planted = pathlib.Path(folder, "planted.cpp"), pathlib.Path(folder, "libplanted.so")
        source.write_text("#include <cstdlib>\nnamespace nibkv { int planted(int n) { return std::abs(n) + std::rand(); } }\n"
                          "extern \"C\" int nibkv_planted() { return 1; }\n")
        subprocess.run([compiler, "-shared", "-fPIC", source, "-o", planted], check=True)
        refused = faults(nm, planted, expected)
        for expectation in ("shows nibkv::planted(int) (T)", "shows nibkv_planted (T)", "does not show Cache::init"):
            if expectation not in refused:
                found.append(f"a planted fault was not found: {expectation}")
        if not any(fault.startswith("needs rand") for fault in refused):
            found.append("a planted need was not found")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
