#pragma once

#include <cstdint>

#ifndef NIBKV_NO_THREADS
#include <thread>
#include <vector>
#endif

namespace nibkv::test {

/// Calls fn(worker) for each worker in [0, count), each in its own thread; on a machine without
/// threads, such as a bare board, one after the other, the last one first.
template <typename F>
void run_workers(std::uint32_t count, F&& fn) {
#ifdef NIBKV_NO_THREADS
  while (count-- > 0) fn(count);
#else
  std::vector<std::thread> threads;
  for (std::uint32_t worker = 0; worker < count; ++worker) threads.emplace_back([&fn, worker] { fn(worker); });
  for (std::thread& thread : threads) thread.join();
#endif
}

}  // namespace nibkv::test
