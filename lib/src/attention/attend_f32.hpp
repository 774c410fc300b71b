#pragma once

#include <cstdint>

#include "arena/view.hpp"
#include "attention/mask.hpp"
#include "codec/native_rows.hpp"
#include "nibkv/attend.hpp"

namespace nibkv {

/// attend for one KV head with Storage::kF32: the softmax is in f32, and there are no tiles
/// of codes.
void attend_head_f32(const ArenaView& to, std::uint32_t layer, std::uint32_t head, const Mask& mask,
                     const ConstRows& queries, const MutableRows& out, const Part& part);

}  // namespace nibkv
