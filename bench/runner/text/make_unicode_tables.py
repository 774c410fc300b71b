#!/usr/bin/env python3
"""Writes unicode_tables.inc: the code point classes that the tokenizer's pre-splitters need.

Usage: python3 make_unicode_tables.py > unicode_tables.inc

Each entry starts a run of code points of one class and holds first << 2 | class; a run ends where the next begins.
"""

import sys
import unicodedata

OTHER, LETTER, NUMBER, SPACE = range(4)  # the order of CodePointClass in unicode.hpp
COLUMNS = 120


def class_of(code_point):
    category = unicodedata.category(chr(code_point))
    if category[0] == "L":
        return LETTER
    if category[0] == "N":
        return NUMBER
    # White_Space is category Z and the control characters that break or indent lines.
    if category[0] == "Z" or 0x09 <= code_point <= 0x0D or code_point == 0x85:
        return SPACE
    return OTHER


def runs():
    previous = None
    for code_point in range(sys.maxunicode + 1):
        current = class_of(code_point)
        if current != previous:
            yield code_point << 2 | current
            previous = current


def main():
    print(f"// Made by make_unicode_tables.py from Unicode {unicodedata.unidata_version}; do not edit.")
    print("// clang-format off")
    line = ""
    for entry in runs():
        word = f"0x{entry:x},"
        if len(line) + 1 + len(word) > COLUMNS:
            print(line)
            line = ""
        line += (" " if line else "") + word
    print(line)
    print("// clang-format on")


if __name__ == "__main__":
    main()
