#include "engine/cgroup.hpp"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <sstream>
#include <vector>

namespace nibble {

namespace {

namespace fs = std::filesystem;

/// The folders of one membership, from the group itself up to the mount. A container may show the path that its group
/// has outside: of that only the mount is there.
std::vector<fs::path> folders_up(const fs::path& mount, const std::string& group) {
  std::vector<fs::path> all;
  for (fs::path at = fs::path(group).relative_path(); !at.empty(); at = at.parent_path()) all.push_back(mount / at);
  all.push_back(mount);
  return all;
}

/// The mount itself counts whatever the lines say. Lines of /proc/self/cgroup are ID:CONTROLLERS:PATH; version 2 has
/// one, with ID 0 and no controllers, version 1 one per hierarchy, which is mounted under its controllers' names.
template <typename Body>
void for_each_folder(const ControlGroups& groups, const std::string& controller, const Body& body) {
  body(groups.mount, /*version=*/2);
  body(groups.mount / controller, /*version=*/1);
  std::istringstream lines(groups.membership);
  for (std::string line; std::getline(lines, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1), path = line.substr(second + 1);
    if (controllers.empty()) {
      for (const fs::path& folder : folders_up(groups.mount, path)) body(folder, /*version=*/2);
    } else if (("," + controllers + ",").find("," + controller + ",") != std::string::npos) {
      for (const fs::path& folder : folders_up(groups.mount / controller, path)) body(folder, /*version=*/1);
    }
  }
}

template <typename T>
void lower(std::optional<T>& least, T value) {
  least = least ? std::min(*least, value) : value;
}

/// Of one group; none: it has no limit.
std::optional<int64_t> limit_of(const fs::path& folder, int version) {
  int64_t bytes = 0;
  std::ifstream(folder / (version == 2 ? "memory.max" : "memory.limit_in_bytes")) >> bytes;
  // Version 1 writes the largest whole number of pages where version 2 has "max".
  constexpr int64_t kNoLimit = int64_t{1} << 62;
  return bytes > 0 && bytes < kNoLimit ? std::optional(bytes) : std::nullopt;
}

}  // namespace

ControlGroups own_control_groups() {
  std::ifstream in("/proc/self/cgroup");
  return {.membership = {std::istreambuf_iterator<char>(in), {}}};
}

std::optional<double> cpu_quota(const ControlGroups& groups) {
  std::optional<double> cores;
  for_each_folder(groups, "cpu", [&](const fs::path& folder, int version) {
    double quota = 0, period = 0;  // microseconds; "max" and -1 are no limit
    if (version == 2) {
      std::ifstream(folder / "cpu.max") >> quota >> period;
    } else {
      std::ifstream(folder / "cpu.cfs_quota_us") >> quota;
      std::ifstream(folder / "cpu.cfs_period_us") >> period;
    }
    if (quota > 0 && period > 0) lower(cores, quota / period);
  });
  return cores;
}

std::optional<int64_t> memory_limit(const ControlGroups& groups) {
  std::optional<int64_t> limit;
  for_each_folder(groups, "memory", [&](const fs::path& folder, int version) {
    if (const auto bytes = limit_of(folder, version)) lower(limit, *bytes);
  });
  return limit;
}

std::optional<int64_t> memory_left(const ControlGroups& groups) {
  std::optional<int64_t> left;
  for_each_folder(groups, "memory", [&](const fs::path& folder, int version) {
    const auto limit = limit_of(folder, version);
    if (!limit) return;
    int64_t held = 0, droppable = 0;
    std::ifstream(folder / (version == 2 ? "memory.current" : "memory.usage_in_bytes")) >> held;
    std::ifstream statistics(folder / "memory.stat");
    std::string key;
    for (int64_t value = 0; statistics >> key >> value;)
      if (key == (version == 2 ? "inactive_file" : "total_inactive_file")) droppable = value;
    lower(left, std::max<int64_t>(0, *limit - std::max<int64_t>(0, held - droppable)));
  });
  return left;
}

}  // namespace nibble
