// Limits of control groups, read from folders that look like those of the kernel.
#include "engine/cgroup.hpp"

#include <doctest/doctest.h>

#include <fstream>

#include "tests/temp_dir.hpp"

namespace nibble::testing {
namespace {

namespace fs = std::filesystem;

/// A mount in a folder of its own.
class Mount {
 public:
  void write(const std::string& file, const std::string& text) const {
    fs::create_directories((dir_.path() / file).parent_path());
    std::ofstream(dir_.path() / file) << text << "\n";
  }
  ControlGroups groups(const std::string& membership) const { return {.mount = dir_.path(), .membership = membership}; }

 private:
  TempDir dir_;
};

TEST_CASE("control groups: version 2 has the smallest limit of the group and all above it") {
  const Mount mount;
  mount.write("cpu.max", "max 100000");
  mount.write("a.slice/cpu.max", "150000 100000");
  mount.write("a.slice/memory.max", "4096");
  mount.write("a.slice/b.scope/cpu.max", "400000 100000");
  mount.write("a.slice/b.scope/memory.max", "max");
  const ControlGroups inner = mount.groups("0::/a.slice/b.scope\n");
  CHECK(cpu_quota(inner) == 1.5);
  CHECK(memory_limit(inner) == 4096);
  CHECK_FALSE(cpu_quota(mount.groups("0::/\n")).has_value());
  CHECK_FALSE(memory_limit(mount.groups("0::/\n")).has_value());
}

TEST_CASE("control groups: version 1 has a hierarchy for each controller, in which a container sees its own root") {
  const Mount mount;
  const std::string outside = "12:cpu,cpuacct:/docker/0123\n7:memory:/docker/0123\n3:cpuset:/docker/0123\n";
  mount.write("cpu/cpu.cfs_quota_us", "250000");
  mount.write("cpu/cpu.cfs_period_us", "100000");
  mount.write("memory/memory.limit_in_bytes", "123456789");
  CHECK(cpu_quota(mount.groups(outside)) == 2.5);
  CHECK(memory_limit(mount.groups(outside)) == 123456789);
  mount.write("cpu/cpu.cfs_quota_us", "-1");
  mount.write("memory/memory.limit_in_bytes", "9223372036854771712");  // its way to say none
  CHECK_FALSE(cpu_quota(mount.groups(outside)).has_value());
  CHECK_FALSE(memory_limit(mount.groups(outside)).has_value());
}

TEST_CASE("control groups: what is missing or sets no limit gives none") {
  const Mount mount;
  for (const std::string membership : {"", "garbage\n", "0::\n", "0::/gone\n", ":::\n", "5:cpu:/x\n"}) {
    INFO(membership);
    CHECK_FALSE(cpu_quota(mount.groups(membership)).has_value());
    CHECK_FALSE(memory_limit(mount.groups(membership)).has_value());
  }
  mount.write("cpu.max", "150000 100000");
  CHECK(cpu_quota(mount.groups("")) == 1.5);  // a /proc that shows nothing
  mount.write("cpu.max", "0 0");
  mount.write("memory.max", "-5");
  CHECK_FALSE(cpu_quota(mount.groups("0::/\n")).has_value());
  CHECK_FALSE(memory_limit(mount.groups("0::/\n")).has_value());
}

TEST_CASE("control groups: what is left of a limit is less what the group holds, but for files that would be dropped") {
  const Mount mount;
  mount.write("a.slice/memory.max", "1000000");
  mount.write("a.slice/memory.current", "700000");
  mount.write("a.slice/memory.stat", "anon 1\nactive_file 400000\ninactive_file 100000\nslab 5\n");
  mount.write("a.slice/b.scope/memory.max", "max");
  mount.write("a.slice/b.scope/memory.current", "650000");
  CHECK(memory_left(mount.groups("0::/a.slice/b.scope\n")) == 400000);
  mount.write("a.slice/b.scope/memory.max", "660000");
  CHECK(memory_left(mount.groups("0::/a.slice/b.scope\n")) == 10000);
  mount.write("a.slice/b.scope/memory.current", "670000");
  CHECK(memory_left(mount.groups("0::/a.slice/b.scope\n")) == 0);
  CHECK_FALSE(memory_left(mount.groups("0::/\n")).has_value());
  const Mount first;
  first.write("memory/memory.limit_in_bytes", "5000");
  CHECK(memory_left(first.groups("7:memory:/x\n")) == 5000);
  first.write("memory/memory.usage_in_bytes", "3000");
  first.write("memory/memory.stat", "cache 1\ninactive_file 7\ntotal_inactive_file 2000\n");
  CHECK(memory_left(first.groups("7:memory:/x\n")) == 4000);
}

}  // namespace
}  // namespace nibble::testing
