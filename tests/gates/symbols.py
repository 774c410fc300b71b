#!/usr/bin/env python3
"""Proves from the library's object files that it has no heap, no exceptions, no state and no start-up code.

    symbols.py NM OBJDUMP OBJECT...

- The objects need nothing from outside but mem*, strlen, compiler helpers and the query which CPU this is.
- No writable data, no constructors that run before main.
- A port's object defines exactly one visible symbol, its table: so the linker cannot keep code that was compiled for
  a newer CPU as the copy of a function that others have too. The scalar port's kernels are visible too, for other ports.
"""
import re
import subprocess
import sys

NEEDED = re.compile(
    r"(__)?mem(cpy|move|set|cmp)(_chk)?|bcmp|strlen|__strlen_chk"
    r"|__cpu_(model|features2|indicator_init)|getauxval"
    r"|__aeabi_\w+|__u?(div|mod|divmod)[sdt]i[34]|__(float|fix)[a-z0-9]+|__(ash|lsh)[lr][dt]i3|__mul[dt]i3"
    r"|__stack_chk_(fail|guard)|_GLOBAL_OFFSET_TABLE_")
# Read-only once the loader has filled in addresses, so that tables of functions can lie there.
READ_ONLY_DATA = re.compile(r"\.data\.rel\.ro(\..*)?")
WRITABLE = re.compile(r"\.(data|bss|tdata|tbss)(\..*)?")
START_UP = re.compile(r"\.(init_array|preinit_array|ctors|init)(\..*)?")
TABLE = re.compile(r"_ZN5nibkv\d+k[A-Z]\w*KernelsE")
SCALAR_KERNEL = re.compile(
    r"_ZN5nibkv5ports6scalar\d+((widen|narrow|rotate|quantise_query|outlier_dots|tile_weights|add_scores|sign_logits)E|(encode_row|key_dots|value_sums)ILi[248]EE)\w+")
PORT = re.compile(r"/ports/(\w+)/\1\.cpp\.o")


def output(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def symbols(nm, path):
    """(name, type letter) of each; debugging symbols are left out."""
    for line in output(nm, "--format=posix", path).splitlines():
        name, kind = line.split()[:2]
        if kind not in "aN":
            yield name, kind


def sections(objdump, path):
    """(name, bytes) of each"""
    for line in output(objdump, "--section-headers", path).splitlines():
        row = re.match(r"\s*\d+ (\S+)\s+([0-9a-f]+)\s", line)
        if row:
            yield row[1], int(row[2], 16)


def defined_names(nm, objects):
    return {name for path in objects for name, kind in symbols(nm, path) if (kind.isupper() or kind == "u") and kind != "U"}


def faults(nm, objdump, objects, others=()):
    """The faults of the objects; `others`: names that the rest of the library defines."""
    found = []
    defined, needed = set(others) | defined_names(nm, objects), []
    for path in objects:
        port = PORT.search(path)
        exported = []
        for name, kind in symbols(nm, path):
            if kind in "Uvw":
                needed.append((path, name))
                continue
            if kind.isupper() or kind == "u":
                exported.append((name, kind))
            if kind in "bBdD" and not any(READ_ONLY_DATA.fullmatch(s) for s, size in sections(objdump, path) if size):
                found.append(f"{path}: writable symbol {name}")
        if port:
            for name, kind in exported:
                if kind in "WVu":
                    found.append(f"{path}: symbol {name} of a port may be shared with other objects (type {kind})")
                elif not TABLE.fullmatch(name) and not (port[1] == "scalar" and SCALAR_KERNEL.fullmatch(name)):
                    found.append(f"{path}: a port exports {name} beside its table")
            tables = sum(1 for name, _ in exported if TABLE.fullmatch(name))
            if tables != 1:
                found.append(f"{path}: a port exports {tables} tables")
        for name, size in sections(objdump, path):
            if size and WRITABLE.fullmatch(name) and not READ_ONLY_DATA.fullmatch(name):
                found.append(f"{path}: {size} bytes of writable data in {name}")
            if size and START_UP.fullmatch(name):
                found.append(f"{path}: code that runs before main, in {name}")
    for path, name in needed:
        if name not in defined and not NEEDED.fullmatch(name):
            found.append(f"{path}: needs {name}")
    return found


def main():
    nm, objdump, *objects = sys.argv[1:]
    if not any(PORT.search(path) for path in objects):
        sys.exit("symbols.py: no port among the objects")
    found = faults(nm, objdump, objects)
    print(*found, sep="\n")
    print(f"{len(objects)} objects, {len(found)} faults")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
