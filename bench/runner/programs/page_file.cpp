#include "bench/runner/programs/page_file.hpp"

#include <cerrno>
#include <cstring>

#include <fcntl.h>
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

PageFile::PageFile(const std::string& path, std::uint64_t bytes)
    : file_(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)) {
  if (file_ < 0) throw Error(path + ": " + std::strerror(errno));
  struct stat about = {};
  std::string why;
  if (::fstat(file_, &about) != 0) {
    why = std::strerror(errno);
  } else if (!S_ISREG(about.st_mode)) {
    why = "not a file, so no place for pages";
  } else if (!has_pages(file_)) {
    why = "there already, and no file of pages";
  } else if (::ftruncate(file_, 0) != 0 || ::ftruncate(file_, static_cast<off_t>(bytes)) != 0) {
    why = std::strerror(errno);
  }
  if (why.empty()) return;
  ::close(file_);
  throw Error(path + ": " + why);
}

PageFile::~PageFile() {
  ::close(file_);
}

ColdStore PageFile::store() {
  return {write_page, read_page, nullptr, &file_, 0, false};
}

}  // namespace nibkv::llm
