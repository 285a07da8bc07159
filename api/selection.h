// How far the store goes for an answer: what it reads exactly, said as the accuracy that is asked
// for or as the work that is allowed. Whatever is not read is estimated, never left out.
#ifndef ATTIC_API_SELECTION_H_
#define ATTIC_API_SELECTION_H_

#include <cstdint>

#include "absl/status/status.h"
#include "api/limits.h"

namespace attic {

enum class SelectionGoal : uint8_t {
  kDefault = 0,  // as the store's options say for the head
  // The `amount` best keys of each query head, by q.k, are attended exactly.
  kTopK = 1,
  // At most the bytes of `amount` tokens' keys and values are read for each kv head.
  kTokenBudget = 2,
  // Until this share of the softmax mass, in (0, 1], is attended exactly.
  kCoverage = 3,
  // Until the estimated error of each query head's output, |output - exact| / |exact| (Euclidean
  // lengths), is at most `amount`, in (0, 1].
  kMaxError = 4,
  // All keys whose logit is at least the largest logit less `amount` >= 0 (AlayaDB's dynamic inner
  // product range, arXiv 2504.10326: amount = -log(share of the largest weight)).
  kInnerProductRange = 5,
};

struct SelectionPolicy {
  SelectionGoal goal = SelectionGoal::kDefault;
  double amount = 0;

  bool operator==(const SelectionPolicy&) const = default;
};

// The goal's name in proto/attic/v1/attention.proto, such as "top_k"; "default" and "unknown" for
// what has none there.
const char* SelectionGoalName(SelectionGoal goal);

// Whether the amount suits the goal: whole numbers from 1 for kTopK and kTokenBudget, shares in
// (0, 1] for kCoverage and kMaxError, a finite float32 of at least 0 for kInnerProductRange.
// INVALID_ARGUMENT naming the field ("selection.top_k"), RESOURCE_EXHAUSTED naming
// selection_top_k_max. The amount of kDefault means nothing.
absl::Status ValidateSelection(const SelectionPolicy& selection, const Limits& limits);

}  // namespace attic

#endif  // ATTIC_API_SELECTION_H_
