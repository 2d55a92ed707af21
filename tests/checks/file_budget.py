"""No source file is longer than 600 lines (then it has become two things), and each says its purpose first.

The longest files and the total are printed, so that growth is seen in every run.
"""

import tree

MAX_LINES = 600


def main():
    sizes = [(text.count("\n"), path) for path, text in tree.files(*tree.CODE)]
    sizes.sort(reverse=True)
    print(f"{sum(n for n, _ in sizes)} lines; longest:", ", ".join(f"{path} {n}" for n, path in sizes[:5]))
    problems = [f"{path}: {n} lines, more than {MAX_LINES}; cut it along its purposes" for n, path in sizes if n > MAX_LINES]
    for path, text in tree.files(".hpp"):
        if not text.startswith("//"):
            problems.append(f"{path}:1: the first line must say the file's purpose in a comment")
    tree.report("file_budget", len(sizes), problems)


main()
