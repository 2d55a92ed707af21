"""What the executed rules share: the files of the tree and the way a rule reports."""

import pathlib
import sys

ROOMS = ("engine", "ops", "nn", "data", "apps", "tests", "bench")
CODE = (".cpp", ".hpp")


def root():
    """The source root: the first argument of the rule, else two folders up from here."""
    return pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parents[2]).resolve()


def files(*suffixes, rooms=ROOMS):
    """(path relative to the root, its text) of every file of the rooms that ends like one of `suffixes`."""
    top = root()
    for room in rooms:
        for path in sorted((top / room).rglob("*")):
            if path.is_file() and path.suffix in suffixes:
                yield path.relative_to(top).as_posix(), path.read_text(encoding="utf-8", errors="surrogateescape")


def report(rule, seen, problems):
    """Prints the problems and ends the rule: 0 when there are none, 1 otherwise (or when it saw nothing at all)."""
    for problem in problems:
        print(problem)
    print(f"{rule}: {len(problems)} problems in {seen} files")
    sys.exit(1 if problems or seen == 0 else 0)
