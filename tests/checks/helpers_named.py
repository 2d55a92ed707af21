"""A test source that uses a helper of `nibble::testing` by its bare name says `using` for it itself.

Where sources are compiled ten at a time, as the suite's two builds do, the `using` of a neighbour hides one that is
missing, and whoever builds the tests one by one gets a compiler's error.
"""

import re

import tree

NOISE = re.compile(r'R"\w*\((?:.|\n)*?\)\w*"|"(?:\\.|[^"\\\n])*"|//[^\n]*')
SAID = re.compile(r"using (?:nibble::)?testing::(\w+);")
DECLARED = re.compile(r"^(?:inline )?[a-z][\w:<>,*& ]* [&*]?([a-z]\w+)\(|^(?:struct|class) (\w+)", re.M)
WHOLE = re.compile(r"using namespace (?:nibble::)?testing;|namespace nibble::testing\b")
NOT_A_TYPE = r"(?:return|throw|else|case|new|not|and|or)"


def uses(code, name):
    """Whether the code calls `name`, or for a type names it, without a scope and without declaring it."""
    if name[0].isupper():
        own = rf"(?:struct|class|enum|using) {name}\b"
        return not re.search(own, code) and re.search(rf"(?<![\w:.>]){name}\b", code)
    own = rf"(?<![\w:])(?!{NOT_A_TYPE}\b)[\w:]+[>&*]* [&*]?{name}(?:\(| = |;)"
    return not re.search(own, code) and re.search(rf"(?<![\w:.>]){name}\(", code)


def unnamed(text, helpers):
    code = NOISE.sub('""', text)
    if WHOLE.search(code):
        return []
    said = set(re.findall(r"using [\w:]*::(\w+);", code))
    helpers = helpers & set(re.findall(r"\w+", code))
    return [name for name in sorted(helpers - said) if uses(code, name)]


CAUGHT = ("CHECK(has(text, word));", "const Result r = f();", "return has(a, b);", "if (x) has(a, b);", "Result f();")
LEFT = ("using nibble::testing::has;\nhas(a, b);", "testing::has(a, b);", "using namespace testing;\nhas(a, b);", "x.has(a);",
        "bool has(int a);\nhas(3);", "// has(a)", 'f("has(a)");', "struct Result {};\nResult r;", "const auto has = f;\nhas(a);")


def declared(header):
    """Names of the functions and types that a header declares, each at the begin of a line as clang-format puts it."""
    return {function or kind for function, kind in DECLARED.findall(header)}


def main():
    wrong = [line for line in CAUGHT if not unnamed(line, {"has", "Result"})] + \
            [line for line in LEFT if unnamed(line, {"has", "Result"})]
    sources = list(tree.files(".cpp", rooms=("tests",)))
    helpers = {name for _, text in sources for name in SAID.findall(text)}
    for _, text in tree.files(".hpp", rooms=("tests",)):
        helpers |= declared(text.partition("namespace nibble::testing {")[2])
    for _, text in tree.files(".hpp", rooms=("engine", "ops", "nn", "data", "apps", "bench")):
        helpers -= declared(text)  # `using namespace nibble` may mean these
    tree.report("helpers_named", len(sources), [f"this rule misjudges `{line}`" for line in wrong] +
                [f"{path}: uses `{name}` and does not say `using nibble::testing::{name};`" for path, text in sources
                 for name in unnamed(text, helpers)])


main()
