"""tally.py counts what it must: meson's logs in both spellings, what did not run, what ended early."""

import json
import pathlib
import subprocess
import sys
import tempfile

TALLY = sys.argv[1]


def record(name, result="OK", stdout="", code=0):
    return json.dumps({"name": name, "result": result, "stdout": stdout, "stderr": "", "returncode": code}) + "\n"


DONE = "nibble-tests: 3 passed, 0 failed\n"
# records of a log, how many programs were listed, the last line of the sum, its exit status
CASES = (
    ("good", record("nibble:unit / engine", stdout=DONE) + record("unit - nibble:ops", stdout=DONE), 2, "6 passed, 0 failed", 0),
    ("a check", record("nibble:checks / layering"), 1, "1 passed, 0 failed", 0),
    ("ended early", record("nibble:unit / engine"), 1, "0 passed, 1 failed", 1),
    ("failed", record("nibble:unit / engine", "FAIL", "nibble-tests: 2 passed, 1 failed\n", 1), 1, "2 passed, 1 failed", 1),
    ("crashed", record("nibble:unit / engine", "FAIL", DONE, -11), 1, "3 passed, 1 failed", 1),
    ("skipped", record("nibble:unit / avx2", "SKIP", "", 77) + record("nibble:unit / ops", stdout=DONE), 2, "3 passed, 0 failed", 0),
    ("a skipped case", record("nibble:unit / ops", stdout="TEST CASE:  a\nx.cpp:1: MESSAGE: skipped: none\n" + DONE), 1,
     "2 passed, 0 failed", 0),
    ("not run", record("nibble:unit / engine", stdout=DONE), 3, "3 passed, 2 failed", 1),
)


def run(*arguments):
    return subprocess.run([sys.executable, "-B", TALLY, *map(str, arguments)], capture_output=True, text=True, check=False)


def main():
    problems = []
    with tempfile.TemporaryDirectory() as top:
        for name, log, listed, last, status in CASES:
            tally, path = pathlib.Path(top, name + ".tsv"), pathlib.Path(top, name + ".json")
            path.write_text(log, encoding="utf-8")
            added, total = run("add", "gcc", tally, listed, path), run("sum", tally)
            if added.returncode != 0:
                problems.append(f"{name}: add ends with {added.returncode}: {added.stderr}")
            if total.stdout.splitlines()[-1:] != [last] or total.returncode != status:
                problems.append(f"{name}: `{last}` and {status} expected, {total.stdout.splitlines()[-1:]} and {total.returncode} found")
        empty = run("add", "gcc", pathlib.Path(top, "none.tsv"), 0)
        if empty.returncode != 1:
            problems.append(f"no log: add ends with {empty.returncode}, not 1")
        if run("sum", pathlib.Path(top, "nothing.tsv")).returncode != 1:
            problems.append("nothing ran: the sum ends with 0")
    for problem in problems:
        print("tally_cases:", problem)
    print(f"tally_cases: {len(problems)} problems in {len(CASES)} logs")
    sys.exit(1 if problems else 0)


main()
