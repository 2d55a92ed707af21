"""Sources are plain ASCII without tabs, trailing blanks or carriage returns, and end with one newline."""

import tree

TEXT = tree.CODE + (".md", ".sh", ".py", ".build", ".txt", ".toml")


def problems_of(path, text):
    for number, line in enumerate(text.split("\n"), 1):
        odd = next((c for c in line if not " " <= c <= "~"), None)
        if odd is not None:
            yield f"{path}:{number}: the character U+{ord(odd):04X} is not printable ASCII"
        elif line != line.rstrip():
            yield f"{path}:{number}: trailing blank"
    if text and (not text.endswith("\n") or text.endswith("\n\n")):
        yield f"{path}: must end with exactly one newline"


def main():
    top = tree.root()
    all_files = list(tree.files(*TEXT))
    all_files += [(p.name, p.read_text(encoding="utf-8", errors="surrogateescape")) for p in sorted(top.iterdir())
                  if p.is_file() and p.suffix in TEXT]
    problems = [problem for path, text in all_files for problem in problems_of(path, text)]
    tree.report("ascii_only", len(all_files), problems)


main()
