// Atomic files: every failing, short or last system call leaves the old file or the new one, never a mixture.
#include "nn/atomic_file.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "engine/error.hpp"
#include "tests/temp_dir.hpp"

namespace {

using namespace nibble;
namespace fs = std::filesystem;

std::string content_of(const fs::path& path) {
  return read_text_file(path, 1 << 20);
}

int files_in(const fs::path& directory) {
  int n = 0;
  for ([[maybe_unused]] const auto& entry : fs::directory_iterator(directory)) ++n;
  return n;
}

/// What the replaced calls do: fail call number `fail_at` (0 is the first) with `error_number`, or leave the process.
struct Fault {
  int fail_at = -1;
  int error_number = 0;  // 0: _exit instead of failing, as kill -9 at that instant would
  size_t longest_write = SIZE_MAX;
  int calls = 0;
  std::string trace = {};
};
Fault fault;

bool strikes(char letter) {
  fault.trace += letter;
  if (fault.calls++ != fault.fail_at) return false;
  if (fault.error_number == 0) ::_exit(9);
  errno = fault.error_number;
  return true;
}
ssize_t faulty_write(int fd, const void* data, size_t bytes) {
  if (strikes('w')) return -1;
  return ::write(fd, data, std::min(bytes, fault.longest_write));
}
int faulty_fsync(int fd) {
  return strikes('s') ? -1 : ::fsync(fd);
}
int faulty_rename(const char* from, const char* to) {
  return strikes('r') ? -1 : std::rename(from, to);
}
int faulty_symlink(const char* target, const char* path) {
  return strikes('l') ? -1 : ::symlink(target, path);
}

class WithFault {
 public:
  explicit WithFault(const Fault& f) : saved_(disk_calls()) {
    fault = f;
    disk_calls() = {faulty_write, faulty_fsync, faulty_rename, faulty_symlink};
  }
  ~WithFault() { disk_calls() = saved_; }
  WithFault(const WithFault&) = delete;
  WithFault& operator=(const WithFault&) = delete;

 private:
  DiskCalls saved_;
};

void write_new(const fs::path& path) {
  AtomicFile file(path);
  file.append("new ");
  file.append("content");
  file.commit();
}

/// Runs `body` in a child process; returns its exit code.
template <typename Body>
int in_child(Body&& body) {
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child == 0) {
    try {
      body();
    } catch (const DiskError&) {
      ::_exit(7);
    } catch (...) {
      ::_exit(100);
    }
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 200;
}

/// Takes root's right to pass by permissions from this process; others do not have it.
void obey_permissions() {
  __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {};
  ::syscall(SYS_capset, &header, none);
}

}  // namespace

TEST_CASE("atomic file: the order is write, fsync of the file, rename, fsync of the directory") {
  testing::TempDir dir;
  {
    WithFault with(Fault{});
    write_new(dir / "a");
    CHECK(fault.trace == "wwsrs");
  }
  CHECK(content_of(dir / "a") == "new content");
  CHECK(files_in(dir.path()) == 1);
}

TEST_CASE("atomic file: a failure of any call throws DiskError and leaves the older file and no temporary") {
  testing::TempDir dir;
  for (int error_number : {ENOSPC, EIO, EROFS, EDQUOT}) {
    for (int call = 0; call < 5; ++call) {
      write_file_atomically(dir / "a", "old");
      {
        WithFault with(Fault{.fail_at = call, .error_number = error_number});
        CHECK_THROWS_AS(write_new(dir / "a"), DiskError);
      }
      // After the rename only the durability is in doubt: the new file is complete.
      CHECK(content_of(dir / "a") == (call < 4 ? "old" : "new content"));
      CHECK(files_in(dir.path()) == 1);
    }
  }
}

TEST_CASE("atomic file: the sentence names the file, the reason and what to do, and the exit code is 7") {
  testing::TempDir dir;
  WithFault with(Fault{.fail_at = 0, .error_number = ENOSPC});
  try {
    write_new(dir / "checkpoint");
    FAIL("did not throw");
  } catch (const DiskError& error) {
    CHECK(error.code() == ExitCode::kDisk);
    CHECK(std::string(error.what()) == "cannot write '" + (dir / "checkpoint").string() +
                                           "' (an older file of that name is untouched): no space is left on the "
                                           "device; free some and run again");
  }
}

TEST_CASE("atomic file: short writes and interrupted calls lose nothing") {
  testing::TempDir dir;
  {
    WithFault with(Fault{.fail_at = 2, .error_number = EINTR, .longest_write = 1});
    write_new(dir / "a");
  }
  CHECK(content_of(dir / "a") == "new content");
}

TEST_CASE("atomic file: a process killed at any call leaves the old file or the new, and removable leftovers") {
  testing::TempDir dir;
  for (int call = 0; call < 5; ++call) {
    write_file_atomically(dir / "a", "old");
    const int code = in_child([&] {
      WithFault with(Fault{.fail_at = call});
      write_new(dir / "a");
    });
    CHECK(code == 9);
    CHECK(content_of(dir / "a") == (call < 4 ? "old" : "new content"));
    CHECK(remove_temporary_files(dir.path()) == (call < 4 ? 1 : 0));
    CHECK(files_in(dir.path()) == 1);
  }
}

TEST_CASE("atomic file: a real size limit (EFBIG) is a DiskError and the older file stays") {
  testing::TempDir dir;
  write_file_atomically(dir / "a", "old");
  const int code = in_child([&] {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit = {.rlim_cur = 1000, .rlim_max = 1000};
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) ::_exit(101);
    write_file_atomically(dir / "a", std::string(5000, 'x'));
  });
  CHECK(code == 7);
  CHECK(content_of(dir / "a") == "old");
  CHECK(files_in(dir.path()) == 1);
}

TEST_CASE("atomic file: a full device is a DiskError") {
  const int fd = ::open("/dev/full", O_WRONLY);
  if (fd < 0) {
    MESSAGE("skipped: no /dev/full here");
    return;
  }
  CHECK(write_all(fd, std::vector<std::byte>(10)) == ENOSPC);
  ::close(fd);
}

TEST_CASE("atomic file: a missing directory, a file as directory and a directory as file are DiskErrors") {
  testing::TempDir dir;
  write_file_atomically(dir / "file", "x");
  fs::create_directory(dir / "directory");
  CHECK_THROWS_AS(write_file_atomically(dir / "missing" / "a", "x"), DiskError);
  CHECK_THROWS_AS(write_file_atomically(dir / "file" / "a", "x"), DiskError);
  CHECK_THROWS_AS(write_file_atomically(dir / "directory", "x"), DiskError);
  CHECK(files_in(dir.path()) == 2);
}

TEST_CASE("atomic file: a directory that may be written but not read is written to") {
  testing::TempDir dir;
  const fs::path closed = dir / "closed";
  fs::create_directory(closed);
  REQUIRE(::chmod(closed.c_str(), 0333) == 0);
  const int code = in_child([&] {
    obey_permissions();
    if (::open(closed.c_str(), O_RDONLY | O_DIRECTORY) >= 0) ::_exit(101);
    write_file_atomically(closed / "a", "new");
    replace_symlink("a", closed / "link");
    sync_directory(closed);
  });
  ::chmod(closed.c_str(), 0755);  // so that it can be removed
  if (code == 101) {
    MESSAGE("skipped: permissions do not hold here");
    return;
  }
  CHECK(code == 0);
  CHECK(content_of(closed / "link") == "new");
  CHECK_THROWS_AS(sync_directory(dir / "missing"), DiskError);
}

TEST_CASE("path_exists: yes, no, and an error where it cannot be told") {
  testing::TempDir dir;
  write_file_atomically(dir / "file", "x");
  fs::create_symlink("absent", dir / "dangling");
  fs::create_symlink("loop", dir / "loop");
  CHECK(path_exists(dir.path()));
  CHECK(path_exists(dir / "file"));
  CHECK_FALSE(path_exists(dir / "absent"));
  CHECK_FALSE(path_exists(dir / "dangling"));
  CHECK_FALSE(path_exists(dir / "file" / "below"));
  CHECK_FALSE(path_exists(""));
  for (const fs::path& path : {dir / "loop", dir / "loop" / "below"})
    CHECK_THROWS_WITH_AS(path_exists(path), doctest::Contains(("cannot look at '" + path.string() + "': ").c_str()),
                         DiskError);
}

TEST_CASE("atomic file: what is not a file is refused before anything is written, and stays") {
  testing::TempDir dir;
  const fs::path pipe = dir / "pipe", link = dir / "link";
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  fs::create_symlink("pipe", link);
  fs::create_directory(dir / "directory");
  for (const fs::path& path : {pipe, link, fs::path("/dev/null")})
    CHECK_THROWS_WITH_AS(
        AtomicFile{path},
        fmt::format("cannot write '{}': it is a device, a pipe or a socket, not a file; choose another name",
                    path.string())
            .c_str(),
        DiskError);
  CHECK_THROWS_WITH_AS(AtomicFile{dir / "directory"}, doctest::Contains("a directory of that name is in the way"),
                       DiskError);
  CHECK(fs::is_fifo(pipe));
  CHECK(fs::is_symlink(link));
  CHECK(fs::is_character_file("/dev/null"));
  CHECK(files_in(dir.path()) == 3);
}

TEST_CASE("atomic file: without commit nothing stays") {
  testing::TempDir dir;
  {
    AtomicFile file(dir / "a");
    file.append("x");
    CHECK(files_in(dir.path()) == 1);
  }
  CHECK(files_in(dir.path()) == 0);
}

TEST_CASE("replace_symlink: any failing or last call leaves the old link or the new one") {
  testing::TempDir dir;
  for (int error_number : {0, EIO}) {
    for (int call = 0; call < 3; ++call) {  // symlink, rename, fsync
      replace_symlink("old", dir / "link");
      const int code = in_child([&] {
        WithFault with(Fault{.fail_at = call, .error_number = error_number});
        replace_symlink("new", dir / "link");
      });
      CHECK(code == (error_number == 0 ? 9 : 7));
      CHECK(fs::read_symlink(dir / "link") == (call < 2 ? "old" : "new"));
      remove_temporary_files(dir.path());
      CHECK(files_in(dir.path()) == 1);
    }
  }
}

TEST_CASE("names that killed processes of the same number left are passed over") {
  testing::TempDir dir;
  const fs::path path = dir / "a", link = dir / "l";
  std::string next;  // the temporary name that comes next, up to its number
  {
    const AtomicFile probe(path);
    for (const auto& entry : fs::directory_iterator(dir.path())) next = entry.path().filename().string();
  }
  const size_t dash = next.rfind('-');
  REQUIRE(dash != std::string::npos);
  const unsigned number = static_cast<unsigned>(std::stoul(next.substr(dash + 1))) + 1;
  const std::string behind_name = next.substr(1, dash);
  std::vector<fs::path> left;
  // The link comes first and takes the numbers up to 20, the file those from 21 on.
  for (unsigned i = 0; i < 40; ++i)
    left.push_back(dir / ((i < 20 ? "l" : "a") + behind_name + std::to_string(number + i)));
  left.push_back(dir / ("a" + behind_name + std::to_string(number + 40)));
  for (const fs::path& file : left) std::ofstream(file) << "left";
  replace_symlink("a", link);
  write_file_atomically(path, "new");
  CHECK(read_text_file(path, 9) == "new");
  CHECK(fs::read_symlink(link) == "a");
  for (const fs::path& file : left) CHECK(read_text_file(file, 9) == "left");
  CHECK(files_in(dir.path()) == static_cast<int>(left.size()) + 2);
}

TEST_CASE("remove_temporary_files removes only names of ours") {
  testing::TempDir dir;
  for (const char* name : {"a", "a.tmp", "a.nibble-tmp-", "a.nibble-tmp-1-", "a.nibble-tmp-1-2x", ".nibble-tmp-1-2"})
    write_file_atomically(dir / name, "keep");
  // Above Linux's largest process number, 2^22, so that there is no such process.
  write_file_atomically(dir / "a.nibble-tmp-5000017-0", "remove");
  fs::create_directory(dir / "d.nibble-tmp-5000017-0");
  CHECK(remove_temporary_files(dir.path()) == 1);
  CHECK(files_in(dir.path()) == 7);
  CHECK_THROWS_AS(remove_temporary_files(dir / "missing"), DiskError);
}

TEST_CASE("remove_temporary_files leaves alone what is being written") {
  testing::TempDir dir;
  AtomicFile live(dir / "live");
  live.append(std::string_view("whole"));
  write_file_atomically(dir / ("dead.nibble-tmp-" + std::to_string(::getppid()) + "-0"), "half");
  fs::create_symlink("nowhere", dir / "link.nibble-tmp-5000017-1");
  CHECK(remove_temporary_files(dir.path()) == 2);
  CHECK(files_in(dir.path()) == 1);
  live.commit();
  CHECK(read_text_file(dir / "live", 9) == "whole");
  CHECK(files_in(dir.path()) == 1);
}

TEST_CASE("remove_temporary_files takes nothing away between its creation and its lock") {
  testing::TempDir dir;
  std::atomic<bool> done{false};
  std::atomic<int> cleaned{0};
  std::thread cleaner([&] {
    while (!done) {
      remove_temporary_files(dir.path());
      ++cleaned;
    }
  });
  while (cleaned == 0) std::this_thread::yield();
  const DiskCalls real = disk_calls();
  disk_calls().fsync = [](int) { return 0; };
  int lost = 0;
  for (int k = 0; k < 5000; ++k) try {
      write_file_atomically(dir / "f", "whole");
    } catch (const DiskError&) {
      ++lost;
    }
  disk_calls() = real;
  done = true;
  cleaner.join();
  CHECK(lost == 0);
}

TEST_CASE("read_text_file refuses what is missing, too large or not a file") {
  testing::TempDir dir;
  write_file_atomically(dir / "a", "12345");
  CHECK(read_text_file(dir / "a", 5) == "12345");
  CHECK_THROWS_AS(read_text_file(dir / "a", 4), DataError);
  CHECK_THROWS_AS(read_text_file(dir / "b", 4), DiskError);
  CHECK_THROWS_AS(read_text_file(dir.path(), 4), DiskError);
}
