#!/usr/bin/env python3
"""Asks the selection of ports, compiled as on other systems, which ports run: of NEON those that the system or the compiler
promises, of x86 those for which the CPU has every feature that their flags in lib/CMakeLists.txt let the compiler use.

    runs_here.py ROOT COMPILER...
"""
import pathlib
import re
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

X86 = """
#include <string.h>
static const char* features;
inline bool has(const char* name) {
  char word[32] = " ";
  strcat(strcat(word, name), " ");
  return strstr(features, word) != nullptr;
}
#define __builtin_cpu_supports(name) has(name)
#include "ports/ports.hpp"
int main(int, char** words) {
  features = words[1];
  return nibkv::runs_PORT() ? 1 : 0;
}
"""
CPUID = """#define bit_F16C 1
bool has(const char* name);
inline int __get_cpuid(unsigned, unsigned*, unsigned*, unsigned* c, unsigned*) { *c = has("f16c") ? bit_F16C : 0; return 1; }
"""


def x86_faults(root, compiler):
    """How ports of x86 are chosen, not as their flags say; and how many choices were tried."""
    found, tried = [], 0
    text = pathlib.Path(root, "lib/CMakeLists.txt").read_text()
    for port, flags in re.findall(r"nibkv_add_port\((sse41|avx2|avx512vnni) FLAGS ((?:-m[\w.]+\s+)+)", text):
        features = [flag.removeprefix("-m") for flag in flags.split()]
        with tempfile.TemporaryDirectory() as folder:
            here = pathlib.Path(folder)
            (here / "program.cpp").write_text(X86.replace("PORT", port))
            (here / "cpuid.h").write_text(CPUID)
            subprocess.run([*compiler, "-std=c++20", "-w", f"-I{here}", f"-I{root}", f"-I{root}/lib/include",
                            f"-DNIBKV_PORT_{port.upper()}", here / "program.cpp", "-o", here / "program"], check=True)
            for missing in (None, *features):
                has = f" {' '.join(feature for feature in features if feature != missing)} "
                runs = subprocess.run([here / "program", has]).returncode == 1
                tried += 1
                if runs != (missing is None):
                    found.append(f"{port} {'runs' if runs else 'does not run'} where the CPU has{has}")
    return found, tried


def main():
    root, *compiler = sys.argv[1:]
    found, tried = x86_faults(root, compiler)
    print(*found, sep="\n")
    print(f"{tried} choices of x86, {len(found)} faults")
    failed = len(found) + (tried < 13)
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
