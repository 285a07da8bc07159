#include "tests/bench/head_data.h"

#include <algorithm>
#include <cmath>
#include <ctime>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "client/cli/bench/npy_file.h"

namespace attic {
namespace {

std::vector<float> Widen(const cli::NpyMatrix& matrix) {
  const VectorsView view = matrix.view();
  std::vector<float> wide(view.count * view.dim);
  ToFloat32(view.data, view.type, wide);
  return wide;
}

std::vector<std::byte> ToBFloat16(const cli::NpyMatrix& matrix) {
  const std::vector<float> wide = Widen(matrix);
  std::vector<std::byte> bytes(wide.size() * ElementBytes(ElementType::kBFloat16));
  FromFloat32(wide, ElementType::kBFloat16, bytes.data());
  return bytes;
}

absl::Status BuildAll(HeadData& head) {
  const double start = ThreadMilliseconds();
  bool built = true;
  while (built) {
    ATTIC_ASSIGN_OR_RETURN(built, head.index->BuildNext());
  }
  head.build_seconds = (ThreadMilliseconds() - start) / 1e3;
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<HeadData> LoadHead(const std::string& folder, const std::string& head,
                                  uint32_t group, float logit_scale, size_t questions_max,
                                  const IndexOptions& options) {
  const auto read = [&](const char* name) {
    return cli::ReadNpyMatrix(absl::StrCat(folder, "/", name, "_", head, ".npy"));
  };
  ATTIC_ASSIGN_OR_RETURN(const cli::NpyMatrix keys, read("keys"));
  ATTIC_ASSIGN_OR_RETURN(const cli::NpyMatrix values, read("values"));
  ATTIC_ASSIGN_OR_RETURN(const cli::NpyMatrix training, read("training"));
  ATTIC_ASSIGN_OR_RETURN(const cli::NpyMatrix questions, read("questions"));
  HeadData data;
  data.shape.head_dim = static_cast<uint32_t>(keys.header.columns);
  data.shape.value_dim = static_cast<uint32_t>(values.header.columns);
  data.shape.group = group;
  data.shape.logit_scale =
      logit_scale > 0 ? logit_scale : 1.0f / std::sqrt(static_cast<float>(data.shape.head_dim));
  const std::vector<float> all = Widen(questions);
  const size_t size = data.question_size(), count = all.size() / size;
  const size_t kept = std::min(count, questions_max);
  for (size_t i = 0; i < kept; ++i) {
    const auto from = all.begin() + static_cast<std::ptrdiff_t>(i * count / kept * size);
    data.questions.insert(data.questions.end(), from, from + static_cast<std::ptrdiff_t>(size));
  }
  data.index = HeadIndex::Create(data.shape, options);
  data.index->AddTrainingQueries(Widen(training));
  const std::vector<std::byte> k = ToBFloat16(keys), v = ToBFloat16(values);
  const size_t rows = keys.header.rows;
  const VectorsView key_rows{k.data(), ElementType::kBFloat16, rows, data.shape.head_dim};
  const VectorsView value_rows{v.data(), ElementType::kBFloat16, rows, data.shape.value_dim};
  constexpr size_t kBatch = 8192;
  for (size_t row = 0; row < rows; row += kBatch) {
    const size_t n = std::min(kBatch, rows - row);
    data.index->Append(key_rows.rows(row, n), value_rows.rows(row, n));
  }
  ATTIC_RETURN_IF_ERROR(BuildAll(data));
  return data;
}

std::optional<SelectionPolicy> ParsePolicy(const std::string& text) {
  const size_t name_end = text.find('=');
  SelectionPolicy policy;
  if (name_end != text.npos && !absl::SimpleAtod(text.substr(name_end + 1), &policy.amount)) {
    return std::nullopt;
  }
  for (const auto goal :
       {SelectionGoal::kDefault, SelectionGoal::kTopK, SelectionGoal::kTokenBudget,
        SelectionGoal::kCoverage, SelectionGoal::kMaxError, SelectionGoal::kInnerProductRange}) {
    policy.goal = goal;
    if (text.substr(0, name_end) == SelectionGoalName(goal) &&
        ValidateSelection(policy, Limits()).ok()) {
      return policy;
    }
  }
  return std::nullopt;
}

double ThreadMilliseconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return 1e3 * static_cast<double>(now.tv_sec) + 1e-6 * static_cast<double>(now.tv_nsec);
}

double RelativeError(const float* a, const float* exact, size_t n) {
  double difference = 0, length = 1e-30;
  for (size_t i = 0; i < n; ++i) {
    difference += (double{a[i]} - exact[i]) * (double{a[i]} - exact[i]);
    length += double{exact[i]} * exact[i];
  }
  return std::sqrt(difference / length);
}

double Quantile(std::vector<double> x, double share) {
  if (x.empty()) return 0;
  std::sort(x.begin(), x.end());
  return x[std::min(x.size() - 1, static_cast<size_t>(share * static_cast<double>(x.size())))];
}

}  // namespace attic
