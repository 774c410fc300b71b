#include "bench/runner/programs/page_file.hpp"

#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench/runner/gguf/gguf.hpp"

namespace nibkv::llm {

PageFile::PageFile(const std::string& path, std::uint64_t bytes, PageFileUse use)
    : path_(path),
      file_(::open(path.c_str(), O_RDWR | O_CLOEXEC | (use == PageFileUse::kOld ? 0 : O_CREAT), 0600)),
      pages_(file_),
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
  } else if (!detail::begins_with_page(file_)) {
    why = "there already, and no file of pages";
  } else if (use == PageFileUse::kScratch) {
    if (::ftruncate(file_, 0) != 0 || ::ftruncate(file_, static_cast<off_t>(bytes)) != 0) why = std::strerror(errno);
  } else if (use != PageFileUse::kOld && about.st_size != 0) {
    why = "has the pages of a conversation: --load goes on with it; remove the file if it is not wanted any more";
  }
  if (!why.empty()) throw Error(path + ": " + why);
}

PageFile::~PageFile() {
  // What is left of a run that fails here is said at the next one.
  if (use_ == PageFileUse::kPassing && ::ftruncate(file_, 0) != 0) errno = 0;
}

bool PageFile::empty() const {
  struct stat about = {};
  return ::fstat(file_, &about) == 0 && about.st_size == 0;
}

void PageFile::sync() {
  if (const int error = pages_.sync(); error != 0) throw Error(path_ + ": " + std::strerror(error));
}

}  // namespace nibkv::llm
