// The one main() of the test programs: doctest's own, plus a last line that scripts can parse.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cstdio>

#include "engine/cpu.hpp"
#include "engine/error.hpp"

namespace {

constexpr int kSkipped = 77;  // meson's exit code for "skipped"

struct Totals {
  unsigned passed = 0;
  unsigned failed = 0;
};
Totals totals;

/// Counts test cases and prints nothing, so that it can run alongside doctest's console reporter.
struct CountingListener : doctest::IReporter {
  explicit CountingListener(const doctest::ContextOptions&) {}
  void report_query(const doctest::QueryData&) override {}
  void test_run_start() override {}
  void test_run_end(const doctest::TestRunStats& stats) override {
    totals.failed = stats.numTestCasesFailed;
    totals.passed = stats.numTestCasesPassingFilters - stats.numTestCasesFailed;
  }
  void test_case_start(const doctest::TestCaseData&) override {}
  void test_case_reenter(const doctest::TestCaseData&) override {}
  void test_case_end(const doctest::CurrentTestCaseStats&) override {}
  void test_case_exception(const doctest::TestCaseException&) override {}
  void subcase_start(const doctest::SubcaseSignature&) override {}
  void subcase_end() override {}
  void log_assert(const doctest::AssertData&) override {}
  void log_message(const doctest::MessageData&) override {}
  void test_case_skipped(const doctest::TestCaseData&) override {}
};

REGISTER_LISTENER("counting", 1, CountingListener);

}  // namespace

int main(int argc, char** argv) {
  try {
    nibble::active_isa();
  } catch (const nibble::UnsupportedError& error) {
    // NIBBLE_ISA asks for a level that this machine lacks: nothing to test here, but that is not a success either.
    fmt::print("tests skipped: {}\n", error.what());
    return kSkipped;
  } catch (const nibble::Error& error) {
    fmt::print("tests not run: {}\n", error.what());
    return 1;
  }
  doctest::Context context(argc, argv);
  const int result = context.run();
  if (context.shouldExit()) return result;  // a query such as --list-test-cases
  fmt::print("nibble-tests: {} passed, {} failed\n", totals.passed, totals.failed);
  std::fflush(stdout);
  if (totals.passed + totals.failed == 0) {
    fmt::print("tests not run: no test case matches the filters\n");
    return 1;
  }
  return result;
}
