"""Every header compiles as the first line of a file, so that includes never depend on their order.

Usage: headers_alone.py ROOT FLAGS-OF-LEVELS -- COMPILER ARGUMENT...
FLAGS-OF-LEVELS is "level=flag flag;level=flag ...": what headers below ops/kernels/isa/<level>/ are compiled with.
Bodies for inclusion (*.inl.hpp) are no headers and are left out.
"""

import concurrent.futures
import os
import subprocess
import sys
import tempfile

import tree


def compile_alone(command, path, flags):
    with tempfile.NamedTemporaryFile("w", suffix=".cpp") as source:
        # Twice: the second inclusion proves the guard.
        source.write(f'#include "{path}"\n#include "{path}"\n')
        source.flush()
        done = subprocess.run([*command, *flags, "-I", str(tree.root()), "-fsyntax-only", source.name],
                              capture_output=True, text=True)
    return f"{path}: does not compile alone\n{done.stderr.strip()}" if done.returncode else None


def main():
    split = sys.argv.index("--")
    levels = dict(item.split("=", 1) for item in sys.argv[2].split(";"))
    command = sys.argv[split + 1:]
    jobs = []
    for path, _ in tree.files(".hpp"):
        if path.endswith(".inl.hpp"):
            continue
        parts = path.split("/")
        level = parts[3] if parts[:3] == ["ops", "kernels", "isa"] and len(parts) > 4 else "scalar"
        if level in levels:
            jobs.append((path, levels[level].split()))
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(lambda job: compile_alone(command, *job), jobs))
    tree.report("headers_alone", len(jobs), [result for result in results if result])


main()
