"""layering.py finds what it must: a small tree of right and wrong files, and the lines that it prints about them."""

import pathlib
import subprocess
import sys
import tempfile

LAYERING = sys.argv[1]

# file: its text, then what is said about it (nothing: it is right).
CASES = (
    ("nn/arrows.cpp", '#include "engine/tape.hpp"\n#include <vector>\n#include "ops/add.hpp"\n'),
    ("nn/upwards.cpp", '#include <vector>\n#include "apps/options.hpp"\n', ':2: nn/ may not include "apps/options.hpp"'),
    ("ops/upwards.hpp", '  #  include\t"nn/model.hpp"\n', ':1: ops/ may not include "nn/model.hpp"'),
    ("engine/relative.cpp", '#include "../nn/model.hpp"\n', ':1: engine/ may not include "../nn/model.hpp"'),
    ("nn/detour.cpp", '#include "nn/../apps/options.hpp"\n', ':1: nn/ may not include "nn/../apps/options.hpp"'),
    ("nn/own_detour.cpp", '#include "nn/study/../model.hpp"\n#include "./nn/model.hpp"\n'),
    ("data/table.cpp", '#include "ops/kernels/table.hpp"\n'),
    ("data/op.cpp", '#include "ops/add.hpp"\n', ':1: data/ may not include "ops/add.hpp"'),
    ("nn/angle.cpp", "\n# include <apps/options.hpp>\n", ":2: <apps/options.hpp> is a header of the project"),
    ("nn/own_angle.cpp", "#include <nn/model.hpp>\n", ":1: <nn/model.hpp> is a header of the project"),
    ("tests/angle.cpp", "#include <engine/tape.hpp>\n", ":1: <engine/tape.hpp> is a header of the project"),
    ("bench/angle.cpp", "#include <./engine/tape.hpp>\n", ":1: <./engine/tape.hpp> is a header of the project"),
    ("ops/angle.cpp", "#include <../nn/model.hpp>\n", ":1: <../nn/model.hpp> is a header of the project"),
    ("tests/anything.cpp", '#include "apps/options.hpp"\n#include <sys/wait.h>\n#include <nlohmann/json.hpp>\n'),
    ("nn/comment.cpp", '// #include <apps/options.hpp>\n/*\n#include "apps/options.hpp"\n*/\n'),
    ("engine/parallel.cpp", "#include <tbb/task_arena.h>\n"),
    ("nn/tbb.cpp", "#include <tbb/task_arena.h>\n", ":1: TBB "),
    ("data/variable.cpp", 'const char* home = std::getenv("HOME");\n', ":1: getenv "),
    ("nn/vectors.cpp", "#include <immintrin.h>\n", ":1: intrinsics "),
)


def lines_of(cases):
    """What layering.py prints about a tree of these files, without its last line, and its exit status."""
    with tempfile.TemporaryDirectory() as top:
        for path, text, *_ in cases:
            file = pathlib.Path(top, path)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        done = subprocess.run([sys.executable, "-B", LAYERING, top], capture_output=True, text=True, check=False)
    return done.stdout.splitlines()[:-1], done.returncode


def main():
    problems = []
    found, status = lines_of(CASES)
    if status != 1:
        problems.append(f"a tree with offences ends with {status}, not 1")
    for path, _, *said in CASES:
        mine = [line for line in found if line.startswith(path + ":")]
        if len(mine) != len(said) or any(not line.startswith(path + part) for line, part in zip(mine, said)):
            problems.append(f"{path}: expected {said}, found {mine}")
    right = [case for case in CASES if len(case) == 2]
    if lines_of(right) != ([], 0):
        problems.append(f"the right files alone: {lines_of(right)}")
    for problem in problems:
        print("layering_cases:", problem)
    print(f"layering_cases: {len(problems)} problems in {len(CASES)} files")
    sys.exit(1 if problems else 0)


main()
