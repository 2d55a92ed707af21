"""The library never prints and never ends the process: its objects refer to nothing that does.

Usage: no_console.py NM LIBRARY
"""

import re
import subprocess
import sys

FORBIDDEN = re.compile(
    r"^(std::(__1::)?(cout|cerr|clog|wcout|wcerr|wclog|exit|abort|quick_exit)|std(out|err)"
    r"|(__)?v?[fd]?printf(_chk)?|putchar|f?puts|f?putc|fwrite|perror|syslog|_?exit|_Exit|quick_exit|abort"
    r"|fmt::v\d+::v?print\(.*)(@.*)?$")


def main():
    nm, library = sys.argv[1:]
    text = subprocess.run([nm, "-C", "-A", "--undefined-only", library], check=True, capture_output=True, text=True).stdout
    problems, seen = [], 0
    for line in text.splitlines():
        match = re.match(r"^(.*?):\s+U (.*)$", line)
        if not match:
            continue
        seen += 1
        if FORBIDDEN.match(match.group(2)):
            problems.append(f"{match.group(1)}: refers to {match.group(2)}; throw an error of engine/error.hpp instead")
    for problem in problems:
        print(problem)
    print(f"no_console: {len(problems)} problems in {seen} references")
    sys.exit(1 if problems or seen == 0 else 0)


main()
