#!/usr/bin/env python3
"""Changes figures in bench/RESULTS.md's tables of sizes and expects bench/footprint/footprint --check to find only what grew too much.

    footprint_bite.py ROOT
"""
import importlib.machinery
import importlib.util
import pathlib
import re
import sys


def load(path):
    loader = importlib.machinery.SourceFileLoader("footprint", str(path))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("footprint", loader))
    loader.exec_module(module)
    return module


def changed(table, row, column, factor, plus=0):
    """The tables with one number made larger, in the row that begins like this."""
    def change(match):
        fields = match[0].split("|")
        number = re.search(r"[\d.]+", fields[column])[0]
        fields[column] = " %d " % (float(number) * factor + plus)
        return "|".join(fields)
    result, count = re.subn(r"^\| %s \|.*$" % re.escape(row), change, table, flags=re.M)
    assert count == 1, row
    return result


def main():
    script = load(pathlib.Path(sys.argv[1]) / "bench" / "footprint" / "footprint")
    _, table, _ = script.on_page()
    cells = script.cells(table)
    faults = []

    def expect(what, now, words):
        found = script.grown(cells, script.cells(now))
        if len(found) != len(words) or not all(word in line for word, line in zip(words, found)):
            faults.append("%s: %s" % (what, found))

    target, arena = "cortex-m7, `scalar`", "SmolLM2-135M | 4"
    expect("as it is", table, [])
    expect("2 % more flash", changed(table, target, 2, 1.02), [])
    expect("4 % more flash", changed(table, target, 2, 1.04), [target + ", flash"])
    expect("half the flash", changed(table, target, 2, 0.5), [])
    expect("a word of RAM", changed(table, target, 5, 1, 4), [target + ", RAM"])
    expect("4 % more stack", changed(table, target, 6, 1.04), [target + ", stack of `append`"])
    expect("a smaller object's 40 bytes", changed(table, "select", 4, 1, 40), [])
    expect("an object's 400 bytes", changed(table, "select", 4, 1, 400), ["select, armv7"])
    expect("4 % more arena", changed(table, arena, 4, 1.04), ["SmolLM2-135M, 4, bytes per token"])
    expect("a new object", table.replace("| score |", "| scores |"), [])
    print(*faults, sep="\n")
    print("%d cells, %d faults" % (len(cells), len(faults)))
    return 1 if faults or not cells else 0


if __name__ == "__main__":
    sys.exit(main())
