"""A kernel level's library defines nothing that the linker could take in place of another level's code.

Usage: isa_symbols.py NM LEVEL ARCHIVE

Whatever is compiled with a level's flags and is not local to its file may be the copy that the linker keeps for the
whole program, and then crashes older CPUs. So the one strong symbol allowed is nibble::kernels::<level>::kTable. Weak
symbols (inline functions that an unoptimised build leaves behind) must have a name that no other level can produce: one
that contains the level's own namespace, nibble::kernels::<level> or nibble_xsimd_<level> (xsimd, renamed per level).
"""

import re
import subprocess
import sys

# A pointer to the C++ runtime's exception handler: data, the same everywhere. And clang's way out of noexcept functions:
# two calls into the runtime, no instruction of the level.
HARMLESS = {"DW.ref.__gxx_personality_v0", "__clang_call_terminate"}


def main():
    nm, level, archive = sys.argv[1:]
    lines = subprocess.run([nm, "-C", "--defined-only", archive], check=True, capture_output=True, text=True).stdout
    own = re.compile(rf"\bnibble::kernels::{level}::|\bnibble_xsimd_{level}::")
    table = f"nibble::kernels::{level}::kTable"
    problems, seen, has_table = [], 0, False
    for line in lines.splitlines():
        match = re.match(r"^[0-9a-f]* *([A-Za-z]) (.*)$", line)
        if not match:
            continue
        kind, name = match.groups()
        seen += 1
        has_table |= name == table and kind in "RDB"
        if (kind.islower() and kind not in "vwu") or name in HARMLESS:
            continue  # local to its file
        weak = kind in "VWvwu"
        if (weak and not own.search(name)) or (not weak and name != table):
            problems.append(f"{archive}: {kind} {name}: not local to its file (use an unnamed namespace)")
    if not has_table:
        problems.append(f"{archive}: does not define {table}")
    for problem in problems:
        print(problem)
    print(f"isa_symbols {level}: {len(problems)} problems in {seen} symbols")
    sys.exit(1 if problems else 0)


main()
