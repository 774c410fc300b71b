// The tiny model answers, from constant data and with an arena in static memory, on a host and on a bare board. With every
// port, or with the fastest one under an emulator.
#include "tests/baremetal/print.hpp"
#include "tests/support/effort.hpp"
#include "tests/tiny/tiny_model.hpp"
#include "tests/tiny/tiny_recall.hpp"

namespace {

constexpr std::size_t kArenaBytes = nibkv::footprint(nibkv::metal::kTinyShape, nibkv::metal::kTinyPolicy);

alignas(nibkv::kArenaAlignment) std::byte arena[kArenaBytes];
nibkv::metal::TinyLlama model;

bool answers(std::string_view port) {
  using namespace nibkv::metal;
  nibkv::Cache cache;
  const Recall said = recall(model, cache, arena, port);
  const bool right = said.status == nibkv::Status::kOk && said.answer == kTinyAnswer && said.word == kTinyCache;
  say(port.data());
  say(": '");
  say(said.answer);
  say("' after ");
  say_number(said.tokens);
  say(" tokens, ");
  say_number(cache.held(0, 0));
  say(" of them held in an arena of ");
  say_number(sizeof arena);
  say(" bytes, cache ");
  say_word(said.word);
  say(right ? "\n" : ": WRONG\n");
  return right;
}

}  // namespace

int main(int, char**) {
  if (!model.open(nibkv::metal::tiny_model()) || model.shape() != nibkv::metal::kTinyShape) {
    nibkv::metal::say("the model cannot be read\n");
    return 1;
  }
  bool right = true;
  bool any = false;
  for (std::uint32_t i = 0; !nibkv::port_name(i).empty() && (nibkv::test::kEveryPort || !any); ++i) {
    if (!nibkv::port_runs(nibkv::port_name(i))) continue;
    any = true;
    right = answers(nibkv::port_name(i)) && right;
  }
  return right && any ? 0 : 1;
}
