// Arena bytes per token of well-known models, as a Markdown table. Computed by the library's own
// footprint(), which is exact.
#include <cstdint>
#include <cstdio>

#include "nibkv/arena.hpp"

namespace {

struct Model {
  const char* name;
  std::uint16_t layers;
  std::uint16_t query_heads;
  std::uint16_t kv_heads;
  std::uint16_t head_dim;
};

constexpr Model kModels[] = {{"tiny-recall", 5, 4, 2, 64},
                             {"SmolLM2-135M", 30, 9, 3, 64},
                             {"Qwen2.5-0.5B", 24, 14, 2, 64},
                             {"Llama-3.2-1B", 16, 32, 8, 64},
                             {"Llama-3-8B", 32, 32, 8, 128}};
constexpr std::uint32_t kTokens = 4096;
constexpr std::uint64_t kBytes = std::uint64_t{64} << 20;

}  // namespace

int main() {
  std::printf(
      "| model | outlier channels | arena for %u tokens | bytes per token | f16 cache | of f16 | bytes per token, "
      "`ems` | "
      "tokens in 64 MiB |\n",
      static_cast<unsigned>(kTokens));
  std::printf("|---|---:|---:|---:|---:|---:|---:|---:|\n");
  for (const Model& model : kModels) {
    for (const std::uint16_t outliers : {0, 4, 8}) {
      nibkv::Shape shape;
      shape.layers = model.layers;
      shape.query_heads = model.query_heads;
      shape.kv_heads = model.kv_heads;
      shape.head_dim = model.head_dim;
      shape.outlier_channels = outliers;
      const double bytes = static_cast<double>(nibkv::footprint(shape, nibkv::full(kTokens)));
      const double scored = static_cast<double>(nibkv::footprint(shape, nibkv::ems(kTokens)));
      const double f16 = 4.0 * model.layers * model.kv_heads * model.head_dim;
      std::printf("| %s | %u | %.2f MiB | %.0f | %.0f | %.1f %% | %.0f | %u |\n", model.name,
                  static_cast<unsigned>(outliers), bytes / (1 << 20), bytes / kTokens, f16, 100 * bytes / kTokens / f16,
                  scored / kTokens, static_cast<unsigned>(nibkv::tokens_that_fit(shape, nibkv::full(1), kBytes)));
    }
  }
  return 0;
}
