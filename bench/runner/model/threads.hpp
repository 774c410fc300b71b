#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace nibkv::llm {

/// A fixed set of workers for many short parallel regions.
///
/// Idle workers spin for a moment, as the next region usually follows immediately, and then sleep.
/// Free workers take tasks in order; the calling thread is worker 0. One thread at a time may call
/// `run`, and a task may not call it.
class ThreadPool {
 public:
  /// Starts `workers - 1` threads; 0 counts as 1.
  explicit ThreadPool(std::size_t workers);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  std::size_t workers() const { return threads_.size() + 1; }

  /// Calls `fn(task, worker)` once for every task in [0, tasks) and returns when all have returned. What the tasks
  /// wrote is visible to the caller afterwards.
  ///
  /// @param tasks  below 2^32.
  /// @param fn     safe to call from several threads at once; `worker` is in [0, workers()), and no two tasks run with
  ///               the same one at the same time.
  /// @throws the first exception that a task threw, after every task has run.
  template <typename F>
  void run(std::size_t tasks, F&& fn) {
    using Function = std::remove_reference_t<F>;
    run_erased(
        tasks,
        [](void* context, std::size_t task, std::size_t worker) { (*static_cast<Function*>(context))(task, worker); },
        const_cast<void*>(static_cast<const void*>(std::addressof(fn))));
  }

 private:
  using Call = void (*)(void* context, std::size_t task, std::size_t worker);

  void run_erased(std::size_t tasks, Call call, void* context);
  bool run_one_task(std::size_t worker);
  void work(std::size_t worker);

  // The current region. Written only while no task is outstanding, and read only by workers that
  // have claimed a task.
  Call call_ = nullptr;
  void* context_ = nullptr;
  std::size_t tasks_ = 0;

  alignas(64) std::atomic<std::uint32_t> unclaimed_{0};    // number of tasks not yet taken
  alignas(64) std::atomic<std::uint32_t> outstanding_{0};  // number of tasks that have not returned
  alignas(64) std::atomic<std::uint32_t> sleepers_{0};
  std::atomic<bool> stopping_{false};
  std::mutex mutex_;
  std::condition_variable wake_;
  std::exception_ptr failure_;  // guarded by mutex_
  std::vector<std::thread> threads_;
};

}  // namespace nibkv::llm
