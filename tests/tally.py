"""Counts test cases honestly, for tests/run.sh.

tally.py add STAGE TALLY LISTED LOG...
                                  adds the programs of meson's JSON test logs: their own last line says how many test
                                  cases passed and failed; a program without that line counts as one failure, a check
                                  (which has none) as one case; so do all of the LISTED programs that no log has
tally.py sum TALLY                prints a table per stage and suite and, last, `N passed, N failed`; exit 1 on failures
"""

import collections
import json
import re
import sys

COUNTS = re.compile(r"^nibble-tests: (\d+) passed, (\d+) failed$", re.M)
NO_DATA = re.compile(r"\bMESSAGE: skipped:")
CASE = re.compile(r"^TEST CASE:", re.M)
GOOD = {"OK", "EXPECTEDFAIL"}


def count(record):
    """(passed, failed, skipped) test cases of one program."""
    if record["result"] == "SKIP":
        return 0, 0, 1
    found = COUNTS.findall(record.get("stdout") or "")
    passed, failed = (sum(int(f[i]) for f in found) for i in (0, 1))
    if record["result"] not in GOOD:
        return passed, max(failed, 1), 0
    if not found:  # of the checks; a program of test cases that does not say so has ended early
        return (1, 0, 0) if "checks" in suite_of(record).split() else (0, 1, 0)
    # A test case that lacks its data says `skipped: ...` and returns: doctest calls that passed, we do not.
    # The name of a case stands once before all that it says.
    skipped = min(passed, sum(NO_DATA.search(case) is not None for case in CASE.split(record["stdout"])))
    return passed - skipped, failed, skipped


def suite_of(record):
    """The suites of a program. The log has them in its name: "nibble:kernels+avx2 / ops/avx2" up to some version of
    meson, "kernels+avx2 - nibble:ops/avx2" from then on; a test without a suite has its name alone."""
    name = record["name"]
    if " / " in name:
        return name.split(" / ")[0].split(":")[-1].replace("+", " ")
    if " - " in name:
        return name.split(" - ")[0].replace("+", " ")
    return name


def show(record):
    """The end of what a failed program printed."""
    text = (record.get("stdout") or "") + (record.get("stderr") or "")
    code = record.get("returncode")
    print(f"FAIL  {record['name']} ({record['result']}, exit status {code}); the end of its output:")
    print("\n".join(text.rstrip().split("\n")[-60:]))


def add(stage, tally, listed, logs):
    records = 0
    with open(tally, "a", encoding="utf-8") as out:
        for log in logs:
            with open(log, encoding="utf-8", errors="replace") as lines:
                for line in lines:
                    record = json.loads(line)
                    records += 1
                    counts = count(record)
                    print(stage, suite_of(record), *counts, sep="\t", file=out)
                    if counts[1]:
                        show(record)
        if records < listed:  # meson was killed, or has not started them
            print(f"FAIL  {stage}: {listed - records} of {listed} programs did not run")
            print(stage, "not run", 0, listed - records, 0, sep="\t", file=out)
    return 0 if records else 1


def total(tally):
    rows = collections.OrderedDict()
    try:
        with open(tally, encoding="utf-8") as lines:
            for line in lines:
                stage, suite, *numbers = line.rstrip("\n").split("\t")
                old = rows.get((stage, suite), (0, 0, 0))
                rows[stage, suite] = tuple(a + int(b) for a, b in zip(old, numbers))
    except FileNotFoundError:
        print("nothing ran")
    print(f"{'stage':<14}{'suite':<28}{'passed':>8}{'failed':>8}{'skipped':>9}")
    for (stage, suite), (passed, failed, skipped) in rows.items():
        print(f"{stage:<14}{suite:<28}{passed:>8}{failed:>8}{skipped:>9}")
    passed, failed, skipped = (sum(row[i] for row in rows.values()) for i in range(3))
    if skipped:
        print(f"{skipped} skipped: a kernel level that is not on this machine, or test data that is not next to the "
              "source tree")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


def main():
    if sys.argv[1] == "add":
        return add(sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5:])
    return total(sys.argv[2])


sys.exit(main())
