#!/usr/bin/env python3
"""Searches lib/ and ports/ for what they may not use, and all sources for characters beyond ASCII, builds without a bound,
comments whose last word is alone on its line, links to files and headings that do not exist, folders with too many
sources, presets that a list lacks, ports that are built and never chosen, and in lib/ and ports/ comments that are too
wide.

    sources.py ROOT
"""
import pathlib
import re
import sys

STANDARD = {"algorithm", "array", "bit", "cstddef", "cstdint", "cstring", "limits", "span", "string_view", "type_traits"}
PORT_STANDARD = {"cstddef", "cstdint"}
# Folders of lib/src, lowest first: a file includes its own folder and those below.
FOLDERS = ("numbers", "arena", "profile", "codec", "cold", "fold", "attention", "pipeline", "move", "snapshot", "c_api")
MOST_COLUMNS = 120  # of a line with a comment; clang-format sees to those without
MOST_SOURCES = 20  # of a folder; the public headers are one each for a verb
INTRINSICS = {"immintrin.h", "smmintrin.h", "arm_neon.h", "arm_mve.h", "arm_acle.h"}
# The one place that asks which CPU this is.
ASKS_THE_SYSTEM = {"ports/ports.hpp": {"cpuid.h", "sys/auxv.h", "sys/sysctl.h"}}

ISA = re.compile(r"__(x86_64|i386|SSE|SSSE|AVX|FMA|BMI|ARM|arm|aarch64|riscv|VSX|wasm)|_M_(X64|IX86|ARM)|NIBKV_PORT_")
WORDS = re.compile(
    r"\bnew\b|(?<!= )\bdelete\b|\b(throw|try|catch|virtual|dynamic_cast|typeid|thread_local|mutable|goto|asm)\b"
    r"|\b(m|c|re)alloc\b|\b(free|alloca|abort|exit|terminate|assert|setjmp|longjmp)\s*\("
    r"|\b[a-z]*printf\b|\bstd(in|out|err)\b|\bFILE\b"
    r"|\bstd::(vector|string|deque|list|forward_list|map|set|multimap|multiset|unordered_\w+|function|any|(unique|shared)_ptr"
    r"|make_(unique|shared)|optional|variant|mutex|thread|atomic|exception|cout|cerr|pmr)\b")
# Programs of an operating system: they may use all of the standard library.
HOSTED = {"lib/examples/engine.cpp", "lib/examples/speculative.cpp"}
# One compiler per file at the same time: too much for the memory of a small machine.
UNBOUNDED = re.compile(r"(cmake --build|ninja|make)\b[^|&;`]*\s(-j|--parallel)(?! *[\d\"$])")
COMMENT = re.compile(r"(\s*(?://[/!]?|/?\*)) (\S.*)")
NO_TEXT = {"__pycache__", "findings"}  # a fuzzer's findings are bytes
SOURCES = {".c", ".h", ".cpp", ".hpp", ".inc"}
TEXT = {".cpp", ".hpp", ".inc", ".py", ".sh", ".cmake", ".txt", ".md", ".ld", ".c", ".h", ""}


# The one header of the library for operating systems, which nothing else includes.
HOSTED_HEADERS = {"lib/include/nibkv/file_store.hpp": {"cerrno", "fcntl.h", "sys/mman.h", "sys/stat.h", "sys/types.h", "unistd.h"}}


def code_only(text):
    """The text with comments and literals blanked, lines kept."""
    pattern = r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])+'"

    def blank(match):
        before = match.string[match.start() - 1:match.start()]
        if match[0][0] == "'" and before.isalnum():  # a digit separator
            return match[0]
        return re.sub(r"[^\n]", " ", match[0])

    return re.sub(pattern, blank, text, flags=re.DOTALL)


def lone_words(path, text):
    """Lines of a comment, after its first, that have a single word: the wrapping left it over."""
    before = None
    for number, line in enumerate(text.splitlines(), 1):
        comment = COMMENT.fullmatch(line)
        words = comment[2].removesuffix("*/").split() if comment else []
        mark = comment[1].strip().replace("/*", "*") if comment else None
        if mark and mark == before and len(words) == 1 and words[0][0].isalpha() and not words[0].endswith(":"):
            yield f"{path}:{number}: {words[0]} is alone on a line of a comment"
        before = mark if len(words) > 1 else None


def wide_comments(path, text):
    for number, (line, code) in enumerate(zip(text.splitlines(), code_only(text).splitlines()), 1):
        if len(line) > MOST_COLUMNS and len(code.rstrip()) < len(line):
            yield f"{path}:{number}: a comment up to column {len(line)}, beyond {MOST_COLUMNS}"


def allowed_headers(path):
    if path.startswith("lib/"):
        return STANDARD | HOSTED_HEADERS.get(path, set())
    if path.count("/") > 1 or path == "ports/kernels.hpp":
        return PORT_STANDARD | INTRINSICS
    return STANDARD | ASKS_THE_SYSTEM.get(path, set())


def folders_above(path):
    """Folders of lib/src whose files a file may not include."""
    folder = path.split("/")[2] if path.startswith("lib/src/") else ""
    return FOLDERS[FOLDERS.index(folder) + 1:] if folder in FOLDERS else ()


def code_faults(path, text):
    for number, line in enumerate(text.splitlines(), 1):
        include = re.match(r"\s*#\s*include\s*(?:<(.*)>|\"(.*)\")", line)
        if include and include[1] and include[1] not in allowed_headers(path):
            yield f"{path}:{number}: header <{include[1]}>"
        if include and include[2] and re.match(r"(bench|tests)/|\.\./|/", include[2]):
            yield f"{path}:{number}: header \"{include[2]}\""
        if include and include[2] and path.startswith("lib/") and f"lib/include/{include[2]}" in HOSTED_HEADERS:
            yield f"{path}:{number}: header \"{include[2]}\" is for operating systems"
        above = re.match(r"\s*#\s*include\s*\"(\w+)/", line)
        if above and above[1] in folders_above(path):
            yield f"{path}:{number}: lib/src/{above[1]} is above this folder"
    for number, line in enumerate(code_only(text).splitlines(), 1):
        if path.startswith("lib/") and re.match(r"\s*#\s*(el)?if", line) and ISA.search(line):
            yield f"{path}:{number}: a condition on the CPU outside ports/"
        word = None if re.match(r"\s*#\s*include", line) else WORDS.search(line)
        if word:
            yield f"{path}:{number}: {word[0]}"


def headings(text):
    """Names by which links find the headings of a page, as GitHub makes them: the second of a name ends in -1."""
    names, times = set(), {}
    for title in re.findall(r"^#+ +(.*?) *$", text, flags=re.M):
        plain = name = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        while name in names:
            times[plain] = times.get(plain, 0) + 1
            name = f"{plain}-{times[plain]}"
        names.add(name)
    return names


def prose_only(text):
    """A page with its code blanked, lines kept."""
    code = r"^ *(```+|~~~+).*?^ *\1[`~]*$|^(?:    |\t).*?$|(?<!`)(`+)(?!`)(?:(?!\n\n).)+?(?<!`)\2(?!`)"
    return re.sub(code, lambda match: re.sub(r"[^\n]", " ", match[0]), text, flags=re.DOTALL | re.MULTILINE)


def link_faults(root, path, text):
    lines = prose_only(text).splitlines()
    label = lambda words: " ".join(words.lower().split())
    defined = {label(words) for line in lines for words in re.findall(r"^ {0,3}\[([^\]]+)\]:", line)}
    for number, line in enumerate(lines, 1):
        for words, name in re.findall(r"(?<![\w\]])\[([^\[\]]+)\]\[([^\[\]]*)\]", line):  # after a letter it is an index
            if label(name or words) not in defined:
                yield f"{path}:{number}: a link to nothing, [{name or words}]"
        targets = re.findall(r"\]\((?![a-z]+:)([^)#]*)#?([^)]*)\)", line)
        targets += re.findall(r"^ {0,3}\[[^\]]+\]: *<?(?![a-z]+:)([^\s#>]*)#?([^\s>]*)", line)
        for target, heading in targets:
            page = root / path if not target else (root / path).parent / target
            if not page.exists() or (heading and (not page.is_file() or heading not in headings(page.read_text("utf-8", "replace")))):
                yield f"{path}:{number}: a link to nothing, {target}#{heading}"


def file_faults(root, file):
    path = file.relative_to(root).as_posix()
    data = file.read_bytes()
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.isascii():
            yield f"{path}:{number}: a character beyond ASCII"
        if file.suffix != ".py" and UNBOUNDED.search(line.decode("utf-8", "replace")):
            yield f"{path}:{number}: a parallel build without a bound"
    text = data.decode("utf-8", "replace")
    if file.suffix in SOURCES:
        yield from lone_words(path, text)
    if file.suffix in SOURCES and path.startswith(("lib/", "ports/")):
        yield from wide_comments(path, text)
    if file.suffix == ".md":
        yield from link_faults(root, path, text)
    if path.startswith(("lib/", "ports/")) and file.suffix in (".cpp", ".hpp", ".inc") and path not in HOSTED:
        yield from code_faults(path, text)


def unknown_presets(root):
    """Presets that one of the lists made by hand lacks."""
    names = re.findall(r'^ *\{"(\w+)",', (root / "lib/src/arena/policy.cpp").read_text(), flags=re.M)
    if len(names) < 10:
        yield f"lib/src/arena/policy.cpp: {len(names)} presets"
    for path, pattern in (("lib/include/nibkv/policy.hpp", '"%s"'), ("lib/include/nibkv/nibkv.h", '"%s"'),
                          ("lib/include/nibkv/nibkv.h", r"NIBKV_FOOTPRINT_(?i:%s)\("), ("lib/src/c_api/agreement.cpp", r"AGREES_\(%s(_window)?,"),
                          ("bench/eval/commands/help.cpp", r"\b%s\b"), ("README.md", "`%s`")):
        text = (root / path).read_text()
        for name in names:
            if not re.search(pattern % name, text):
                yield f"{path}: the preset {name} is not there, as {pattern % name}"


def ports_not_chosen(root):
    """Ports that CMake can build and that ports.hpp does not list, so that no cache would ever use them."""
    names = re.findall(r"\bnibkv_add_port\((\w+)", (root / "lib/CMakeLists.txt").read_text())
    ladder = (root / "ports/ports.hpp").read_text()
    for name in sorted({*names} - {"scalar"}):
        if not re.search(r"#ifdef NIBKV_PORT_%s\n *\{&k\w+Kernels, runs_%s\}," % (name.upper(), name), ladder):
            yield f"ports/ports.hpp: kPorts lacks the port {name}"
    if len(names) < 8:
        yield f"lib/CMakeLists.txt: {len(names)} ports"


def crowded(root):
    """Folders with more sources than one looks through."""
    for part in ("lib", "ports", "tests", "bench"):
        for folder in sorted({file.parent for file in (root / part).rglob("*") if file.suffix in SOURCES}):
            count = sum(file.suffix in SOURCES for file in folder.iterdir())
            if count > MOST_SOURCES and folder.name != "nibkv":
                yield f"{folder.relative_to(root).as_posix()}: {count} sources, more than {MOST_SOURCES}"


def faults(root):
    found, count = [*crowded(root), *unknown_presets(root), *ports_not_chosen(root)], 0
    for folder in ("README.md", "lib", "ports", "tests", "bench", "toolchains", ".ci", ".github"):
        for file in sorted((root / folder).rglob("*")) or [root / folder]:
            if not file.is_file() or file.suffix not in TEXT or NO_TEXT.intersection(file.parts):
                continue
            count += 1
            found.extend(file_faults(root, file))
    if count == 0:
        found.append(f"{root}: no sources")
    return found, count


def main():
    found, count = faults(pathlib.Path(sys.argv[1]))
    print(*found, sep="\n")
    print(f"{count} files, {len(found)} faults")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
