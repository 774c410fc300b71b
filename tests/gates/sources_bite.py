#!/usr/bin/env python3
"""Plants a fault in a copy of the sources and expects sources.py to find it.

    sources_bite.py ROOT
"""
import pathlib
import shutil
import sys
import tempfile

import sources

# file, what is appended to it, what the gate must say
PLANTS = [
    ("lib/src/arena/status.cpp", "#include <vector>\n", "header <vector>"),
    ("lib/src/arena/status.cpp", "#  include <immintrin.h>\n", "header <immintrin.h>"),
    ("lib/include/nibkv/status.hpp", "#include <cstdlib>\n", "header <cstdlib>"),
    ("lib/include/nibkv/file_store.hpp", "#include <cstdio>\n", "header <cstdio>"),
    ("lib/include/nibkv/file_store.hpp", "void* planted() { return malloc(1); }\n", "malloc"),
    ("lib/include/nibkv/nibkv.hpp", "#include \"nibkv/file_store.hpp\"\n", "is for operating systems"),
    ("lib/src/arena/status.cpp", "#include \"tests/support/random.hpp\"\n", "header \"tests/support/random.hpp\""),
    ("ports/scalar/scalar.cpp", "#include <span>\n", "header <span>"),
    ("lib/src/arena/select.cpp", "#include <sys/auxv.h>\n", "header <sys/auxv.h>"),
    ("lib/src/arena/status.cpp", "#if defined(__AVX2__)\n#endif\n", "condition on the CPU"),
    ("lib/src/arena/status.cpp", "#ifdef NIBKV_PORT_AVX2\n#endif\n", "condition on the CPU"),
    ("lib/src/arena/status.cpp", "int* planted() { return new int; }\n", "new"),
    ("lib/src/arena/status.cpp", "std::vector<int> planted;\n", "std::vector"),
    ("lib/src/arena/status.cpp", "void planted() { free(nullptr); }\n", "free("),
    ("ports/scalar/scalar.cpp", "struct Planted { virtual void f(); };\n", "virtual"),
    ("bench/runner/text/chat.hpp", "// caf\u00e9\n", "beyond ASCII"),
    ("README.md", "    cmake --build build -j && ctest\n", "without a bound"),
    ("bench/assistant/chat", "cmake --build build --target x -j\n", "without a bound"),
    ("lib/src/arena/status.cpp", "// A comment that was reflowed and leaves one\n// word.\n", "word. is alone"),
    ("bench/runner/text/chat.hpp", "/// A comment that was reflowed and leaves one\n/// word\n", "word is alone"),
    ("lib/include/nibkv/nibkv.h", "/* A comment that was reflowed and leaves one\n * word. */\n", "word. is alone"),
    ("lib/src/arena/status.cpp", f"// {'word ' * 24}end\n", "a comment up to column 126"),
    ("ports/ports.hpp", f"int planted;  // {'word ' * 21}end\n", "a comment up to column 125"),
    ("README.md", "[a page](lib/NONE.md)\n", "a link to nothing"),
    ("lib/DESIGN.md", "[a section](EXPERIMENTS.md#none)\n", "a link to nothing"),
    ("lib/FORMAT.md", "[a section](#none)\n", "a link to nothing"),
    ("README.md", "[a page][none]\n", "a link to nothing, [none]"),
    ("README.md", "[a page][]\n", "a link to nothing, [a page]"),
    ("README.md", "[a page][b]\n\n[b]: lib/NONE.md\n", "a link to nothing, lib/NONE.md#"),
    ("lib/FORMAT.md", "# Planted\n\n# Planted\n\n[the third](#planted-2)\n", "a link to nothing, #planted-2"),
    ("lib/examples/firmware.cpp", "#include <vector>\n", "header <vector>"),
    ("lib/src/arena/status.cpp", "#include \"codec/row.hpp\"\n", "lib/src/codec is above"),
    ("lib/src/fold/fold.cpp", "#  include \"pipeline/plan_chain.hpp\"\n", "lib/src/pipeline is above"),
    # Not faults:
    ("lib/src/pipeline/plan.cpp", "#include \"arena/view.hpp\"\n#include \"pipeline/score_rows.hpp\"\n", None),
    ("lib/src/c_api/c_api.cpp", "#include \"snapshot/parts.hpp\"\n", None),
    ("lib/examples/engine.cpp", "#include <thread>\nstd::vector<int> planted;\n", None),
    ("lib/FORMAT.md", "[one](#scale16), [another](EXPERIMENTS.md#making-space), [a site](https://example.org/none.md)\n", None),
    ("README.md", "[a page][b], [A][], `a[i][j]`, M[i][j]\n\n    a [i][j]\n\n```cpp\n[&](int x) { return a[i][j]; }\n```\n\n"
     "[b]: lib/DESIGN.md\n[a]: https://example.org/none.md\n", None),
    ("lib/FORMAT.md", "# Planted\n\n# Planted\n\n[one](#planted), [the other](#planted-1)\n", None),
    ("README.md", "    cmake --build build -j 2 && cmake --build build -j \"$(nproc)\"\n", None),
    ("lib/src/arena/status.cpp", "// a new tile, not malloc\nstruct Planted { Planted(const Planted&) = delete; };\n", None),
    ("lib/src/arena/status.cpp", "// A comment with an example:\n//     word\n\n// Another.\n// - item\n/// One\n/// two, three\n", None),
    ("lib/src/arena/status.cpp", "const char* planted() { return \"new\"; }\nint x = 1'000'000;\n", None),
]


def main():
    root = pathlib.Path(sys.argv[1])
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder)
        for part in ("lib", "ports", "bench"):
            shutil.copytree(root / part, copy / part)
        shutil.copy(root / "README.md", copy)
        for path, text, expected in PLANTS:
            file = copy / path
            original = file.read_bytes()
            before = list(sources.file_faults(copy, file))
            file.write_bytes(original + text.encode())
            found = [fault for fault in sources.file_faults(copy, file) if fault not in before]
            file.write_bytes(original)
            good = not found if expected is None else any(expected in fault for fault in found)
            print("passed" if good else "FAILED", path, repr(text), "expected", expected, "found", found)
            failed += not good
        table = copy / "lib/src/arena/policy.cpp"
        table.write_text(table.read_text().replace('    {"ems",', '    {"planted", nullptr},\n    {"ems",', 1))
        found = list(sources.unknown_presets(copy))
        good = len(found) == 6 and all("planted" in fault for fault in found)
        print("passed" if good else "FAILED", "a preset that no list has:", found)
        failed += not good
        ladder = copy / "ports/ports.hpp"
        ladder.write_text(ladder.read_text().replace("    {&kAvx2Kernels, runs_avx2},\n", "", 1))
        found = list(sources.ports_not_chosen(copy))
        good = found == ["ports/ports.hpp: kPorts lacks the port avx2"]
        print("passed" if good else "FAILED", "a port that is built and never chosen:", found)
        failed += not good
        sources.MOST_SOURCES = 4
        found = list(sources.crowded(copy))
        good = any(fault.startswith("lib/src/arena: ") for fault in found) and not any("numbers" in fault for fault in found)
        print("passed" if good else "FAILED", "folders of more than 4 sources:", found)
        failed += not good
    print(f"{len(PLANTS) + 3 - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
