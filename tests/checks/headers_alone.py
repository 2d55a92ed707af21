"""Every header compiles as the first line of a file, so that includes never depend on their order.

Usage: headers_alone.py ROOT COMPILER ARGUMENT...
Bodies for inclusion are no headers and are left out: *.inl.hpp, and what the kernel levels instantiate below
ops/kernels/generic/ and ops/kernels/isa/<level>/.
"""

import concurrent.futures
import os
import subprocess
import sys
import tempfile

import tree


def is_body(path):
    return (path.endswith(".inl.hpp") or path.startswith("ops/kernels/generic/")
            or (path.startswith("ops/kernels/isa/") and path.count("/") > 3))


def compile_alone(command, path):
    with tempfile.NamedTemporaryFile("w", suffix=".cpp") as source:
        # Twice: the second inclusion proves the guard.
        source.write(f'#include "{path}"\n#include "{path}"\n')
        source.flush()
        done = subprocess.run([*command, "-I", str(tree.root()), "-fsyntax-only", source.name],
                              capture_output=True, text=True)
    return f"{path}: does not compile alone\n{done.stderr.strip()}" if done.returncode else None


def main():
    command = sys.argv[2:]
    headers = [path for path, _ in tree.files(".hpp") if not is_body(path)]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(lambda path: compile_alone(command, path), headers))
    tree.report("headers_alone", len(headers), [result for result in results if result])


main()
