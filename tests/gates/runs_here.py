#!/usr/bin/env python3
"""Asks the selection of ports, compiled as on other systems, which NEON ports run: only those that the system or the compiler promises.

    runs_here.py ROOT COMPILER...
"""
import pathlib
import subprocess
import sys
import tempfile

PROGRAM = """
#include "ports/ports.hpp"
int main() { return (nibkv::runs_neon_dotprod() ? 1 : 0) | (nibkv::runs_neon() ? 2 : 0); }
"""
DOTPROD, NEON = 1, 2
ELSEWHERE = ["-U__linux__", "-U__APPLE__", "-U_WIN32", "-U__ARM_NEON", "-U__ARM_FEATURE_DOTPROD"]
LINUX = ELSEWHERE[1:]
AARCH64, ARMV7 = ["-D__aarch64__"], ["-D__arm__", "-U__aarch64__"]


def linux(hwcap):
    return "sys/auxv.h", f"#define AT_HWCAP 16\ninline unsigned long getauxval(unsigned long what) {{ return what == 16 ? {hwcap} : ~0ul; }}\n"


def apple(result, value):
    return "sys/sysctl.h", f"""#include <string.h>
inline int sysctlbyname(const char* name, void* to, size_t* bytes, void*, size_t) {{
  if (strcmp(name, "hw.optional.arm.FEAT_DotProd") != 0 || *bytes != sizeof(int)) return -1;
  *static_cast<int*>(to) = {value};
  return {result};
}}
"""


def windows(feature):
    return "windows_stub.h", f"extern \"C\" int IsProcessorFeaturePresent(unsigned long feature) {{ return feature == {feature}; }}\n"


WINDOWS = ELSEWHERE + ["-D_WIN32", "-D__declspec(x)=", "-D__stdcall=", "-include", "windows_stub.h"]

# what it is, flags, a header of the system, ports that run
CASES = [
    ("no system", ELSEWHERE, None, 0),
    ("no system, a compiler told of all", ELSEWHERE + ["-D__ARM_FEATURE_DOTPROD", "-D__ARM_NEON"], None, DOTPROD | NEON),
    ("Linux with it", LINUX + AARCH64 + ["-D__ARM_NEON"], linux("1ul << 20"), DOTPROD | NEON),
    ("Linux without it", LINUX + AARCH64 + ["-D__ARM_NEON"], linux("~(1ul << 20)"), NEON),
    ("Linux on ARMv7 with NEON", LINUX + ARMV7, linux("1ul << 12"), NEON),
    ("Linux on ARMv7 without it", LINUX + ARMV7, linux("~(1ul << 12)"), 0),
    ("Apple with it", ELSEWHERE + AARCH64 + ["-D__APPLE__", "-D__ARM_NEON"], apple(0, 1), DOTPROD | NEON),
    ("Apple without it", ELSEWHERE + AARCH64 + ["-D__APPLE__", "-D__ARM_NEON"], apple(0, 0), NEON),
    ("Apple that does not know", ELSEWHERE + AARCH64 + ["-D__APPLE__", "-D__ARM_NEON"], apple(-1, 1), NEON),
    ("Windows with it", WINDOWS + AARCH64 + ["-D__ARM_NEON"], windows(43), DOTPROD | NEON),
    ("Windows without it", WINDOWS + AARCH64 + ["-D__ARM_NEON"], windows(44), NEON),
]


def main():
    root, *compiler = sys.argv[1:]
    failed = 0
    for name, flags, header, expected in CASES:
        with tempfile.TemporaryDirectory() as folder:
            here = pathlib.Path(folder)
            (here / "program.cpp").write_text(PROGRAM)
            if header:
                (here / header[0]).parent.mkdir(exist_ok=True)
                (here / header[0]).write_text(header[1])
            ports = [f"-DNIBKV_PORT_{port}" for port in ("NEON_DOTPROD", "NEON")]
            subprocess.run([*compiler, "-std=c++20", "-w", f"-I{here}", f"-I{root}", f"-I{root}/lib/include", *ports, *flags,
                            here / "program.cpp", "-o", here / "program"], check=True)
            found = subprocess.run([here / "program"]).returncode
        print("passed" if found == expected else "FAILED", f"{name}: {found}, expected {expected}")
        failed += found != expected
    print(f"{len(CASES) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
