// Words that the program prints for a shell, and what a shell makes of them.
#include "apps/console.hpp"

#include <doctest/doctest.h>

#include <cstdlib>

#include "tests/apps/program.hpp"

namespace nibble::apps {
namespace {

using testing::has;
using testing::read_text;
using testing::TemporaryFolder;

TEST_CASE("console: words of printed commands are quoted where a shell needs it, and only there") {
  for (const char* plain : {"runs/a", "/tmp/lr=0.1_b-2,c@3:4+5%", "../w4a4-fl8-x1-s0", "caf\xc3\xa9"})
    CHECK(shell_quoted(plain) == plain);
  CHECK(shell_quoted("my run") == "'my run'");
  CHECK(shell_quoted("=ls") == "'=ls'");  // zsh: the path of ls
  CHECK(shell_quoted("") == "''");
  CHECK(shell_quoted("it's") == "'it'\\''s'");
  CHECK(shell_quoted("a\\b") == "'a\\b'");
  CHECK(shell_quoted("two\nlines's\\") == "$'two\\x0alines\\'s\\\\'");
  CHECK(shell_quoted("\xc2\x9b") == "$'\\xc2\\x9b'");  // U+009B, an escape of terminals
}

TEST_CASE("console: a shell reads a quoted word back as it was, and its printed form is the same") {
  const TemporaryFolder folder("quoted");
  const bool bash = std::system("command -v bash >/dev/null 2>&1") == 0;
  for (const std::string word : {"a b", "'", "''\"", "$HOME", "`id`", "~", "*", "a;b&c|d>e", "#", "!x", "\\", "\\n",
                                 "(a)", "{a,b}", "a\tb\n", "\x1b[31m'\\", "caf\xe9 au", "\x7f"}) {
    CAPTURE(word);
    const std::string quoted = shell_quoted(word);
    CHECK(one_line(quoted) == quoted);
    if (quoted[0] == '$' && !bash) continue;
    const std::string script = folder.write("script", "printf %s " + quoted + "\n");
    REQUIRE(std::system(((quoted[0] == '$' ? "bash " : "sh ") + script + " >" + (folder / "out")).c_str()) == 0);
    CHECK(read_text(folder / "out") == word);
  }
}

}  // namespace
}  // namespace nibble::apps
