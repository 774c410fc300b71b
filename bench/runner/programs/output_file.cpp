#include "bench/runner/programs/output_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <optional>
#include <utility>

#include "bench/runner/programs/arguments.hpp"

namespace nibkv::llm {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail(const std::string& path, const std::string& why) {
  throw Error("cannot write " + (path.empty() ? "''" : path) + ": " + why);
}

[[noreturn]] void fail(const std::string& path, int error) {
  fail(path, std::strerror(error));
}

// For a file that cannot be made at `target`, which `path` leads to. Some folders, such as /proc, say that there is no
// such file.
[[noreturn]] void fail_to_make(const std::string& path, const std::string& target, int error) {
  if (error != ENOENT) fail(path, error);
  std::error_code ignored;
  const fs::path folder = fs::path(target).parent_path();
  const bool has_folder = !target.empty() && fs::is_directory(folder.empty() ? "." : folder, ignored);
  fail(path, has_folder ? "no file can be made there" : "there is no such folder");
}

/// The target of a path.
struct Place {
  std::string path;                // after following all links
  std::optional<int> descriptor;   // of this process, if that is what the path names
  std::optional<struct stat> old;  // what is there

  bool is_replaced() const { return !descriptor && (!old || S_ISREG(old->st_mode)); }
};

// The number N of /dev/fd/N, in any spelling. The target of such a link cannot be opened as a path:
// the file that it names may be deleted, and a pipe has no name.
std::optional<int> descriptor_of(const fs::path& path) {
  std::error_code failed;
  const fs::path folder = fs::canonical(path.parent_path(), failed);
  if (failed || (folder != "/proc/" + std::to_string(::getpid()) + "/fd" && folder != "/dev/fd")) return std::nullopt;
  const auto number = parse_whole(path.filename().string());
  return number ? std::optional<int>(static_cast<int>(*number)) : std::nullopt;
}

Place find_place(const std::string& path) {
  constexpr int kMostLinks = 40;
  Place place = {path, {}, {}};
  for (int links = 0;; ++links) {
    place.descriptor = descriptor_of(place.path);
    std::error_code is_none;
    const fs::path target = fs::read_symlink(place.path, is_none);
    if (place.descriptor || is_none) break;
    if (links == kMostLinks) fail(path, ELOOP);
    place.path = (fs::path(place.path).parent_path() / target).string();
  }
  struct stat status = {};
  const int failed = place.descriptor ? ::fstat(*place.descriptor, &status) : ::stat(place.path.c_str(), &status);
  if (failed == 0) {
    place.old = status;
  } else if (errno != ENOENT || place.path.empty()) {
    fail_to_make(path, place.path, errno);
  }
  if (place.path.ends_with('/') || (place.old && S_ISDIR(place.old->st_mode))) fail(path, "it is a directory");
  if (place.old && !place.descriptor && ::access(place.path.c_str(), W_OK) != 0) fail(path, errno);
  return place;
}

// Returns 0 or the error's number.
int write_all(int file, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::write(file, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return errno;
    if (count == 0) return EIO;
    bytes = bytes.subspan(static_cast<std::size_t>(count));
  }
  return 0;
}

/// A new file next to another one. It is deleted with this object unless it has replaced the other.
class Part {
 public:
  Part(const std::string& asked, const Place& place) : asked_(asked), place_(place) {
    constexpr const char kSuffix[] = ".part";
    name_ = place.path + ".XXXXXX" + kSuffix;
    file_ = ::mkstemps(name_.data(), sizeof kSuffix - 1);
    if (file_ < 0) fail_to_make(asked_, place.path, errno);
  }
  Part(const Part&) = delete;
  Part& operator=(const Part&) = delete;
  ~Part() {
    if (file_ >= 0) ::close(file_);
    if (!name_.empty()) ::unlink(name_.c_str());
  }

  void append(std::span<const std::byte> bytes) {
    if (const int error = write_all(file_, bytes); error != 0) fail(asked_, error);
  }

  // To survive a power cut; files that cannot be synced are not on a disk.
  void sync() {
    if (::fsync(file_) != 0 && errno != EINVAL) fail(asked_, errno);
  }

  void take_the_place(Readers readers) {
    if (::fchmod(file_, mode(readers)) != 0) fail(asked_, errno);
    if (::close(std::exchange(file_, -1)) != 0) fail(asked_, errno);
    if (std::rename(name_.c_str(), place_.path.c_str()) != 0) fail_to_make(asked_, place_.path, errno);
    name_.clear();
  }

 private:
  // The mode of the old file, once the new one has its owner and group; a group that could not be
  // set gets no permissions.
  mode_t mode(Readers readers) const {
    if (place_.old) {
      const mode_t old = place_.old->st_mode & 07777;
      if (::fchown(file_, place_.old->st_uid, place_.old->st_gid) == 0) return old;
      if (::fchown(file_, static_cast<uid_t>(-1), place_.old->st_gid) == 0) return old & 01777;
      return old & 01707;
    }
    const mode_t mask = ::umask(0);
    ::umask(mask);
    return (readers == Readers::kOwner ? 0600 : 0666) & ~mask;
  }

  std::string asked_, name_;
  const Place& place_;
  int file_ = -1;
};

/// What is written to and never replaced. A descriptor of this process stays open.
class Device {
 public:
  Device(const std::string& asked, const Place& place)
      : asked_(asked),
        is_ours_(!place.descriptor),
        file_(is_ours_ ? ::open(place.path.c_str(), O_WRONLY | O_NOCTTY | O_CLOEXEC) : *place.descriptor) {
    if (file_ < 0) fail(asked_, errno);
  }
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;
  ~Device() {
    if (is_ours_ && file_ >= 0) ::close(file_);
  }

  void append(std::span<const std::byte> bytes) const {
    if (const int error = write_all(file_, bytes); error != 0) fail(asked_, error);
  }

  void close() {
    if (is_ours_ && ::close(std::exchange(file_, -1)) != 0) fail(asked_, errno);
  }

 private:
  std::string asked_;
  bool is_ours_;
  int file_;
};

}  // namespace

void write_parts(const std::string& path, const std::function<void(const Sink&)>& fill, Readers readers) {
  const Place place = find_place(path);
  if (place.is_replaced()) {
    Part part(path, place);
    fill([&part](std::span<const std::byte> bytes) { part.append(bytes); });
    part.sync();
    part.take_the_place(readers);
    return;
  }
  Device device(path, place);
  fill([&device](std::span<const std::byte> bytes) { device.append(bytes); });
  device.close();
}

void write_file(const std::string& path, std::span<const std::byte> bytes, Readers readers) {
  const auto fill = [bytes](const Sink& sink) { sink(bytes); };
  write_parts(path, fill, readers);
}

void write_file(const std::string& path, const std::string& text) {
  write_file(path, std::as_bytes(std::span(text)));
}

void check_place(const std::string& path) {
  const Place place = find_place(path);
  if (place.descriptor) {
    const int flags = ::fcntl(*place.descriptor, F_GETFL);
    if (flags < 0 || (flags & O_ACCMODE) == O_RDONLY) fail(path, EBADF);
    return;
  }
  if (place.old && S_ISSOCK(place.old->st_mode)) fail(path, "it is a socket");
  if (!place.is_replaced()) return;
  // A full disk still creates names, but has no free block.
  Part part(path, place);
  part.append(std::array<std::byte, 4096>());
  part.sync();
}

void print(std::string_view text) {
  std::cout << text << std::flush;
  if (!std::cout) throw Error("cannot write to standard output");
}

bool is_replaced(const std::string& path) {
  return find_place(path).is_replaced();
}

}  // namespace nibkv::llm
