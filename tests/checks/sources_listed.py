"""Every source is listed by name in its room's meson.build, and every listed file exists.

Headers of the library rooms are listed too: they are what `meson install` installs.
"""

import re

import tree

LIBRARY = ("engine", "ops", "nn", "data")


def listed(top, room):
    """Relative paths of the .cpp and .hpp files named in the meson.build files below `room`."""
    found = set()
    for build in sorted((top / room).rglob("meson.build")):
        here = build.parent.relative_to(top).as_posix()
        text = re.sub(r"#[^\n]*", "", build.read_text(encoding="utf-8"))
        for name in re.findall(r"'([^'@]+\.[ch]pp)'", text):
            found.add(f"{here}/{name}")
    return found


def by_rule(path):
    """Files that a meson.build names by rule instead: kernel levels, from the dictionary of their flags."""
    inside = path.startswith(("ops/kernels/isa/", "ops/kernels/generic/"))
    return inside and (path.endswith(".hpp") or path.endswith("/table.cpp"))


def main():
    top, problems, seen = tree.root(), [], 0
    for room in tree.ROOMS:
        names = listed(top, room)
        suffixes = tree.CODE if room in LIBRARY else (".cpp",)
        present = {path for path, _ in tree.files(*suffixes, rooms=(room,)) if not by_rule(path)}
        seen += len(present)
        problems += [f"{path}: not listed in a meson.build of {room}/" for path in sorted(present - names)]
        gone = {path for path in names - present if path.endswith(suffixes)
                and not (top / path).exists() and not (top / (path + ".in")).exists()}  # .in: made while building
        problems += [f"{path}: listed in a meson.build of {room}/ and does not exist" for path in sorted(gone)]
    tree.report("sources_listed", seen, problems)


main()
