"""Under `set -o pipefail` no shell script pipes into a command that stops reading before the end of its input.

The writer of such a pipe is killed by SIGPIPE when the reader is faster than its last write, so that the pipeline fails
once in some hundred runs: of 3,000 times `printf '%s\\n' $eight_words | grep -qx first` eight did.
"""

import re

import tree

STOPS_EARLY = re.compile(r"(?<!\|)\|&?\s*(?:\w+=\S*\s+)*"
                         r"(head\b|grep\b(?:\s+-\S+)*?\s+(?:-\w*[qm]|--quiet|--silent|--max-count)"
                         r"|sed\s[^|]*q\b|awk\s[^|]*\bexit\b)")
CAUGHT = ("a | head -n 1", "a|grep -q x", "a | grep -F -q x", "a | grep -E -m1 x", "a | sed '/x/q'", "a | sed q",
          "a | LC_ALL=C grep -q x", "a |& head", "a | awk '/x/ { exit }'")
LEFT = ("a || grep -q x f", "a || head -n1 f", "a | grep -c x", "a | sed -n p", "a | awk '{ print }'", "a | grep -vx q")


def commands(text):
    """(number, line), lines that end with a pipe or a backslash with what follows them."""
    whole, begun = "", 0
    for number, line in enumerate(text.split("\n"), 1):
        if whole and (not line.strip() or line.lstrip().startswith("#")):
            continue
        whole, begun = (whole + " " + line.lstrip(), begun) if whole else (line, number)
        code = re.sub(r"(^|\s)#[^'\"]*$", "", line)
        if re.search(r"(\||\\)\s*$", code):
            whole = re.sub(r"\s#[^'\"]*$", "", whole).rstrip().rstrip("\\")
            continue
        yield begun, whole
        whole = ""
    if whole:
        yield begun, whole


def problems_of(path, text):
    if "pipefail" not in text:
        return
    for number, line in commands(text):
        found = STOPS_EARLY.search(line) if not line.lstrip().startswith("#") else None
        if found:
            yield f"{path}:{number}: `{found.group().strip()}` may stop reading early, and under pipefail that fails: use case, or awk to the end"


def main():
    wrong = [line for line in CAUGHT if not STOPS_EARLY.search(line)] + [line for line in LEFT if STOPS_EARLY.search(line)]
    for split in ("a |\n  grep -q x", "a \\\n  | head -n 1", "a | sed -n p |\n  grep -q x", "a |\n  # why\n\n  head",
                  "a |  # why\n  grep -q x", "a | head |"):
        if not list(problems_of("x.sh", "set -o pipefail\n" + split)):
            wrong.append(split)
    scripts = list(tree.files(".sh"))
    ci = tree.root() / ".ci/run"
    if ci.is_file():
        scripts.append((".ci/run", ci.read_text(encoding="utf-8", errors="surrogateescape")))
    tree.report("shell_pipes", len(scripts), [f"this rule misjudges `{line}`" for line in wrong] +
                [problem for path, text in scripts for problem in problems_of(path, text)])


main()
