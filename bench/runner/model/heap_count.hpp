#pragma once

#include <cstdint>
#include <string>

namespace nibkv::llm {

/// The number of watches that the current thread is under. Only HeapWatch and
/// heap_count.cpp use it.
inline constinit thread_local int watch_depth = 0;

/// While one exists, heap allocations of the thread that made it are counted, in programs that
/// ask for the count: programs that call heap_allocations() are linked with counting allocation
/// functions. In others it costs one increment.
class HeapWatch {
 public:
  HeapWatch() { ++watch_depth; }
  ~HeapWatch() { --watch_depth; }
  HeapWatch(const HeapWatch&) = delete;
  HeapWatch& operator=(const HeapWatch&) = delete;
};

/// Returns what `call` returns, called under a watch.
template <typename F>
auto watched(F&& call) {
  const HeapWatch watch;
  return call();
}

/// What heap_allocations() can see in this program.
enum class HeapSight : std::uint8_t {
  kNothing,      ///< the count is meaningless
  kOperatorNew,  ///< operator new only
  kEverything,   ///< operator new and the malloc family
};

/// Tested, not assumed: allocates once in each way and checks whether the count
/// changed. Restores the count.
HeapSight heap_sight();

/// Allocations made under a watch, on all threads, since the program began.
std::uint64_t heap_allocations();

/// The count as a report prints it: with a remark if only operator new is seen, "-" if nothing is.
std::string heap_report();

}  // namespace nibkv::llm
