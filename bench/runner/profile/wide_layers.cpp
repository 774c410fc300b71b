#include "bench/runner/profile/wide_layers.hpp"

#include <algorithm>

#include "bench/runner/gguf/gguf.hpp"

namespace nibkv::llm {

std::vector<float> measure_logit_errors(Model& model, std::span<const std::int32_t> tokens,
                                        const StoreOptions& options) {
  if (tokens.size() < kErrorTokens) {
    throw Error("a text of " + std::to_string(kErrorTokens) + " tokens or more is needed, not " +
                std::to_string(tokens.size()));
  }
  StoreOptions whole = options;
  whole.policy = "full";
  whole.tokens = static_cast<std::uint32_t>(tokens.size());
  whole.arena_bytes = 0;
  whole.reach = 0;
  whole.warn = nullptr;
  std::erase_if(whole.settings, [](const auto& setting) { return !setting.first.starts_with("wide"); });
  TileStore store(model.config(), whole);
  for (std::size_t at = 0; at < tokens.size();) {
    const std::size_t count = std::min(store.max_chunk(), tokens.size() - at);
    model.forward(tokens.subspan(at, count), at, store, nullptr, 0);
    at += count;
  }
  return store.logit_errors();
}

std::string wide_setting(std::span<const std::size_t> layers) {
  std::string setting;
  for (const std::size_t layer : layers) setting.append(setting.empty() ? "" : ":").append(std::to_string(layer));
  if (layers.size() == 1) setting.append(":").append(std::to_string(layers[0]));
  return setting;
}

}  // namespace nibkv::llm
