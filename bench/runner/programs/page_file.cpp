#include "bench/runner/programs/page_file.hpp"

#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench/runner/gguf/gguf.hpp"

namespace nibkv::llm {
namespace {

// All of it, or nothing that counts.
template <typename Call>
bool whole(std::size_t bytes, Call call) {
  for (std::size_t done = 0; done < bytes;) {
    const ssize_t more = call(done);
    if (more < 0 && errno == EINTR) continue;
    if (more <= 0) return false;
    done += static_cast<std::size_t>(more);
  }
  return true;
}

int file_of(void* context) {
  return *static_cast<const int*>(context);
}

bool write_page(void* context, std::uint64_t offset, const void* page, std::size_t bytes) {
  return whole(bytes, [&](std::size_t done) {
    return ::pwrite(file_of(context), static_cast<const char*>(page) + done, bytes - done,
                    static_cast<off_t>(offset + done));
  });
}

bool read_page(void* context, std::uint64_t offset, void* page, std::size_t bytes) {
  return whole(bytes, [&](std::size_t done) {
    return ::pread(file_of(context), static_cast<char*>(page) + done, bytes - done, static_cast<off_t>(offset + done));
  });
}

// Whether a file may be overwritten: it is empty, or begins with a page, or with the place of one that was not written.
bool has_pages(int file) {
  char first[4] = {};
  const ssize_t bytes = ::pread(file, first, sizeof first, 0);
  return bytes == 0 || (bytes == 4 && (std::memcmp(first, "NBKP", 4) == 0 || std::memcmp(first, "\0\0\0\0", 4) == 0));
}

}  // namespace

PageFile::PageFile(const std::string& path, std::uint64_t bytes, PageFileUse use)
    : path_(path),
      file_(::open(path.c_str(), O_RDWR | O_CLOEXEC | (use == PageFileUse::kOld ? 0 : O_CREAT), 0600)),
      use_(use) {
  if (file_ < 0) throw Error(path + ": " + std::strerror(errno));
  struct stat about = {};
  std::string why;
  if (::fstat(file_, &about) != 0) {
    why = std::strerror(errno);
  } else if (!S_ISREG(about.st_mode)) {
    why = "not a file, so no place for pages";
  } else if (::flock(file_, LOCK_EX | LOCK_NB) != 0) {
    why = errno == EWOULDBLOCK ? "in use by another program" : std::strerror(errno);
  } else if (!has_pages(file_)) {
    why = "there already, and no file of pages";
  } else if (use == PageFileUse::kScratch) {
    if (::ftruncate(file_, 0) != 0 || ::ftruncate(file_, static_cast<off_t>(bytes)) != 0) why = std::strerror(errno);
  } else if (use != PageFileUse::kOld && about.st_size != 0) {
    why = "has the pages of a conversation: --load goes on with it; remove the file if it is not wanted any more";
  }
  if (why.empty()) return;
  ::close(file_);
  throw Error(path + ": " + why);
}

PageFile::~PageFile() {
  // What is left of a run that fails here is said at the next one.
  if (use_ == PageFileUse::kPassing && ::ftruncate(file_, 0) != 0) errno = 0;
  ::close(file_);
}

bool PageFile::empty() const {
  struct stat about = {};
  return ::fstat(file_, &about) == 0 && about.st_size == 0;
}

void PageFile::sync() const {
  if (::fsync(file_) != 0) throw Error(path_ + ": " + std::strerror(errno));
}

ColdStore PageFile::store() {
  return {write_page, read_page, nullptr, &file_, 0, false};
}

}  // namespace nibkv::llm
