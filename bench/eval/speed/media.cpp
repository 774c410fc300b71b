#include "bench/eval/speed/media.hpp"

#include <algorithm>

#include "bench/runner/programs/arguments.hpp"

namespace nibkv::llm {
namespace {

// An SD card of application class A1 must do these at random places, and speed class 10 these bytes in a row. For eMMC and
// UFS what data sheets have, where UFS's is of a deep queue: with one request at a time a part will do less.
constexpr Medium kMedia[] = {
    {"memory", "memory", 0, 0, 0, 0},
    {"sd", "SD card, class A1", 1500, 500, 10e6, 10e6},
    {"emmc", "eMMC 5.1", 7000, 13000, 250e6, 125e6},
    {"ufs", "UFS 3.1", 60000, 60000, 2100e6, 1200e6},
};

double seconds(std::uint64_t requests, std::uint64_t blocks, double a_second, double bytes_a_second) {
  if (requests == 0 || a_second == 0) return 0;
  const auto further = static_cast<double>((blocks - requests) * kMediumBlock);  // a request touches a block or more
  return static_cast<double>(requests) / a_second + further / bytes_a_second;
}

}  // namespace

std::span<const Medium> media() {
  return kMedia;
}

std::vector<const Medium*> parse_media(const std::string& names) {
  std::vector<const Medium*> chosen;
  for (const std::string& name : split_list(names)) {
    const Medium* const found = std::find_if(std::begin(kMedia), std::end(kMedia),
                                             [&name](const Medium& medium) { return medium.name == name; });
    if (found == std::end(kMedia)) throw UsageError("--media takes memory, sd, emmc and ufs, not '" + name + "'");
    if (std::find(chosen.begin(), chosen.end(), found) != chosen.end())
      throw UsageError("--media has '" + name + "' twice");
    chosen.push_back(found);
  }
  return chosen;
}

PageTraffic PageTraffic::operator-(const PageTraffic& earlier) const {
  return {reads - earlier.reads,   read_bytes - earlier.read_bytes,       read_blocks - earlier.read_blocks,
          writes - earlier.writes, written_bytes - earlier.written_bytes, written_blocks - earlier.written_blocks};
}

double seconds_of(const PageTraffic& traffic, const Medium& medium) {
  return seconds(traffic.reads, traffic.read_blocks, medium.reads_a_second, medium.read_bytes_a_second) +
         seconds(traffic.writes, traffic.written_blocks, medium.writes_a_second, medium.write_bytes_a_second);
}

void PageMeter::Count::add(std::uint64_t offset, std::size_t size) {
  const std::uint64_t end = offset + size;
  requests.fetch_add(1, std::memory_order_relaxed);
  bytes.fetch_add(size, std::memory_order_relaxed);
  blocks.fetch_add((end + kMediumBlock - 1) / kMediumBlock - offset / kMediumBlock, std::memory_order_relaxed);
}

ColdStore PageMeter::over(const ColdStore& store) {
  store_ = store;
  ColdStore counting = store;
  counting.context = this;
  counting.write = [](void* context, std::uint64_t offset, const void* page, std::size_t bytes) {
    auto& meter = *static_cast<PageMeter*>(context);
    meter.writes_.add(offset, bytes);
    return meter.store_.write(meter.store_.context, offset, page, bytes);
  };
  counting.read = [](void* context, std::uint64_t offset, void* page, std::size_t bytes) {
    auto& meter = *static_cast<PageMeter*>(context);
    meter.reads_.add(offset, bytes);
    return meter.store_.read(meter.store_.context, offset, page, bytes);
  };
  if (store.prefetch != nullptr) {
    counting.prefetch = [](void* context, std::uint64_t offset, std::size_t bytes) {
      const auto& meter = *static_cast<PageMeter*>(context);
      meter.store_.prefetch(meter.store_.context, offset, bytes);
    };
  }
  return counting;
}

PageTraffic PageMeter::traffic() const {
  return {reads_.requests.load(),  reads_.bytes.load(),  reads_.blocks.load(),
          writes_.requests.load(), writes_.bytes.load(), writes_.blocks.load()};
}

}  // namespace nibkv::llm
