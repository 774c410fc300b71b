#include "bench/runner/profile/profile_maker.hpp"

#include <algorithm>
#include <sstream>

#include "bench/runner/programs/arguments.hpp"
#include "bench/runner/programs/output_file.hpp"
#include "bench/runner/stores/tile_store.hpp"

namespace nibkv::llm {
namespace {

class CalibratingObserver : public AttentionObserver {
 public:
  CalibratingObserver(Calibrator& calibrator, const Shape& shape, AttentionObserver* other)
      : calibrator_(calibrator), shape_(shape), other_(other) {}

  void observe(int layer, std::size_t position, std::size_t count, const float* queries, const float* keys,
               const float* values) override {
    if (other_ != nullptr) other_->observe(layer, position, count, queries, keys, values);
    const std::size_t kv_size = count * shape_.kv_heads * shape_.head_dim;
    const std::size_t q_size = count * shape_.query_heads * shape_.head_dim;
    require(calibrator_.observe(static_cast<std::uint32_t>(layer), std::span(queries, q_size), std::span(keys, kv_size),
                                std::span(values, kv_size)),
            "calibrate");
  }

 private:
  Calibrator& calibrator_;
  Shape shape_;
  AttentionObserver* other_;  // or null
};

}  // namespace

std::vector<std::byte> make_profile(Model& model, ThreadPool& pool, std::span<const std::int32_t> tokens,
                                    std::size_t context, const std::function<void(std::size_t)>& progress, bool align,
                                    AttentionObserver* first) {
  if (tokens.empty()) throw Error("the text for the profile is empty");
  StoreOptions options;
  options.storage = Storage::kF32;
  options.tokens = static_cast<std::uint32_t>(std::min(context, tokens.size()));
  options.workers = pool.workers();
  TileStore store(model.config(), options);

  const Shape shape = shape_of(model.config(), options);
  const CalibrationOptions measured = {
      align,
      {model.config().rope_adjacent, static_cast<std::uint16_t>(model.config().rope_pairs)},
      model.config().weights};
  std::vector<double> memory(calibration_bytes(shape, measured) / sizeof(double) + 1);
  Calibrator calibrator;
  require(calibrator.init(std::as_writable_bytes(std::span(memory)), shape, measured), "calibrate");
  CalibratingObserver of_first(calibrator, shape, first), of_others(calibrator, shape, nullptr);
  for (std::size_t start = 0; start < tokens.size(); start += context) {
    store.clear();
    const std::size_t end = std::min(tokens.size(), start + context);
    const std::size_t chunk = std::min(store.max_chunk(), kCalibrationChunk);
    for (std::size_t at = start; at < end; at += chunk) {
      const std::size_t count = std::min(chunk, end - at);
      model.forward(tokens.subspan(at, count), at - start, store, nullptr, 0, start == 0 ? &of_first : &of_others);
      if (progress) progress(at + count);
    }
  }
  std::vector<std::byte> profile(profile_bytes(shape, align));
  require(calibrator.write(profile), "calibrate");
  return profile;
}

std::vector<std::byte> read_profile(const std::string& path, const Config& model) {
  const std::string bytes = read_text(path);
  const auto view = std::as_bytes(std::span(bytes));
  std::vector<std::byte> profile(view.begin(), view.end());
  ProfileView checked;
  require(checked.open(profile, shape_of(model, {})), path);
  if (checked.weights() != 0 && model.weights != 0 && checked.weights() != model.weights) {
    throw Error(path + ": a profile of a model of this shape with other weights");
  }
  return profile;
}

void write_profile_header(const std::string& path, std::span<const std::byte> profile) {
  std::ostringstream out;
  out << "// A nibkv profile: pass std::as_bytes(std::span(kProfile)) as Options::profile.\n#pragma once\n\n"
         "inline constexpr unsigned char kProfile["
      << profile.size() << "] = {";
  for (std::size_t i = 0; i < profile.size(); ++i) {
    out << (i % 24 == 0 ? "\n    " : "") << std::to_integer<unsigned>(profile[i])
        << (i + 1 < profile.size() ? "," : "");
  }
  out << "};\n";
  write_file(path, out.str());
}

}  // namespace nibkv::llm
