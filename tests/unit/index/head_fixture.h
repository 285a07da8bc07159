// A head with everything that was appended to it, for tests against the oracle.
#ifndef ATTIC_TESTS_UNIT_INDEX_HEAD_FIXTURE_H_
#define ATTIC_TESTS_UNIT_INDEX_HEAD_FIXTURE_H_

#include <cmath>
#include <cstdio>
#include <memory>
#include <span>
#include <vector>

#include "absl/time/time.h"
#include "attention/exact_attention.h"
#include "server/index/head_index.h"
#include "tests/unit/index/synthetic_head.h"

namespace attic {

inline constexpr double kExactTolerance = 1e-4;

struct Oracle {
  std::vector<double> output;
  double log_sum_exp;
};

// A head, everything appended to it, and comparisons with the oracle.
class HeadFixture {
 public:
  explicit HeadFixture(uint64_t seed, uint32_t group = 2, ElementType type = ElementType::kBFloat16,
                       IndexOptions options = SmallOptions())
      : options_(options) {
    std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
    synthetic_.head_dim = 48;
    synthetic_.value_dim = 40;
    synthetic_.topics = 60;
    synthetic_.query_length = 12;
    synthetic_.element_type = type;
    synthetic_.seed = seed;
    source_ = std::make_unique<SyntheticHead>(synthetic_);
    shape_.head_dim = 48;
    shape_.value_dim = 40;
    shape_.group = group;
    shape_.element_type = type;
    shape_.logit_scale = source_->logit_scale();
    head_ = HeadIndex::Create(shape_, options_);
    scratch_ = MakeSearchScratch();
  }

  static IndexOptions SmallOptions() {
    IndexOptions options;
    options.segment_tokens = 256;
    options.cluster_tokens = 8;
    options.super_cluster_clusters = 8;
    options.exact_scan_tokens_max = 0;
    options.exact_when_better = false;
    options.centroid_graph = true;
    options.graph_clusters_min = 128;
    return options;
  }

  const IndexOptions& options() const { return options_; }

  void Append(size_t count) {
    std::vector<float> keys, values;
    source_->AppendTokens(count, keys, values);
    AppendRows(keys, values);
  }

  void AppendRows(const std::vector<float>& keys, const std::vector<float>& values) {
    const std::vector<std::byte> k = Narrow(keys, shape_.element_type);
    const std::vector<std::byte> v = Narrow(values, shape_.element_type);
    const size_t count = keys.size() / shape_.head_dim;
    head_->Append({k.data(), shape_.element_type, count, shape_.head_dim},
                  {v.data(), shape_.element_type, count, shape_.value_dim});
    keys_.insert(keys_.end(), k.begin(), k.end());
    values_.insert(values_.end(), v.begin(), v.end());
  }

  void Forget(int64_t position) {
    keys_.resize(static_cast<size_t>(position) * key_bytes());
    values_.resize(static_cast<size_t>(position) * value_bytes());
  }

  void BuildAll() {
    while (head_->BuildNext().value()) {
    }
  }

  std::vector<float> Queries() {
    std::vector<float> queries;
    for (uint32_t g = 0; g < shape_.group; ++g) {
      const std::vector<float> query = source_->Query();
      queries.insert(queries.end(), query.begin(), query.end());
    }
    return queries;
  }

  Oracle Reference(std::span<const float> query, PositionRange range) const {
    const int64_t end = std::min(range.end, count());
    const auto begin = static_cast<size_t>(range.begin);
    const auto n = static_cast<size_t>(std::max<int64_t>(0, end - range.begin));
    Oracle oracle;
    oracle.output.resize(shape_.value_dim);
    oracle.log_sum_exp = ReferenceAttention(query, shape_.logit_scale, keys().rows(begin, n),
                                            values().rows(begin, n), oracle.output);
    return oracle;
  }

  HeadAnswer Attend(const HeadSnapshot& snapshot, std::span<const float> queries,
                    PositionRange range, AttendMode mode,
                    absl::Time deadline = absl::InfiniteFuture()) {
    HeadAnswer answer;
    EXPECT_TRUE(
        snapshot
            .Attend({.queries = queries, .range = range, .mode = mode, .deadline = deadline},
                    *scratch_, answer)
            .ok());
    return answer;
  }

  // The newest snapshot, through the index.
  HeadAnswer Attend(std::span<const float> queries, PositionRange range,
                    SelectionPolicy selection) {
    HeadAnswer answer;
    EXPECT_TRUE(head_->Snapshot()
                    ->Attend({.queries = queries, .range = range, .selection = selection},
                             *scratch_, answer)
                    .ok());
    return answer;
  }

  // Largest error over the group, of output relative to its length and of log_sum_exp.
  double Error(const HeadAnswer& answer, std::span<const float> queries,
               PositionRange range) const {
    double worst = 0;
    for (size_t g = 0; g < shape_.group; ++g) {
      const Oracle oracle = Reference(queries.subspan(g * shape_.head_dim, shape_.head_dim), range);
      double difference = 0, length = 1e-30;
      for (size_t i = 0; i < shape_.value_dim; ++i) {
        const double d = answer.output[g * shape_.value_dim + i] - oracle.output[i];
        difference += d * d;
        length += oracle.output[i] * oracle.output[i];
      }
      worst = std::max(worst, std::sqrt(difference / length));
      if (std::isfinite(oracle.log_sum_exp) || std::isfinite(answer.log_sum_exp[g])) {
        worst = std::max(worst, std::abs(answer.log_sum_exp[g] - oracle.log_sum_exp));
      }
    }
    return worst;
  }

  double ErrorOf(PositionRange range, AttendMode mode) {
    const std::vector<float> queries = Queries();
    return Error(Attend(*head_->Snapshot(), queries, range, mode), queries, range);
  }

  int64_t count() const { return static_cast<int64_t>(keys_.size() / key_bytes()); }
  size_t key_bytes() const { return shape_.head_dim * ElementBytes(shape_.element_type); }
  size_t value_bytes() const { return shape_.value_dim * ElementBytes(shape_.element_type); }
  VectorsView keys() const {
    return {keys_.data(), shape_.element_type, static_cast<size_t>(count()), shape_.head_dim};
  }
  VectorsView values() const {
    return {values_.data(), shape_.element_type, static_cast<size_t>(count()), shape_.value_dim};
  }
  HeadIndex& head() { return *head_; }
  void set_head(std::unique_ptr<HeadIndex> head) { head_ = std::move(head); }
  SyntheticHead& source() { return *source_; }
  SearchScratch& scratch() { return *scratch_; }
  const HeadShape& shape() const { return shape_; }

 private:
  const IndexOptions options_;
  SyntheticOptions synthetic_;
  HeadShape shape_;
  std::unique_ptr<SyntheticHead> source_;
  std::unique_ptr<HeadIndex> head_;
  SearchScratchPtr scratch_;
  std::vector<std::byte> keys_, values_;
};

}  // namespace attic

#endif  // ATTIC_TESTS_UNIT_INDEX_HEAD_FIXTURE_H_
