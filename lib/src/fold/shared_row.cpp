#include "fold/shared_row.hpp"

#include "codec/row.hpp"
#include "fold/fold_row.hpp"

namespace nibkv {

SharedRow::SharedRow(const ArenaView& to, const Place (&at)[2], bool keys) : to_(to), keys_(keys) {
  for (std::uint32_t w = 0; w < 2; ++w) {
    (keys ? key_row : value_row)(to, at[w].tile, at[w].lane, codes[w]);
    scales[w] = (keys ? to.key_scales(at[w].tile) : to.value_scales(at[w].tile))[at[w].lane];
  }
}

void SharedRow::fold_into(const Place (&at)[2]) const {
  std::uint8_t shared[kMaxHeadDim];
  RowPair pair{{codes[0], codes[1]}, {scales[0], scales[1]}};
  fold_row(to_.kernels(), pair, to_.shape().head_dim, to_.policy().fold.t, to_.encoding(), shared);
  for (std::uint32_t w = 0; w < 2; ++w) {
    (keys_ ? put_key : put_value)(to_, at[w].tile, at[w].lane, shared, pair.scales[w]);
  }
}

}  // namespace nibkv
