"""A kernel level's library defines nothing that the linker could take in place of another level's code.

Usage: isa_symbols.py NM LEVEL ARCHIVE

Whatever is compiled with a level's flags and is not local to its file may be the copy that the linker keeps for the
whole program, and then crashes older CPUs. So the one strong symbol allowed is nibble::kernels::<level>::kTable;
everything else is in the level's namespace or an unnamed one, or (weak, in debug builds) an xsimd function of the
level's own architecture tags.
"""

import re
import subprocess
import sys

# Architecture tags that no other level instantiates. avx512 and its successors share the tag avx512bw: a copy of either
# runs wherever the other one does only with the same flags, so the successors may not instantiate it at all.
XSIMD_TAGS = {"scalar": "sse2|generic", "avx2": "fma3<xsimd::avx2>|avx2", "avx512": "avx512bw|avx512dq|avx512f"}


def main():
    nm, level, archive = sys.argv[1:]
    lines = subprocess.run([nm, "-C", "--defined-only", archive], check=True, capture_output=True, text=True).stdout
    own = re.compile(rf"(vtable for |guard variable for )?nibble::kernels::{level}::")
    table = f"nibble::kernels::{level}::kTable"
    tags = XSIMD_TAGS.get(level)
    problems, seen, has_table = [], 0, False
    for line in lines.splitlines():
        match = re.match(r"^[0-9a-f]* *([A-Za-z]) (.*)$", line)
        if not match:
            continue
        kind, name = match.groups()
        seen += 1
        has_table |= name == table and kind in "RDB"
        if kind.islower() and kind not in "vwu":
            continue  # local to its file
        strong_elsewhere = kind in "TRDBG" and name != table
        weak_elsewhere = kind in "VWvwu" and not own.match(name) and not (
            tags and re.search(r"\bxsimd::", name) and re.search(rf"xsimd::({tags})\b", name))
        if strong_elsewhere or weak_elsewhere:
            problems.append(f"{archive}: {kind} {name}: not local to its file (use an unnamed namespace)")
    if not has_table:
        problems.append(f"{archive}: does not define {table}")
    for problem in problems:
        print(problem)
    print(f"isa_symbols {level}: {len(problems)} problems in {seen} symbols")
    sys.exit(1 if problems else 0)


main()
