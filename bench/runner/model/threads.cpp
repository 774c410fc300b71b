#include "bench/runner/model/threads.hpp"

#include <utility>

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

namespace nibkv::llm {
namespace {

// A region of a decode step lasts a few microseconds, and so does the gap to the next one.
constexpr int kSpins = 2000;
constexpr int kSpinsBeforeYielding = 400;

void pause_briefly(int spin) {
  if (spin >= kSpinsBeforeYielding) {
    std::this_thread::yield();
    return;
  }
#if defined(__x86_64__) || defined(__i386__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("isb" ::: "memory");
#endif
}

}  // namespace

ThreadPool::ThreadPool(std::size_t workers) {
  threads_.reserve(workers);
  for (std::size_t worker = 1; worker < workers; ++worker) threads_.emplace_back([this, worker] { work(worker); });
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadPool::run_erased(std::size_t tasks, Call call, void* context) {
  if (tasks == 0) return;
  if (threads_.empty() || tasks == 1) {
    std::exception_ptr failure;
    for (std::size_t task = 0; task < tasks; ++task) {
      try {
        call(context, task, 0);
      } catch (...) {
        if (!failure) failure = std::current_exception();
      }
    }
    if (failure) std::rethrow_exception(failure);
    return;
  }
  call_ = call;
  context_ = context;
  tasks_ = tasks;
  outstanding_.store(static_cast<std::uint32_t>(tasks), std::memory_order_relaxed);
  unclaimed_.store(static_cast<std::uint32_t>(tasks));
  // Sequentially consistent on both sides: either this sees the sleeper, or the sleeper sees
  // the tasks before it sleeps.
  if (sleepers_.load() != 0) {
    { std::lock_guard lock(mutex_); }
    wake_.notify_all();
  }
  while (run_one_task(0)) {
  }
  for (int spin = 0; outstanding_.load(std::memory_order_acquire) != 0; ++spin) {
    pause_briefly(spin);
    if (spin == kSpins) spin = kSpinsBeforeYielding;
  }
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
}

bool ThreadPool::run_one_task(std::size_t worker) {
  std::uint32_t left = unclaimed_.load(std::memory_order_relaxed);
  do {
    if (left == 0) return false;
  } while (!unclaimed_.compare_exchange_weak(left, left - 1, std::memory_order_acquire, std::memory_order_relaxed));
  // The claim keeps the region alive. If another region began between the load and the exchange,
  // the claim is on that one.
  try {
    call_(context_, tasks_ - left, worker);
  } catch (...) {
    std::lock_guard lock(mutex_);
    if (!failure_) failure_ = std::current_exception();
  }
  outstanding_.fetch_sub(1, std::memory_order_release);
  return true;
}

void ThreadPool::work(std::size_t worker) {
  while (true) {
    for (int spin = 0; spin < kSpins; ++spin) {
      if (run_one_task(worker)) spin = 0;
      if (stopping_.load(std::memory_order_relaxed)) return;
      pause_briefly(spin);
    }
    std::unique_lock lock(mutex_);
    ++sleepers_;
    wake_.wait(lock, [this] { return unclaimed_.load() != 0 || stopping_.load(); });
    --sleepers_;
  }
}

}  // namespace nibkv::llm
