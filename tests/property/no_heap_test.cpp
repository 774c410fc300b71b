// Nothing that the library does may use the heap: here operator new counts its calls, and so does
// malloc where that is simple.
#include <gtest/gtest.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

#include "nibkv/nibkv.hpp"
#include "tests/support/effort.hpp"
#include "tests/support/rig.hpp"

#if defined(NIBKV_SANITIZED) || defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define NIBKV_TEST_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define NIBKV_TEST_SANITIZED 1
#endif
#endif

#if !defined(NIBKV_TEST_SANITIZED)

namespace {

int allocations = 0;
bool watched = false;

void note() {
  if (watched) ++allocations;
}

}  // namespace

#if defined(__linux__) && defined(__GLIBC__) && defined(__x86_64__)
#define NIBKV_TEST_COUNTS_MALLOC 1
extern "C" {
void* __libc_malloc(std::size_t size);
void* __libc_calloc(std::size_t count, std::size_t size);
void* __libc_realloc(void* at, std::size_t size);

void* malloc(std::size_t size) {
  note();
  return __libc_malloc(size);
}
void* calloc(std::size_t count, std::size_t size) {
  note();
  return __libc_calloc(count, size);
}
void* realloc(void* at, std::size_t size) {
  note();
  return __libc_realloc(at, size);
}
}
#endif

[[gnu::noinline]] void* operator new(std::size_t size) {
  note();
  if (void* at = std::malloc(size == 0 ? 1 : size)) return at;
  throw std::bad_alloc();
}
[[gnu::noinline]] void* operator new[](std::size_t size) {
  return operator new(size);
}
[[gnu::noinline]] void operator delete(void* at) noexcept {
  std::free(at);
}
[[gnu::noinline]] void operator delete[](void* at) noexcept {
  std::free(at);
}
[[gnu::noinline]] void operator delete(void* at, std::size_t) noexcept {
  std::free(at);
}
[[gnu::noinline]] void operator delete[](void* at, std::size_t) noexcept {
  std::free(at);
}

namespace nibkv {
namespace {

// Counts allocations during its lifetime.
class Watch {
 public:
  Watch() {
    allocations = 0;
    watched = true;
  }
  ~Watch() { watched = false; }
};

TEST(NoHeap, TheWatchSeesAllocations) {
  {
    const Watch watch;
    int* number = new int(3);
    static int* volatile sink;  // keeps compilers from removing the calls
    sink = number;
    delete sink;
  }
  EXPECT_GE(allocations, 1);
#ifdef NIBKV_TEST_COUNTS_MALLOC
  {
    const Watch watch;
    void* volatile bytes = std::malloc(10);
    std::free(bytes);
  }
  EXPECT_EQ(allocations, 1);
#endif
}

// Once with a span, once with two banks.
template <typename Note>
void save_and_restore(Cache& cache, std::span<std::byte> memory, Note note) {
  const std::span<std::byte> one = memory.first(memory.size() / 2);
  note(save(cache, one));
  note(restore(cache, one));
  SnapshotBanks banks;
  banks.context = one.data();
  banks.bytes = one.size();
  banks.read = [](void* context, std::uint32_t bank, std::uint64_t offset, std::byte* bytes, std::size_t count) {
    std::memcpy(bytes, static_cast<std::byte*>(context) + offset, bank == 0 ? count : 0);
    return bank == 0;
  };
  banks.write = [](void* context, std::uint32_t, std::uint64_t offset, const std::byte* bytes, std::size_t count) {
    std::memcpy(static_cast<std::byte*>(context) + offset, bytes, count);
    return true;
  };
  std::memset(one.data(), 0, one.size());
  note(save_to_banks(cache, banks));
  note(restore_from_banks(cache, banks));
}

TEST(NoHeap, TheWholePipelineRunsWithoutIt) {
  constexpr std::uint32_t kChunk = 40;
  for (const std::string& port : test::running_ports()) {
    for (const Storage storage : {Storage::kQ4, Storage::kF32}) {
      for (const Policy& policy : {full(200), streaming_llm(100), ems(100), ada_kv(100), l2_norm(100),
                                   minicache(400, pairs_from(0, 2)), ems_fold(400, pairs_from(0, 2))}) {
        const bool scored = policy.keep == Keep::kScore;
        if ((scored || has_pairs(policy)) && storage == Storage::kF32) continue;
        const Budget cut = has_pairs(policy) ? Budget::kUniform : Budget::kPyramid;
        Shape shape = {.layers = 2,
                       .query_heads = 6,
                       .kv_heads = 2,
                       .head_dim = 80,
                       .max_chunk = kChunk,
                       .workers = 2,
                       .storage = storage};
        if (storage == Storage::kQ4) shape.outlier_channels = 8;
        test::Random random(211);
        const auto queries = random.bells(kChunk * 6 * 80);
        const auto keys = random.bells(kChunk * 2 * 80);
        std::vector<float> out(queries.size());
        // Maps take most of the time, and are the same whatever follows them.
        const CalibrationOptions align = {.align = test::kShorter == 1 || policy.keep == Keep::kRecent};
        std::vector<double> memory(calibration_bytes(shape, align) / 8);
        std::vector<std::byte> profile(profile_bytes(shape, align.align));
        std::vector<std::uint32_t> target(400);
        test::Arena arena(footprint(shape, policy));
        std::vector<SlotInfo> infos(400);
        std::vector<std::byte> banks(2 * static_cast<std::size_t>(most_snapshot_bytes(shape, policy)));
        std::array<Status, 10> worst{};
        Usage usage;
        {
          const Watch watch;
          const auto run = [&worst](std::size_t verb, Status status) {
            if (status != Status::kOk) worst[verb] = status;
          };
          Calibrator calibrator;
          run(0, calibrator.init(std::as_writable_bytes(std::span(memory)), shape, align));
          for (std::uint32_t layer = 0; layer < 2; ++layer) run(0, calibrator.observe(layer, queries, keys, keys));
          run(0, calibrator.write(profile));
          Cache cache;
          Options options;
          options.port = port;
          if (shape.outlier_channels != 0) options.profile = profile;
          run(1, cache.init(arena.bytes(), shape, policy, options));
          for (int round = 0; round < 2; ++round) {
            for (int step = 0; step < 5; ++step) {
              for (std::uint32_t layer = 0; layer < 2; ++layer) {
                run(2, append(cache, layer, keys, keys));
                run(3, attend(cache, layer, queries, out));
                run(3, attend(cache, layer, queries, out, {1, 1, 0, 0, 1}));
                if (!scores_attention(policy)) run(3, attend(cache, layer, queries, out, {1, 1, 3, 7, 1}));
              }
            }
            run(8, explain(cache, 1, 1, std::span(infos).first(cache.held(1, 1))));
            if (scored) run(8, compact_now(cache, policy.tokens * 9 / 10, cut));
            const auto slots = std::span(target).first(cache.held(1, 0));
            run(4, plan(cache, 1, 0, kChunk, slots));
            for (std::uint32_t i = 0; i < slots.size(); ++i) slots[i] = i % 2 == 0 ? i / 2 : kDrop;
            run(5, check_plan(slots));
            run(5, compact(cache, 1, 0, slots));
            save_and_restore(cache, banks, [&](Status status) { run(9, status); });
            usage = cache.usage();
            run(6, cache.clear());
          }
          Policy preset;
          run(7, find_policy("ems", 100, preset));
          if (text(Status::kFull).empty() || tokens_that_fit(shape, policy, 1 << 20) == 0)
            worst[7] = Status::kBadPolicy;
        }
        EXPECT_EQ(allocations, 0) << test::words(shape, policy, port);
        EXPECT_EQ(worst, (std::array<Status, 10>{})) << test::words(shape, policy, port);
        EXPECT_LE(usage.peak_bytes, usage.arena_bytes);
        EXPECT_TRUE(arena.guards_intact());
      }
    }
  }
}

TEST(NoHeap, SoDoesALog) {
  constexpr Shape kShape = {.layers = 1, .query_heads = 4, .kv_heads = 2, .head_dim = 64, .outlier_channels = 4};
  const Policy policy = recall_window(100, 256);
  const std::vector<std::byte> profile = test::make_profile(kShape, policy, 1);
  test::Arena arena(footprint(kShape, policy)), second(footprint(kShape, policy));
  std::vector<std::byte> pages(static_cast<std::size_t>(cold_bytes(kShape, policy))), others(pages.size());
  std::vector<std::byte> snapshot(2 * static_cast<std::size_t>(most_snapshot_bytes(kShape, policy)));
  const ColdStore store = memory_store(pages.data()), other = memory_store(others.data());
  test::Random random(212);
  const std::vector<float> rows = random.bells(128), queries = random.bells(256);
  std::vector<float> out(256);
  Status worst = Status::kOk;
  const auto run = [&worst](Status status) { worst = worst == Status::kOk ? status : worst; };
  RecallUsage usage;
  {
    const Watch watch;
    Cache cache, copy;
    run(cache.init(arena.bytes(), kShape, policy, {.profile = profile, .store = &store}));
    for (int i = 0; i < 500; ++i) {
      run(append(cache, 0, rows, rows));
      run(recall(cache, 0, queries));
      run(attend(cache, 0, queries, out));
    }
    save_and_restore(cache, snapshot, run);
    for (const std::uint32_t head : {0u, 1u}) run(verify_log(cache, 0, head));
    run(clone(cache, second.bytes(), copy, &other));
    run(recall(copy, 0, queries));
    usage = recall_usage(copy);
  }
  EXPECT_EQ(allocations, 0);
  EXPECT_EQ(worst, Status::kOk);
  EXPECT_GT(usage.forgotten_pages, 0u);
  EXPECT_EQ(usage.lost_pages, 0u);
}

}  // namespace
}  // namespace nibkv

#endif
