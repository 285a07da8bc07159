// One head of a benchmark's data set, read from files into an index.
#ifndef ATTIC_TESTS_BENCH_HEAD_DATA_H_
#define ATTIC_TESTS_BENCH_HEAD_DATA_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/index/head_index.h"

namespace attic {

struct HeadData {
  HeadShape shape;
  std::vector<float> questions;  // (n, group, head_dim), held back
  std::unique_ptr<HeadIndex> index;
  double build_seconds = 0;  // of one thread

  size_t question_count() const { return questions.size() / question_size(); }
  size_t question_size() const { return size_t{shape.group} * shape.head_dim; }
  std::span<const float> question(size_t i) const {
    return {questions.data() + i * question_size(), question_size()};
  }
};

// Reads keys_H.npy, values_H.npy, training_H.npy and questions_H.npy of `folder`, all
// (rows, dimensions), and builds the index. At most `questions_max` groups of questions, evenly
// taken. logit_scale 0: one over the root of head_dim.
absl::StatusOr<HeadData> LoadHead(const std::string& folder, const std::string& head,
                                  uint32_t group, float logit_scale, size_t questions_max,
                                  const IndexOptions& options);

// A policy from its name and amount: "max_error=0.1", or "default". Nothing where the text is no
// policy, or has an amount that does not suit its goal.
std::optional<SelectionPolicy> ParsePolicy(const std::string& text);

// Processor time of this thread.
double ThreadMilliseconds();

// |a - exact| / |exact|.
double RelativeError(const float* a, const float* exact, size_t n);

// Of a copy; 0 when empty.
double Quantile(std::vector<double> x, double share);

}  // namespace attic

#endif  // ATTIC_TESTS_BENCH_HEAD_DATA_H_
