#include "bench/runner/gguf/fingerprint.hpp"

#include <algorithm>
#include <span>
#include <string_view>

namespace nibkv::llm {
namespace {

// FNV-1a over bytes and their number.
class Hash {
 public:
  explicit Hash(std::uint64_t start) : word_(start) {}
  void add(std::span<const std::byte> bytes) {
    for (const std::byte byte : bytes) mix(static_cast<std::uint64_t>(byte));
    mix(bytes.size());
  }
  std::uint64_t word() const { return word_ != 0 ? word_ : 1; }

 private:
  void mix(std::uint64_t number) { word_ = (word_ ^ number) * 0x100000001b3; }

  std::uint64_t word_;
};

}  // namespace

std::uint64_t weights_fingerprint(const Gguf& file) {
  Hash hash(0xcbf29ce484222325);
  for (const Tensor& tensor : file.tensors()) {
    constexpr std::size_t kPiece = 1024;
    hash.add(std::as_bytes(std::span(tensor.name)));
    hash.add(std::as_bytes(std::span(tensor.shape)));
    const std::size_t size = tensor.data.size();
    const std::size_t piece = std::min(size, kPiece);
    hash.add(tensor.data.first(piece));
    hash.add(tensor.data.subspan((size - piece) / 2, piece));
    hash.add(tensor.data.last(piece));
  }
  file.give_back();
  return hash.word();
}

std::uint64_t model_fingerprint(const Gguf& file) {
  Hash hash(weights_fingerprint(file));
  for (const std::string_view token : file.texts("tokenizer.ggml.tokens")) hash.add(std::as_bytes(std::span(token)));
  return hash.word();
}

}  // namespace nibkv::llm
