"""Every header compiles as the first line of a file, so that includes never depend on their order.

Usage: headers_alone.py ROOT BUILD COMPILER ARGUMENT...
A header that some source of the build includes before anything else has been compiled so by the build itself
(BUILD/compile_commands.json lists the sources); only the others are compiled here, without those of the tests, which
are slow (doctest, JSON, SIMDe) and nobody's interface. That a second
inclusion does no harm is the work of #pragma once, which every header must have.
Bodies for inclusion are no headers and are left out: *.inl.hpp, and what the kernel levels instantiate below
ops/kernels/generic/ and ops/kernels/isa/<level>/.
"""

import concurrent.futures
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import tree


def is_body(path):
    return (path.endswith(".inl.hpp") or path.startswith("ops/kernels/generic/")
            or (path.startswith("ops/kernels/isa/") and path.count("/") > 3))


def first_include(text):
    """The header of ours that the source includes before any other directive, or None."""
    directive = re.search(r'^[ \t]*#.*', text, re.MULTILINE)
    found = directive and re.match(r'[ \t]*#[ \t]*include[ \t]*"([^"]+)"', directive.group())
    return found.group(1) if found else None


def compiled_by(build):
    """The headers that the build compiles as the first line of a file."""
    entries = json.loads((build / "compile_commands.json").read_text(encoding="utf-8"))
    sources = {(pathlib.Path(entry["directory"]) / entry["file"]).resolve() for entry in entries}
    return {first_include(path.read_text(encoding="utf-8")) for path in sources if path.is_file()}


def compile_alone(command, path):
    with tempfile.NamedTemporaryFile("w", suffix=".cpp") as source:
        source.write(f'#include "{path}"\n')
        source.flush()
        done = subprocess.run([*command, "-I", str(tree.root()), "-fsyntax-only", source.name],
                              capture_output=True, text=True)
    return f"{path}: does not compile alone\n{done.stderr.strip()}" if done.returncode else None


def main():
    build, command = pathlib.Path(sys.argv[2]), sys.argv[3:]
    headers = {path: text for path, text in tree.files(".hpp") if not is_body(path)}
    unguarded = [f"{path}: has no #pragma once" for path, text in headers.items()
                 if not re.search(r'^#pragma once$', text, re.MULTILINE)]
    done = compiled_by(build)
    left = [path for path in headers if path not in done and not path.startswith("tests/")]
    with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        results = list(pool.map(lambda path: compile_alone(command, path), left))
    tree.report("headers_alone", len(headers), unguarded + [result for result in results if result])


main()
