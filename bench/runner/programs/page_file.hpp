#pragma once

#include <cstdint>
#include <string>

#include "nibkv/file_store.hpp"

namespace nibkv::llm {

/// What a file of pages is for, and what it may have in it before.
enum class PageFileUse : std::uint8_t {
  kScratch,  ///< for this run; has nothing, or any pages, which go
  kPassing,  ///< for this run; has nothing or is not there, and has nothing afterwards
  kNew,      ///< stays; has nothing or is not there
  kOld,      ///< stays, and is there: the pages of a cache that is restored
};

/// A file for the pages of a cache's log, for its owner only. No two programs have one at the same time.
class PageFile {
 public:
  /// @param bytes  cold_bytes() of the cache
  /// @throws Error naming the path and the reason; for a file that is there and has anything but pages in it, too
  PageFile(const std::string& path, std::uint64_t bytes, PageFileUse use = PageFileUse::kScratch);
  ~PageFile();
  PageFile(const PageFile&) = delete;
  PageFile& operator=(const PageFile&) = delete;

  ColdStore store() { return pages_.store(); }
  /// Whether nothing was ever written to it.
  bool empty() const;
  /// Returns when all that was written is where no power cut takes it away.
  /// @throws Error
  void sync();

 private:
  std::string path_;
  int file_;
  FileStore pages_;  // closes it
  PageFileUse use_;
};

}  // namespace nibkv::llm
