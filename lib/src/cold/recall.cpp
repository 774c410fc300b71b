#include "nibkv/recall.hpp"

#include "arena/share.hpp"
#include "codec/native_rows.hpp"
#include "cold/index.hpp"
#include "cold/recalled.hpp"

namespace nibkv {
namespace {

// The newest tokens of a call, and which of their queries choose.
struct Choosers {
  const ConstRows& rows;
  std::uint32_t count;
  std::uint32_t first;
  std::uint32_t end;
};

// Votes of all of them and of a head's group.
std::uint32_t choose(const ArenaView& to, std::uint32_t layer, std::uint32_t kv_head, const Choosers& queries,
                     std::byte* space) {
  const RecallSpace at = recall_space_of(to.shape(), to.policy());
  const std::uint32_t group = to.shape().group();
  auto* const row = in_place<float>(space + at.row);
  Votes votes(to, layer, kv_head, space, (queries.end - queries.first) * group);
  const std::uint32_t own = to.own(to.chain(layer, kv_head)).slots;
  for (std::uint32_t query = queries.first; query < queries.end; ++query) {
    for (std::uint32_t member = 0; member < group; ++member) {
      row_of(queries.rows, query, kv_head * group + member).copy(to.kernels(), to.shape().head_dim, row);
      const std::uint32_t later = queries.count - 1 - query;  // tokens that it does not see
      votes.add(row, own > later ? own - later : 0);
    }
  }
  return votes.choose(in_place<std::uint32_t>(space + at.chosen));
}

// Reads a page, which is lost afterwards if it cannot be had.
void fetch(const PageBytes& page, std::size_t head_index, ColdHead& head, const IndexPage& index,
           std::uint32_t number) {
  count_page(head.read);
  if (read_page(page, head_index, head.index, number, index.sum())) return;
  index.lose();
  count_page(head.lost);
}

// Brings the pages of chosen tokens whose slots are empty.
// @returns false if a page was lost: then its tokens are no more to be chosen, and those slots have no tokens
bool fill(const ArenaView& to, std::uint32_t layer, std::uint32_t kv_head, const std::uint32_t* chosen,
          std::uint32_t count, std::byte* space) {
  Chain& chain = to.chain(layer, kv_head);
  ColdHead& head = cold_head(to, chain);
  std::uint32_t* const tokens = recalled_tokens(to, head);
  const PageBytes page{to, space + recall_space_of(to.shape(), to.policy()).page};
  const std::size_t number_of_head = to.head_index(layer, kv_head);
  const HeadIndex index(to, head);
  std::uint32_t there = kNoPage;  // whose bytes are in `page`
  bool all = true;
  if (to.store().prefetch != nullptr) {
    for (std::uint32_t slot = 0; slot < count; ++slot) {
      if (tokens[slot] != kNoToken || chosen[slot] / kTileSlots == there) continue;
      there = chosen[slot] / kTileSlots;
      prefetch_page(to, head.index, there);
    }
    there = kNoPage;
  }
  for (std::uint32_t slot = 0; slot < count; ++slot) {
    if (tokens[slot] != kNoToken) continue;
    const std::uint32_t number = chosen[slot] / kTileSlots;
    if (number != there) {
      there = number;
      fetch(page, number_of_head, head, index.at(number), number);
    }
    if (index.at(number).lost()) {
      all = false;
      continue;
    }
    slot_from_page(page, chosen[slot] % kTileSlots, recalled_place(to, chain, slot));
    tokens[slot] = chosen[slot];
  }
  return all;
}

void recall_head(const ArenaView& to, std::uint32_t layer, std::uint32_t kv_head, const Choosers& queries,
                 std::uint32_t worker) {
  Chain& chain = to.chain(layer, kv_head);
  ColdHead& head = cold_head(to, chain);
  if (head.index == kNotIndexed || head.pages == 0) return;
  std::byte* const space = to.scratch(worker) + to.scratch_layout().recall;
  auto* const chosen = in_place<std::uint32_t>(space + recall_space_of(to.shape(), to.policy()).chosen);
  const std::uint32_t wanted = choose(to, layer, kv_head, queries, space);
  head.chosen += wanted;
  head.found += arrange(to, chain, chosen, wanted);
  if (!fill(to, layer, kv_head, chosen, wanted, space)) drop_empty(to, chain);
}

void add(RecallUsage& sum, const ArenaView& to, const Chain& chain) {
  const ColdHead& head = cold_head(to, chain);
  if (head.index == kNotIndexed) return;
  const auto more = [](std::uint32_t& counter, std::uint32_t count) {
    counter = counter + count < counter ? 0xffffffff : counter + count;
  };
  more(sum.written_pages, head.written);
  more(sum.read_pages, head.read);
  more(sum.lost_pages, head.lost);
  more(sum.forgotten_pages, first_page(to, head));
  sum.chosen_tokens += head.chosen;
  sum.found_tokens += head.found;
}

// The chain of a head of a cache that has a log; nullptr if there is none.
const Chain* chain_of(const Cache& cache, std::uint32_t layer, std::uint32_t kv_head) {
  if (!cache.ready() || !keeps_log(cache.policy())) return nullptr;
  if (layer >= cache.shape().layers || kv_head >= cache.shape().kv_heads) return nullptr;
  return &ArenaView{cache}.chain(layer, kv_head);
}

}  // namespace

Status recall(Cache& cache, std::uint32_t layer, std::span<const float> queries, const Part& part) {
  if (!cache.ready()) return Status::kNotReady;
  const ArenaView to{cache};
  const Shape& shape = to.shape();
  const std::size_t stride = std::size_t{shape.query_heads} * shape.head_dim;
  const std::size_t count = queries.size() / stride;
  if (layer >= shape.layers || count == 0 || count > shape.max_chunk || queries.size() != count * stride)
    return Status::kBadArgument;
  return recall(cache, layer, static_cast<std::uint32_t>(count),
                tokens_first(queries.data(), Number::kF32, shape.query_heads, shape.head_dim), part);
}

Status recall(Cache& cache, std::uint32_t layer, std::uint32_t count, const ConstRows& queries, const Part& part) {
  if (!cache.ready()) return Status::kNotReady;
  const ArenaView to{cache};
  const Shape& shape = to.shape();
  if (layer >= shape.layers || count == 0 || count > shape.max_chunk) return Status::kBadArgument;
  if (!readable(queries, {count, shape.query_heads, shape.head_dim})) return Status::kBadArgument;
  Part whole = part;
  if (!complete(shape, count, whole)) return Status::kBadArgument;
  ConstRows of_part = queries;
  of_part.first = row_of(queries, whole.first_query, whole.first_head * shape.group()).numbers;
  if (!all_finite(of_part, {whole.queries, whole.heads * shape.group(), shape.head_dim})) return Status::kBadArgument;
  if (!keeps_log(to.policy())) return Status::kOk;
  const Choosers choosers{queries, count, whole.first_query, whole.first_query + whole.queries};
  for (std::uint32_t head = whole.first_head; head < whole.first_head + whole.heads; ++head)
    recall_head(to, layer, head, choosers, whole.worker);
  return Status::kOk;
}

Status verify_log(Cache& cache, std::uint32_t layer, std::uint32_t kv_head) {
  if (!cache.ready()) return Status::kNotReady;
  const ArenaView to{cache};
  if (layer >= to.shape().layers || kv_head >= to.shape().kv_heads) return Status::kBadArgument;
  if (!keeps_log(to.policy()) || !is_indexed(to, to.chain(layer, kv_head))) return Status::kOk;
  ColdHead& head = cold_head(to, to.chain(layer, kv_head));
  const HeadIndex index(to, head);
  const PageBytes page{to, to.scratch(0) + to.scratch_layout().recall + recall_space_of(to.shape(), to.policy()).page};
  for (std::uint32_t number = first_page(to, head); number < head.pages; ++number) {
    if (!index.at(number).lost()) fetch(page, to.head_index(layer, kv_head), head, index.at(number), number);
  }
  return Status::kOk;
}

RecallUsage recall_usage(const Cache& cache, std::uint32_t layer, std::uint32_t kv_head) {
  RecallUsage usage;
  if (const Chain* const chain = chain_of(cache, layer, kv_head); chain != nullptr)
    add(usage, ArenaView{cache}, *chain);
  return usage;
}

RecallUsage recall_usage(const Cache& cache) {
  RecallUsage usage;
  if (!cache.ready() || !keeps_log(cache.policy())) return usage;
  const ArenaView to{cache};
  for (std::size_t i = 0; i < to.heads(); ++i) add(usage, to, to.chains()[i]);
  return usage;
}

bool is_indexed(const Cache& cache, std::uint32_t layer, std::uint32_t kv_head) {
  const Chain* const chain = chain_of(cache, layer, kv_head);
  return chain != nullptr && is_indexed(ArenaView{cache}, *chain);
}

std::uint32_t recalled(const Cache& cache, std::uint32_t layer, std::uint32_t kv_head) {
  const Chain* const chain = chain_of(cache, layer, kv_head);
  return chain == nullptr ? 0 : cold_head(ArenaView{cache}, *chain).used;
}

std::uint32_t logged(const Cache& cache, std::uint32_t layer, std::uint32_t kv_head) {
  const Chain* const chain = chain_of(cache, layer, kv_head);
  if (chain == nullptr || !is_indexed(ArenaView{cache}, *chain)) return 0;
  const ArenaView of{cache};
  const ColdHead& head = cold_head(of, *chain);
  const HeadIndex index(of, head);
  std::uint32_t tokens = 0;
  for (std::uint32_t page = first_page(of, head); page < head.pages; ++page)
    tokens += index.at(page).lost() ? 0 : kTileSlots;
  return tokens;
}

}  // namespace nibkv
