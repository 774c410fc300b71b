#pragma once

// Stores for the pages of a log in a file, on POSIX systems. nibkv.hpp does not include this header, and the library
// has nothing of it. A board without files gives its slow memory to memory_store, or writes two callbacks (cold.hpp).

#if !__has_include(<sys/mman.h>)
#error "nibkv/file_store.hpp is for POSIX systems; elsewhere use memory_store, or callbacks of yours (nibkv/cold.hpp)"
#endif

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include "nibkv/cold.hpp"

#include "nibkv/macros_push.hpp"

namespace nibkv {

/// What becomes of the pages that a file has when it is opened.
enum class OldPages : std::uint8_t {
  kDrop,  ///< they are cut off: for a cache that is new
  kKeep,  ///< they stay, and the file must be there: for the cache that wrote them and still has its arena
};

namespace detail {

/// For numbers that are known to fit. A template, in which no compiler calls the cast useless.
template <typename Number>
constexpr std::size_t as_size(Number number) {
  return static_cast<std::size_t>(number);
}

/// All of a range, piece by piece as the system takes it.
/// @param call  gets how many bytes are done; returns how many more are, as pread does
template <typename Call>
bool in_pieces(std::uint64_t offset, std::size_t bytes, const Call& call) {
  constexpr auto kMost = static_cast<std::uint64_t>(std::numeric_limits<off_t>::max());
  if (offset > kMost || bytes > kMost - offset) {
    errno = EFBIG;
    return false;
  }
  for (std::size_t done = 0; done < bytes;) {
    const ssize_t more = call(done);
    if (more < 0 && errno == EINTR) continue;
    if (more == 0) errno = EIO;  // the file ends here
    if (more <= 0) return false;
    done += static_cast<std::size_t>(more);
  }
  return true;
}

inline bool write_all(int file, std::uint64_t offset, const void* from, std::size_t bytes) {
  return in_pieces(offset, bytes, [&](std::size_t done) {
    return ::pwrite(file, static_cast<const std::byte*>(from) + done, bytes - done, static_cast<off_t>(offset + done));
  });
}

inline bool read_all(int file, std::uint64_t offset, void* to, std::size_t bytes) {
  return in_pieces(offset, bytes, [&](std::size_t done) {
    return ::pread(file, static_cast<std::byte*>(to) + done, bytes - done, static_cast<off_t>(offset + done));
  });
}

/// Whether a file is empty, or begins with a page or with the place of one that was not written.
inline bool begins_with_page(int file) {
  unsigned char first[sizeof kColdPageMagic] = {};
  const ssize_t bytes = ::pread(file, first, sizeof first, 0);
  if (bytes == 0) return true;
  constexpr unsigned char kNone[sizeof kColdPageMagic] = {};
  return bytes == ssize_t{sizeof first} &&
         (std::memcmp(first, kColdPageMagic, sizeof first) == 0 || std::memcmp(first, kNone, sizeof first) == 0);
}

/// Writes what a file has over itself, so that its holes take space on the disk. @returns 0, or a value of errno
inline int write_over(int file, std::uint64_t bytes) {
  std::byte block[4096];
  for (std::uint64_t at = 0; at < bytes; at += sizeof block) {
    const auto count = as_size(bytes - at < sizeof block ? bytes - at : sizeof block);
    if (!read_all(file, at, block, count) || !write_all(file, at, block, count)) return errno;
  }
  return 0;
}

/// Takes space on the disk for all of a file of that size. @returns 0, or a value of errno
inline int take_space(int file, std::uint64_t bytes) {
#if defined(_POSIX_ADVISORY_INFO) && _POSIX_ADVISORY_INFO > 0
  const int error = bytes == 0 ? 0 : ::posix_fallocate(file, 0, static_cast<off_t>(bytes));
  if (error != EINVAL && error != EOPNOTSUPP) return error;  // else this file system cannot
#endif
  return write_over(file, bytes);
}

/// Opens a file for pages and gives it their size. @returns 0, or a value of errno; `file` is written only then
inline int open_page_file(const char* path, std::uint64_t bytes, OldPages old, int& file) {
  if (bytes > static_cast<std::uint64_t>(std::numeric_limits<off_t>::max())) return EFBIG;
  const int create = old == OldPages::kDrop ? O_CREAT : 0;
  const int opened = ::open(path, O_RDWR | O_CLOEXEC | create, S_IRUSR | S_IWUSR);
  if (opened < 0) return errno;
  struct stat about = {};
  int error = 0;
  if (::fstat(opened, &about) != 0) {
    error = errno;
  } else if (!S_ISREG(about.st_mode)) {
    error = EINVAL;
  } else if (!begins_with_page(opened)) {
    error = EEXIST;
  } else if (old == OldPages::kDrop && ::ftruncate(opened, 0) != 0) {
    error = errno;
  } else if ((old == OldPages::kDrop || static_cast<std::uint64_t>(about.st_size) < bytes) &&
             ::ftruncate(opened, static_cast<off_t>(bytes)) != 0) {
    error = errno;
  }
  if (error != 0) {
    ::close(opened);
    return error;
  }
  file = opened;
  return 0;
}

}  // namespace detail

/// A file that is read and written page by page, each call in the calling thread. Use this one unless reads take too
/// long: an error of the medium is a page that is lost, and counted.
///
/// A page is in the system's cache when it is written, and on the medium when the system brings it there, or at sync.
/// Nothing more is needed: without its arena a log says nothing, and an arena in memory is gone when the power is.
/// Where the arena stays (memory that keeps its content, hibernation), call sync before. Pages that a power cut has
/// torn or dropped are found by their checksums and counted as lost.
///
/// The file is as large as all pages together, and has holes where none was written. On a full disk a write fails, and
/// its page is lost. It is readable for its owner only; nothing is encrypted.
///
/// The object must stay where it is while a cache uses a store of it. One thread opens and closes, while no call uses
/// the cache. Two caches must not have the same file: each would lose what the other writes.
class FileStore {
 public:
  FileStore() = default;
  /// Takes over a file that is open, and closes it in the end.
  explicit FileStore(int file) : file_(file) {}
  ~FileStore() { close(); }
  FileStore(const FileStore&) = delete;
  FileStore& operator=(const FileStore&) = delete;

  /// Opens or creates a file, instead of the one that is open. Readahead is switched off where that can be said.
  /// @param path   of a file that is empty or has pages, or of none
  /// @param bytes  cold_bytes() of the cache
  /// @returns 0, or a value of errno: EEXIST for a file with anything but pages, which stays as it is; EINVAL for
  ///          what is no regular file; EFBIG for more bytes than a file may have; and what open, fstat and ftruncate
  ///          say. Then no file is open.
  int open(const char* path, std::uint64_t bytes, OldPages old = OldPages::kDrop) {
    close();
    const int error = detail::open_page_file(path, bytes, old, file_);
#if defined(_POSIX_ADVISORY_INFO) && _POSIX_ADVISORY_INFO > 0
    if (error == 0) (void)::posix_fadvise(file_, 0, 0, POSIX_FADV_RANDOM);
#endif
    return error;
  }

  /// Until a file is opened again, pages that are written or read are lost for good.
  void close() {
    if (file_ >= 0) ::close(file_);
    file_ = -1;
  }

  /// Returns when all pages that were written are on the medium. @returns 0, or a value of errno
  int sync() {
    return ::fsync(file_) == 0 ? 0 : errno;
  }

  /// @param verify  reads each page back; what comes is the system's copy, so this finds a wrong program, no worn flash
  ColdStore store(std::uint32_t identity = 0, bool verify = false) {
    return {write, read, kPrefetch, this, identity, verify};
  }

 private:
  static bool write(void* context, std::uint64_t offset, const void* page, std::size_t bytes) {
    return detail::write_all(static_cast<const FileStore*>(context)->file_, offset, page, bytes);
  }
  static bool read(void* context, std::uint64_t offset, void* page, std::size_t bytes) {
    return detail::read_all(static_cast<const FileStore*>(context)->file_, offset, page, bytes);
  }
#if defined(_POSIX_ADVISORY_INFO) && _POSIX_ADVISORY_INFO > 0
  static void prefetch(void* context, std::uint64_t offset, std::size_t bytes) {
    const int file = static_cast<const FileStore*>(context)->file_;
    (void)::posix_fadvise(file, static_cast<off_t>(offset), static_cast<off_t>(bytes), POSIX_FADV_WILLNEED);
  }
  static constexpr auto kPrefetch = prefetch;
#else
  static constexpr void (*kPrefetch)(void*, std::uint64_t, std::size_t) = nullptr;
#endif

  int file_ = -1;
};

/// A file that is mapped: a page that the system has cached costs a copy and no call. What FileStore says of
/// durability, threads and caches holds here, too. What differs:
///
/// - The whole file is taken from the disk when it is opened, so a disk that is too full is found then.
/// - A medium that fails while a page is read or written, and a file that someone cuts, end the program (SIGBUS). Not
///   for cards that can be pulled out.
/// - It takes as many addresses as the file has bytes: for large logs not on 32-bit systems.
class MappedStore {
 public:
  MappedStore() = default;
  ~MappedStore() { close(); }
  MappedStore(const MappedStore&) = delete;
  MappedStore& operator=(const MappedStore&) = delete;

  /// As FileStore::open.
  /// @returns also ENOSPC if the disk has too little space, EINVAL for 0 bytes, and what mmap says
  int open(const char* path, std::uint64_t bytes, OldPages old = OldPages::kDrop) {
    close();
    if (detail::as_size(bytes) != bytes) return EFBIG;
    int file = -1;
    int error = detail::open_page_file(path, bytes, old, file);
    if (error != 0) return error;
    error = detail::take_space(file, bytes);
    const auto size = detail::as_size(bytes);
    void* const memory = error == 0 ? ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0) : MAP_FAILED;
    if (error == 0 && memory == MAP_FAILED) error = errno;
    ::close(file);  // the map stays
    if (error != 0) return error;
    (void)::posix_madvise(memory, size, POSIX_MADV_RANDOM);
    memory_ = static_cast<std::byte*>(memory);
    bytes_ = size;
    return 0;
  }

  /// Until a file is opened again, pages that are written or read are lost for good.
  void close() {
    if (memory_ != nullptr) ::munmap(memory_, bytes_);
    memory_ = nullptr;
    bytes_ = 0;
  }

  /// Returns when all pages that were written are on the medium. @returns 0, or a value of errno
  int sync() {
    if (memory_ == nullptr) return EBADF;
    return ::msync(memory_, bytes_, MS_SYNC) == 0 ? 0 : errno;
  }

  /// @param verify  of no use here: a page read back is the same memory
  ColdStore store(std::uint32_t identity = 0, bool verify = false) {
    return {write, read, prefetch, this, identity, verify};
  }

 private:
  std::byte* at(std::uint64_t offset, std::size_t bytes) const {
    return offset <= bytes_ && bytes <= bytes_ - offset ? memory_ + offset : nullptr;
  }
  static bool write(void* context, std::uint64_t offset, const void* page, std::size_t bytes) {
    std::byte* const to = static_cast<const MappedStore*>(context)->at(offset, bytes);
    if (to != nullptr) std::memcpy(to, page, bytes);
    return to != nullptr;
  }
  static bool read(void* context, std::uint64_t offset, void* page, std::size_t bytes) {
    const std::byte* const from = static_cast<const MappedStore*>(context)->at(offset, bytes);
    if (from != nullptr) std::memcpy(page, from, bytes);
    return from != nullptr;
  }
  static void prefetch(void* context, std::uint64_t offset, std::size_t bytes) {
    std::byte* const from = static_cast<const MappedStore*>(context)->at(offset, bytes);
    const long page = ::sysconf(_SC_PAGESIZE);
    if (from == nullptr || page <= 0) return;
    const auto before = detail::as_size(offset % static_cast<std::uint64_t>(page));
    (void)::posix_madvise(from - before, bytes + before, POSIX_MADV_WILLNEED);
  }

  std::byte* memory_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace nibkv

#include "nibkv/macros_pop.hpp"
