"""Under `set -o pipefail` no shell script pipes into a command that stops reading before the end of its input.

The writer of such a pipe is killed by SIGPIPE when the reader is faster than its last write, so that the pipeline fails
once in some hundred runs: of 3,000 times `printf '%s\\n' $eight_words | grep -qx first` eight did.
"""

import re

import tree

STOPS_EARLY = re.compile(r"\|\s*(head\b|grep\s+(-\w*[qm]|--quiet|--silent|--max-count)|sed\s.*\dq\b|awk\s.*\bexit\b)")


def problems_of(path, text):
    if "pipefail" not in text:
        return
    for number, line in enumerate(text.split("\n"), 1):
        found = STOPS_EARLY.search(line) if not line.lstrip().startswith("#") else None
        if found:
            yield f"{path}:{number}: `{found.group().strip()}` may stop reading early, and under pipefail that fails: use case, or awk to the end"


def main():
    scripts = list(tree.files(".sh"))
    ci = tree.root() / ".ci/run"
    if ci.is_file():
        scripts.append((".ci/run", ci.read_text(encoding="utf-8", errors="surrogateescape")))
    tree.report("shell_pipes", len(scripts), [problem for path, text in scripts for problem in problems_of(path, text)])


main()
