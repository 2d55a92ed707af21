"""The arrows of the rooms, and the doors: TBB, getenv and intrinsics each live in one place.

engine <- ops <- nn <- apps, engine <- data <- apps; data may use the kernel table but no op; tests and bench may
include anything. Own headers stand in quotes everywhere, and a path counts as what it leads to, so that neither gets around the
arrows.
"""

import posixpath
import re

import tree

MAY_INCLUDE = {
    "engine": {"engine"},
    "ops": {"engine", "ops"},
    "nn": {"engine", "ops", "nn"},
    "data": {"engine", "data"},
    "apps": {"engine", "ops", "nn", "data", "apps"},
}
DATA_ALSO = {"ops/kernels/table.hpp"}
TEST_FOLDERS = ("tests", "bench")

# door: what opens it -> the only files (or folder, with a closing /) that may. tests/ reads its own variables.
INTRINSIC_HEADER = r"#\s*include\s*<(\w*intrin|arm_neon|cpuid|xsimd/xsimd)\.h(pp)?>"
DOORS = (
    # consumer.cpp is a host program with loops of its own.
    ("TBB", r"#\s*include\s*<(one)?(tbb|api)/|\btbb::", ("engine/parallel.cpp", "tests/checks/consumer.cpp"), tree.ROOMS),
    ("getenv", r"\b(secure_)?getenv\b|\benviron\b", ("engine/env.cpp",), ("engine", "ops", "nn", "data", "apps")),
    # cpu.cpp reads CPUID, parallel.cpp sets MXCSR: neither computes with vectors.
    (
        "intrinsics",
        INTRINSIC_HEADER + r"|\b_(mm\d*|tile)_\w+\(|\b__m(128|256|512)\w?\b|\bxsimd::",
        ("ops/kernels/isa/", "ops/kernels/generic/", "tests/kernels/emulated/", "engine/cpu.cpp", "engine/parallel.cpp"),
        tree.ROOMS,
    ),
)
NARROW = {
    "engine/cpu.cpp": r"#include <cpuid.h>",
    "engine/parallel.cpp": r"#include <xmmintrin.h>|\b_mm_[sg]etcsr\(|_MM_(FLUSH|DENORMALS|SET|GET)\w*",
}


def without_comments(text):
    return re.sub(r"//[^\n]*|/\*.*?\*/", lambda m: re.sub(r"[^\n]", " ", m.group()), text, flags=re.S)


def arrows(path, text):
    room = path.split("/")[0]
    for match in re.finditer(r'^\s*#\s*include\s*([<"])([^">]+)', text, flags=re.M):
        target, line = match.group(2), text.count("\n", 0, match.start(1)) + 1
        header = posixpath.normpath(target)
        if match.group(1) == "<":
            if header.split("/")[0] in (*tree.ROOMS, ".."):
                yield f"{path}:{line}: <{target}> is a header of the project; include it in quotes"
            continue
        if room in TEST_FOLDERS or (room == "data" and header in DATA_ALSO):
            continue
        if header.split("/")[0] not in MAY_INCLUDE[room]:
            yield f"{path}:{line}: {room}/ may not include \"{target}\" (see the map of rooms in README.md)"


def doors(path, text):
    for name, pattern, homes, rooms in DOORS:
        if path.split("/")[0] not in rooms:
            continue
        at_home = any(path == home or (home.endswith("/") and path.startswith(home)) for home in homes)
        if at_home and not (name == "intrinsics" and path in NARROW):
            continue
        for match in re.finditer(pattern, text):
            if at_home and re.match(NARROW[path], match.group()):
                continue
            line = text.count("\n", 0, match.start()) + 1
            yield f"{path}:{line}: {name} ('{match.group().strip()}') belongs in {', '.join(homes)} only"


def main():
    problems, seen = [], 0
    for path, text in tree.files(*tree.CODE):
        seen += 1
        code = without_comments(text)
        problems += arrows(path, code)
        problems += doors(path, code)
    tree.report("layering", seen, problems)


main()
