#include "bench/eval/metrics/divergence.hpp"

#include <algorithm>
#include <cmath>

#include "bench/runner/programs/output_file.hpp"
#include "bench/runner/stores/policy_settings.hpp"

namespace nibkv::llm {
namespace {

// At most this many rows are kept at a time, so that a large vocabulary stays within about 25 MiB.
constexpr std::size_t kRowsAtOnce = 64;
// Less likely tokens of the base count nothing.
constexpr float kLeastLogProbability = -16;

class ChunkRunner {
 public:
  ChunkRunner(Model& model, const LogitsShape& shape, const ChunkOptions& options)
      : model_(model), shape_(shape), bos_(options.bos), store_(checked(model.config(), shape), options.store) {
    // Whole chunks of the store, so that it gets the same ones as if all were fed at once.
    const std::size_t chunk = store_.max_chunk();
    step_ = std::max<std::size_t>(1, kRowsAtOnce / chunk) * chunk;
    logits_.resize(step_ * shape.vocabulary);
  }

  /// @param scored  gets the logits of some rows, [count][vocabulary], the index of the first one, and their count
  /// @param fed     gets how many tokens of this chunk are done
  template <typename Scored, typename Fed>
  void run(std::span<const std::int32_t> chunk, Scored&& scored, Fed&& fed) {
    std::vector<std::int32_t> tokens(chunk.begin(), chunk.end());
    if (bos_) tokens[0] = *bos_;
    store_.clear();
    const std::size_t first = shape_.first_row();
    for (std::size_t at = 0; at < shape_.context; at += step_) {
      const std::size_t end = std::min(at + step_, shape_.context);
      const std::size_t from = std::clamp(first, at, end);
      model_.forward(std::span(tokens).subspan(at, end - at), at, store_, logits_.data(), end - from);
      // The row of the last token predicts one that is not in the chunk.
      const std::size_t to = std::min(end, shape_.context - 1);
      if (from < to) scored(logits_.data(), from - first, to - from);
      fed(end);
    }
    bits_per_channel_ = std::max(bits_per_channel_, store_.bits_per_channel());
    peak_bytes_ = std::max<std::uint64_t>(peak_bytes_, store_.cache().usage().peak_bytes);
  }

  CacheFigures figures() const {
    const Cache& cache = store_.cache();
    return {bits_per_channel_,
            cache.usage().arena_bytes,
            peak_bytes_,
            fold_text(cache.shape(), cache.policy()),
            cache.shape().outlier_channels,
            std::string(cache.port())};
  }

 private:
  static const Config& checked(const Config& config, const LogitsShape& shape) {
    if (shape.vocabulary != config.vocabulary) {
      throw Error("the file is of a vocabulary of " + std::to_string(shape.vocabulary) + " tokens, and the model has " +
                  std::to_string(config.vocabulary));
    }
    if (shape.context > config.context) {
      throw Error("a context of " + std::to_string(shape.context) + " tokens is larger than the model's " +
                  std::to_string(config.context));
    }
    return config;
  }

  Model& model_;
  const LogitsShape& shape_;
  std::optional<std::int32_t> bos_;
  TileStore store_;
  std::size_t step_ = 0;
  std::vector<float> logits_;  // [step][vocabulary]
  double bits_per_channel_ = 0;
  std::uint64_t peak_bytes_ = 0;
};

struct Moments {
  double mean = 0;
  double variance = 0;  // of the mean
};

// The covariance of the means of two numbers of each row: their own, divided by one row less than there are.
template <typename First, typename Second>
double covariance(std::span<const RowDivergence> rows, double first_mean, double second_mean, First first,
                  Second second) {
  if (rows.size() < 2) return 0;
  double sum = 0;
  for (const RowDivergence& row : rows) sum += (first(row) - first_mean) * (second(row) - second_mean);
  return sum / static_cast<double>(rows.size()) / static_cast<double>(rows.size() - 1);
}

template <typename Number>
Moments moments(std::span<const RowDivergence> rows, Number number) {
  double sum = 0;
  for (const RowDivergence& row : rows) sum += number(row);
  const double mean = sum / static_cast<double>(rows.size());
  return {mean, covariance(rows, mean, mean, number, number)};
}

template <typename Number>
Estimate mean(std::span<const RowDivergence> rows, Number number) {
  const Moments of = moments(rows, number);
  return {of.mean, std::sqrt(of.variance)};
}

// The exponential of an estimate, whose derivative is itself.
Estimate exponential(double value, double error) {
  return {std::exp(value), std::exp(value) * error};
}

// Between two rows the line that joins them.
template <typename Number, std::size_t kCount>
std::array<double, kCount> percentiles(std::span<const RowDivergence> rows, Number number,
                                       const std::array<double, kCount>& levels) {
  std::vector<double> sorted;
  for (const RowDivergence& row : rows) sorted.push_back(number(row));
  std::sort(sorted.begin(), sorted.end());
  std::array<double, kCount> out = {};
  for (std::size_t i = 0; i < kCount; ++i) {
    const double place = levels[i] * static_cast<double>(sorted.size() - 1);
    const auto below = static_cast<std::size_t>(place);
    const double part = place - static_cast<double>(below);
    out[i] = (1 - part) * sorted[below] + part * sorted[std::min(below + 1, sorted.size() - 1)];
  }
  return out;
}

PackedRow packed_row(std::span<const std::uint16_t> rows, std::size_t index, const LogitsShape& shape) {
  return {rows.subspan(index * shape.row_words(), shape.row_words()), shape.vocabulary};
}

}  // namespace

RowDivergence compare_row(std::span<const float> tested, double sum, const PackedRow& base, std::int32_t target) {
  const auto at = static_cast<std::size_t>(target);
  RowDivergence row;
  row.loss = sum - tested[at];
  row.base_loss = -base.log_probability(at);
  row.change = std::exp(-row.loss) - std::exp(-row.base_loss);
  for (std::size_t i = 0; i < tested.size(); ++i) {
    const float expected = base.log_probability(i);
    if (expected <= kLeastLogProbability) continue;
    row.divergence += std::exp(static_cast<double>(expected)) * (expected - (tested[i] - sum));
  }
  const auto top = std::max_element(tested.begin(), tested.end());
  row.same_top = static_cast<std::size_t>(top - tested.begin()) == base.top();
  return row;
}

DivergenceFigures summarise(std::span<const RowDivergence> rows) {
  const auto loss = [](const RowDivergence& row) { return row.loss; };
  const auto base_loss = [](const RowDivergence& row) { return row.base_loss; };
  const auto divergence = [](const RowDivergence& row) { return row.divergence; };
  const auto change = [](const RowDivergence& row) { return row.change; };
  const Moments own = moments(rows, loss), base = moments(rows, base_loss);
  const double shared = covariance(rows, own.mean, base.mean, loss, base_loss);

  DivergenceFigures out;
  out.rows = rows.size();
  out.perplexity = exponential(own.mean, std::sqrt(own.variance));
  out.base_perplexity = exponential(base.mean, std::sqrt(base.variance));
  const double spread = std::sqrt(own.variance) * std::sqrt(base.variance);
  out.correlation = spread > 0 ? shared / spread : 0;
  // Variances of a sum, with partial derivatives 1 and -1, or the perplexities; rounding may leave less than 0.
  out.log_ratio = {own.mean - base.mean, std::sqrt(std::max(0.0, own.variance + base.variance - 2 * shared))};
  out.ratio = exponential(out.log_ratio.value, out.log_ratio.error);
  const double p = out.perplexity.value, q = out.base_perplexity.value;
  out.difference = {p - q, std::sqrt(std::max(0.0, p * p * own.variance + q * q * base.variance - 2 * p * q * shared))};

  out.divergence = mean(rows, divergence);
  out.divergences = percentiles(rows, divergence, kDivergenceLevels);
  out.change = mean(rows, change);
  out.changes = percentiles(rows, change, kChangeLevels);
  const Estimate squared = mean(rows, [](const RowDivergence& row) { return row.change * row.change; });
  const double root = std::sqrt(squared.value);
  out.change_rms = {root, root > 0 ? squared.error / (2 * root) : 0};
  out.same_top = mean(rows, [](const RowDivergence& row) { return row.same_top ? 1.0 : 0.0; });
  return out;
}

MeasuredDivergence measure_divergence(Model& model, ThreadPool& pool, LogitsFile& base, std::size_t chunks,
                                      const ChunkOptions& options, const TokensDone& progress) {
  const LogitsShape& shape = base.shape();
  ChunkRunner runner(model, shape, options);
  std::vector<RowDivergence> rows(chunks * shape.rows());
  std::vector<std::uint16_t> packed;
  for (std::size_t chunk = 0; chunk < chunks; ++chunk) {
    const auto tokens = base.chunk(chunk);
    const auto scored = [&](const float* logits, std::size_t first, std::size_t count) {
      base.read_rows(count, pool, packed);
      pool.run(count, [&](std::size_t index, std::size_t) {
        const std::span<const float> tested(logits + index * shape.vocabulary, shape.vocabulary);
        rows[chunk * shape.rows() + first + index] = compare_row(
            tested, log_sum(tested), packed_row(packed, index, shape), tokens[shape.first_row() + first + index + 1]);
      });
    };
    runner.run(tokens, scored, [&](std::size_t fed) {
      if (progress) progress(chunk * shape.context + fed, chunks * shape.context);
    });
  }
  return {summarise(rows), runner.figures()};
}

DivergenceFigures compare_files(ThreadPool& pool, LogitsFile& base, LogitsFile& tested, std::size_t chunks,
                                const TokensDone& progress) {
  const LogitsShape& shape = base.shape();
  if (tested.shape() != shape || !std::equal(base.tokens().begin(), base.tokens().end(), tested.tokens().begin())) {
    throw Error(tested.path() + " and " + base.path() + " are not of the same tokens");
  }
  std::vector<RowDivergence> rows(chunks * shape.rows());
  std::vector<std::uint16_t> packed, other;
  std::vector<std::vector<float>> unpacked(pool.workers(), std::vector<float>(shape.vocabulary));
  for (std::size_t chunk = 0; chunk < chunks; ++chunk) {
    const auto targets = base.chunk(chunk).subspan(shape.first_row() + 1);
    for (std::size_t first = 0; first < shape.rows(); first += kRowsAtOnce) {
      const std::size_t count = std::min(kRowsAtOnce, shape.rows() - first);
      base.read_rows(count, pool, packed);
      tested.read_rows(count, pool, other);
      pool.run(count, [&](std::size_t index, std::size_t worker) {
        const PackedRow row = packed_row(other, index, shape);
        for (std::size_t i = 0; i < shape.vocabulary; ++i) unpacked[worker][i] = row.log_probability(i);
        rows[chunk * shape.rows() + first + index] =
            compare_row(unpacked[worker], 0, packed_row(packed, index, shape), targets[first + index]);
      });
    }
    if (progress) progress((chunk + 1) * shape.context, chunks * shape.context);
  }
  return summarise(rows);
}

WrittenLogits write_logits(const std::string& path, Model& model, ThreadPool& pool,
                           std::span<const std::int32_t> tokens, const LogitsShape& shape, const ChunkOptions& options,
                           const TokensDone& progress) {
  ChunkRunner runner(model, shape, options);
  std::vector<RowDivergence> rows(shape.chunks * shape.rows());
  std::vector<std::uint16_t> packed;
  write_parts(path, [&](const Sink& sink) {
    sink(logits_header(shape, tokens));
    for (std::size_t chunk = 0; chunk < shape.chunks; ++chunk) {
      const auto part = tokens.subspan(chunk * shape.context, shape.context);
      const auto scored = [&](const float* logits, std::size_t first, std::size_t count) {
        packed.resize(count * shape.row_words());
        pool.run(count, [&](std::size_t index, std::size_t) {
          const std::span<const float> row(logits + index * shape.vocabulary, shape.vocabulary);
          const double sum = log_sum(row);
          pack_row(row, sum, std::span(packed).subspan(index * shape.row_words(), shape.row_words()));
          const auto target = static_cast<std::size_t>(part[shape.first_row() + first + index + 1]);
          rows[chunk * shape.rows() + first + index].loss = sum - row[target];
        });
        sink(std::as_bytes(std::span(packed)));
      };
      runner.run(part, scored, [&](std::size_t fed) {
        if (progress) progress(chunk * shape.context + fed, shape.chunks * shape.context);
      });
    }
  });
  return {rows.size(), summarise(rows).perplexity, runner.figures()};
}

}  // namespace nibkv::llm
