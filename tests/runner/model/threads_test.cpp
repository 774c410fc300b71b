#include "bench/runner/model/threads.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <set>
#include <stdexcept>
#include <thread>
#include <vector>

namespace nibkv::llm {
namespace {

TEST(ThreadPool, RunsEveryTaskExactlyOnce) {
  for (const std::size_t workers : {0, 1, 2, 3, 8}) {
    ThreadPool pool(workers);
    EXPECT_EQ(pool.workers(), workers == 0 ? 1 : workers);
    for (const std::size_t tasks : {0, 1, 2, 7, 100}) {
      std::vector<int> runs(tasks, 0);  // a task owns its element
      pool.run(tasks, [&](std::size_t task, std::size_t) { ++runs[task]; });
      EXPECT_EQ(runs, std::vector<int>(tasks, 1)) << workers << " workers, " << tasks << " tasks";
    }
  }
}

TEST(ThreadPool, NeverRunsTwoTasksAtOnceAsTheSameWorker) {
  ThreadPool pool(4);
  std::vector<std::atomic<int>> busy(pool.workers());
  std::atomic<bool> clash = false;
  pool.run(500, [&](std::size_t, std::size_t worker) {
    if (worker >= busy.size() || busy[worker].fetch_add(1) != 0) clash = true;
    if (worker < busy.size()) busy[worker].fetch_sub(1);
  });
  EXPECT_FALSE(clash);
}

TEST(ThreadPool, KeepsEveryRegionApartWhenManyFollowAtOnce) {
  ThreadPool pool(3);
  std::vector<std::size_t> values(16, 0);  // plain memory: a task that ran into the next region would be a data race
  for (std::size_t round = 1; round <= 5000; ++round) {
    pool.run(values.size(), [&](std::size_t task, std::size_t) { values[task] += round; });
    for (const std::size_t value : values) ASSERT_EQ(value, round * (round + 1) / 2);
  }
}

TEST(ThreadPool, WakesWorkersThatWentToSleep) {
  ThreadPool pool(2);
  for (int round = 0; round < 5; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    std::atomic<int> waiting = 0;
    // Two tasks that wait for each other need two workers.
    pool.run(2, [&](std::size_t, std::size_t) {
      ++waiting;
      while (waiting != 2) std::this_thread::yield();
    });
    EXPECT_EQ(waiting, 2);
  }
}

TEST(ThreadPool, RunsOnTheCallingThreadAloneWithOneWorker) {
  ThreadPool pool(1);
  std::set<std::thread::id> threads;
  pool.run(10, [&](std::size_t, std::size_t worker) {
    EXPECT_EQ(worker, 0u);
    threads.insert(std::this_thread::get_id());
  });
  EXPECT_EQ(threads, std::set<std::thread::id>{std::this_thread::get_id()});
}

TEST(ThreadPool, RethrowsTheExceptionOfATaskAndRemainsUsable) {
  for (const std::size_t workers : {1, 3}) {
    ThreadPool pool(workers);
    std::atomic<int> runs = 0;
    EXPECT_THROW(pool.run(9,
                          [&](std::size_t task, std::size_t) {
                            ++runs;
                            if (task == 4) throw std::runtime_error("task");
                          }),
                 std::runtime_error);
    EXPECT_EQ(runs, 9);
    runs = 0;
    pool.run(9, [&](std::size_t, std::size_t) { ++runs; });
    EXPECT_EQ(runs, 9);
  }
}

}  // namespace
}  // namespace nibkv::llm
