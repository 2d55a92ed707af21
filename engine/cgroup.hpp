// What the container or slice that this process runs in allows it: control groups of Linux, version 1 and 2.
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

namespace nibble {

/// Where limits are read: the hierarchies' mount and the groups of a process in it. A limit of a group holds for all
/// groups below it, so every one up to the mount counts.
struct ControlGroups {
  std::filesystem::path mount = "/sys/fs/cgroup";
  std::string membership;  // text like that of /proc/self/cgroup
};

/// Those of this process.
ControlGroups own_control_groups();

/// The CPU quota in cores, the smallest of all groups; none: no group has one.
std::optional<double> cpu_quota(const ControlGroups& groups);

/// Bytes of memory that may be used, the smallest limit of all groups; none: no group has one.
std::optional<int64_t> memory_limit(const ControlGroups& groups);

/// Bytes of it that may still be taken, the least of all groups: a group's limit less what it holds, but for files that
/// the kernel would drop first (memory.stat, inactive_file); none: no group has a limit. Not negative.
std::optional<int64_t> memory_left(const ControlGroups& groups);

}  // namespace nibble
