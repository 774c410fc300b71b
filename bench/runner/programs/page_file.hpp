#pragma once

#include <cstdint>
#include <string>

#include "nibkv/cold.hpp"

namespace nibkv::llm {

/// A file for the pages of a cache's log. It is for this run of a program alone, and for its owner only.
class PageFile {
 public:
  /// @param bytes  cold_bytes() of the cache
  /// @throws Error naming the path and the reason; for a file that is there and has anything but pages in it, too
  PageFile(const std::string& path, std::uint64_t bytes);
  ~PageFile();
  PageFile(const PageFile&) = delete;
  PageFile& operator=(const PageFile&) = delete;

  ColdStore store();

 private:
  int file_;
};

}  // namespace nibkv::llm
