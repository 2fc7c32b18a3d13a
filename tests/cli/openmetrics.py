#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""openmetrics.py FILE: is it OpenMetrics text 1.0.0, as far as Ballast uses it?"""
import re
import sys

SUFFIXES = {"gauge": [""], "counter": ["_total", "_created"], "info": ["_info"], "stateset": [""],
            "summary": ["", "_sum", "_count"], "unknown": [""]}
NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\[\\"n])*"'
SAMPLE = re.compile(rf"({NAME})(?:\{{({LABEL}(?:,{LABEL})*)?\}})? (-?[0-9][0-9.eE+-]*|NaN|[+-]Inf)(?: [0-9.]+)?")


def main():
    text = open(sys.argv[1], encoding="utf-8").read()
    if not text.endswith("# EOF\n"):
        sys.exit("it does not end with # EOF")
    families, family, kind, seen, metadata = set(), None, None, set(), set()
    for n, line in enumerate(text.split("\n")[:-2], 1):
        m = re.fullmatch(rf"# (TYPE|UNIT|HELP) ({NAME}) (.*)", line)
        if m:
            word, name, rest = m.groups()
            if name != family:
                if name in families:
                    sys.exit(f"{n}: family {name} is in two pieces")
                families.add(name)
                family, kind, metadata = name, "unknown", set()
            if word in metadata:
                sys.exit(f"{n}: {word} twice")
            metadata.add(word)
            if word == "TYPE":
                kind = rest
                if kind not in SUFFIXES:
                    sys.exit(f"{n}: unknown type {kind}")
            if word == "UNIT" and not name.endswith("_" + rest):
                sys.exit(f"{n}: {name} does not end with its unit {rest}")
            continue
        m = SAMPLE.fullmatch(line)
        if not m:
            sys.exit(f"{n}: neither metadata nor a sample: {line!r}")
        if family is None or m[1] not in [family + s for s in SUFFIXES[kind]]:
            sys.exit(f"{n}: {m[1]} does not belong to {family} ({kind})")
        if (m[1], m[2]) in seen:
            sys.exit(f"{n}: {m[1]} with these labels is there twice")
        seen.add((m[1], m[2]))
    if not seen:
        sys.exit("there is no sample")


main()
