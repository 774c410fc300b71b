#include "bench/runner/model/heap_count.hpp"

#include <stdlib.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <new>

// Sanitizers have their own allocation functions, which must stay; they report every
// allocation through a hook.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define NIBKV_HEAP_BY_HOOK 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define NIBKV_HEAP_BY_HOOK 1
#endif
#endif

namespace nibkv::llm {
namespace {

constinit std::atomic<std::uint32_t> allocations{0};

void note_allocation() {
  if (watch_depth > 0) allocations.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace
}  // namespace nibkv::llm

#if defined(NIBKV_HEAP_BY_HOOK)

extern "C" int __sanitizer_install_malloc_and_free_hooks(void (*on_malloc)(const volatile void*, std::size_t),
                                                         void (*on_free)(const volatile void*));

namespace nibkv::llm {
namespace {

void on_malloc(const volatile void*, std::size_t) {
  note_allocation();
}
void on_free(const volatile void*) {}

const int kHooks = __sanitizer_install_malloc_and_free_hooks(on_malloc, on_free);

}  // namespace
}  // namespace nibkv::llm

#else

namespace {

// One allocation counts once, although operator new gets its memory from malloc.
class Unwatched {
 public:
  Unwatched() : depth_(nibkv::llm::watch_depth) { nibkv::llm::watch_depth = 0; }
  ~Unwatched() { nibkv::llm::watch_depth = depth_; }
  Unwatched(const Unwatched&) = delete;
  Unwatched& operator=(const Unwatched&) = delete;

 private:
  int depth_;
};

// As the standard requires: a new-handler may free memory, else bad_alloc.
template <typename F>
void* allocate(F&& attempt) {
  nibkv::llm::note_allocation();
  const Unwatched unwatched;
  while (true) {
    if (void* memory = attempt()) return memory;
    const std::new_handler handler = std::get_new_handler();
    if (handler == nullptr) throw std::bad_alloc();
    handler();
  }
}

}  // namespace

// The other forms (arrays, nothrow) call these by default.
void* operator new(std::size_t size) {
  return allocate([size] { return malloc(size == 0 ? 1 : size); });
}

void* operator new(std::size_t size, std::align_val_t alignment) {
  const auto unit = static_cast<std::size_t>(alignment);
  return allocate([size, unit] {
    void* memory = nullptr;
    return posix_memalign(&memory, unit < sizeof(void*) ? sizeof(void*) : unit, size == 0 ? 1 : size) == 0 ? memory
                                                                                                           : nullptr;
  });
}

void operator delete(void* memory) noexcept {
  free(memory);
}
void operator delete(void* memory, std::size_t) noexcept {
  free(memory);
}
void operator delete(void* memory, std::align_val_t) noexcept {
  free(memory);
}
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept {
  free(memory);
}

// glibc lets a program replace its functions, and call the originals under these names. They are
// weak so that a statically linked program, where glibc's functions cannot be replaced, links too;
// heap_sight() detects that.
#if defined(__GLIBC__)

extern "C" {

void* __libc_malloc(std::size_t size);
void* __libc_calloc(std::size_t count, std::size_t size);
void* __libc_realloc(void* memory, std::size_t size);
void* __libc_memalign(std::size_t alignment, std::size_t size);

[[gnu::weak]] void* malloc(std::size_t size) noexcept {
  nibkv::llm::note_allocation();
  return __libc_malloc(size);
}

[[gnu::weak]] void* calloc(std::size_t count, std::size_t size) noexcept {
  nibkv::llm::note_allocation();
  return __libc_calloc(count, size);
}

[[gnu::weak]] void* realloc(void* memory, std::size_t size) noexcept {
  nibkv::llm::note_allocation();
  return __libc_realloc(memory, size);
}

[[gnu::weak]] void* memalign(std::size_t alignment, std::size_t size) noexcept {
  nibkv::llm::note_allocation();
  return __libc_memalign(alignment, size);
}

[[gnu::weak]] void* aligned_alloc(std::size_t alignment, std::size_t size) noexcept {
  nibkv::llm::note_allocation();
  return __libc_memalign(alignment, size);
}

[[gnu::weak]] int posix_memalign(void** memory, std::size_t alignment, std::size_t size) noexcept {
  nibkv::llm::note_allocation();
  if (alignment % sizeof(void*) != 0 || alignment == 0 || (alignment & (alignment - 1)) != 0) return EINVAL;
  void* taken = __libc_memalign(alignment, size);
  if (taken == nullptr) return ENOMEM;
  *memory = taken;
  return 0;
}

}  // extern "C"

#endif  // __GLIBC__
#endif  // NIBKV_HEAP_BY_HOOK

namespace nibkv::llm {
namespace {

// Called through a pointer that is opaque to the compiler, which would otherwise
// remove the allocation.
template <typename F>
bool is_counted(F* allocate, void (*release)(void*)) {
  F* volatile hidden = allocate;
  const std::uint32_t before = allocations.load();
  void* memory = nullptr;
  {
    const HeapWatch watch;
    memory = hidden(64);
  }
  release(memory);
  const bool counted = allocations.load() != before;
  if (counted) allocations.fetch_sub(1);
  return counted;
}

}  // namespace

HeapSight heap_sight() {
#if defined(NIBKV_HEAP_BY_HOOK)
  if (kHooks == 0) return HeapSight::kNothing;
#endif
  if (!is_counted<void*(std::size_t)>([](std::size_t size) { return ::operator new(size); },
                                      [](void* memory) { ::operator delete(memory); })) {
    return HeapSight::kNothing;
  }
  return is_counted<void*(std::size_t)>([](std::size_t size) { return malloc(size); }, free) ? HeapSight::kEverything
                                                                                             : HeapSight::kOperatorNew;
}

std::uint64_t heap_allocations() {
  return allocations.load();
}

std::string heap_report() {
  const HeapSight sight = heap_sight();
  if (sight == HeapSight::kNothing) return "-";
  return std::to_string(heap_allocations()) + (sight == HeapSight::kOperatorNew ? " (operator new only)" : "");
}

}  // namespace nibkv::llm
