#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "nibkv/cold.hpp"

// What the pages of a log would cost on a card or a flash chip, worked out from how many are read and written.

namespace nibkv::llm {

/// Media are read and written in whole blocks of this size, at multiples of it.
inline constexpr std::uint64_t kMediumBlock = 4096;

/// What a kind of medium does with one request at a time (queue depth 1) at random places, and with what follows in the
/// same request.
struct Medium {
  std::string_view name;
  std::string_view device;
  double reads_a_second = 0;  ///< of a block each, at random places; 0: no time at all
  double writes_a_second = 0;
  double read_bytes_a_second = 0;  ///< of further blocks of a request
  double write_bytes_a_second = 0;
};

/// memory, sd, emmc, ufs. Assumptions about a class of devices, none of them measured.
std::span<const Medium> media();
/// @throws UsageError for a name that is none of them, or is there twice
std::vector<const Medium*> parse_media(const std::string& names);

/// Requests to a store, and the blocks that they touch.
struct PageTraffic {
  std::uint64_t reads = 0, read_bytes = 0, read_blocks = 0;
  std::uint64_t writes = 0, written_bytes = 0, written_blocks = 0;

  PageTraffic operator-(const PageTraffic& earlier) const;
};

/// The time that a medium takes for them, one after the other.
double seconds_of(const PageTraffic& traffic, const Medium& medium);

/// Counts what goes through a store, on any number of threads.
class PageMeter {
 public:
  /// A store that counts, and does with each page what `store` does. This object must outlive it, and has one store.
  ColdStore over(const ColdStore& store);
  PageTraffic traffic() const;

 private:
  struct Count {
    std::atomic<std::uint64_t> requests{0}, bytes{0}, blocks{0};
    void add(std::uint64_t offset, std::size_t size);
  };

  ColdStore store_;
  Count reads_, writes_;
};

}  // namespace nibkv::llm
