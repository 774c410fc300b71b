#!/usr/bin/env python3
"""Plants a fault in a copy of a source file, compiles it in place of the real one, and expects symbols.py to find it.

    symbols_bite.py ROOT NM OBJDUMP OBJECT... -- COMPILER FLAG...
"""
import pathlib
import subprocess
import sys
import tempfile

import symbols

# file, what is appended to it, what the gate must say
PLANTS = [
    ("lib/src/arena/status.cpp", "", None),
    ("ports/scalar/scalar.cpp", "", None),
    ("lib/src/arena/status.cpp", "#include <vector>\nint planted(int n) { return std::vector<int>(n).back(); }\n", "needs _Znw"),
    ("lib/src/arena/status.cpp", "#include <cstdlib>\nvoid* planted() { return std::malloc(8); }\n", "needs malloc"),
    ("lib/src/arena/status.cpp", "#include <cstdio>\nvoid planted() { std::puts(\"planted\"); }\n", "needs puts"),
    ("lib/src/arena/status.cpp", "int planted() { throw 1; }\n", "needs __cxa_"),
    ("lib/src/arena/status.cpp", "int planted;\n", "writable"),
    ("lib/src/arena/status.cpp", "int planted() { static int calls = 5; return ++calls; }\n", "writable"),
    ("lib/src/arena/status.cpp", "int planted(); const int kPlanted = planted();\nint read() { return kPlanted; }\n", "before main"),
    ("ports/scalar/scalar.cpp", "int planted() { return 1; }\n", "beside its table"),
    ("ports/scalar/scalar.cpp", "namespace nibkv::ports::scalar { int planted() { return 1; } }\n", "beside its table"),
    ("ports/scalar/scalar.cpp", "inline int planted() { return 1; }\n"
     "namespace { [[gnu::used]] int (*const kUse)() = planted; }\n", "may be shared"),
    ("ports/scalar/scalar.cpp", "inline constexpr int kPlanted[] = {1, 2};\n"
     "namespace { [[gnu::used]] const int* const kUse = kPlanted; }\n", "may be shared"),
]


def main():
    words = sys.argv[1:]
    split = words.index("--")
    root, nm, objdump, *objects = words[:split]
    compiler, *flags = words[split + 1:]
    root = pathlib.Path(root)
    failed = 0
    others = symbols.defined_names(nm, objects)
    with tempfile.TemporaryDirectory() as folder:
        for path, text, expected in PLANTS:
            (copy := pathlib.Path(folder, path)).parent.mkdir(parents=True, exist_ok=True)
            copy.write_text((root / path).read_text() + text)
            exceptions = "-fexceptions" if "throw" in text else "-fno-exceptions"
            command = [compiler, *flags, "-std=c++20", "-O2", "-fPIC", exceptions, "-fno-rtti", "-fno-threadsafe-statics", "-w",
                       "-I", root / "lib/include", "-I", root / "lib/src", "-I", root, "-c", copy, "-o", f"{copy}.o"]
            subprocess.run(command, check=True)
            found = symbols.faults(nm, objdump, [f"{copy}.o"], others)
            good = not found if expected is None else any(expected in fault for fault in found)
            print("passed" if good else "FAILED", path, repr(text), "expected", expected, "found", found)
            failed += not good
    print(f"{len(PLANTS) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
