#include <google/protobuf/message.h>
#include <google/protobuf/unknown_field_set.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "wire/convert.h"

namespace attic::wire {
namespace {

uint32_t CountToWire(double amount) {
  const bool count = amount >= 1 && std::isfinite(amount) && amount == std::floor(amount);
  constexpr double kLargest = std::numeric_limits<uint32_t>::max();
  return count ? static_cast<uint32_t>(std::min(amount, kLargest)) : 0;
}

}  // namespace

v1::SelectionPolicy ToWire(const SelectionPolicy& selection) {
  v1::SelectionPolicy out;
  switch (selection.goal) {
    case SelectionGoal::kDefault:
      break;
    case SelectionGoal::kTopK:
      out.set_top_k(CountToWire(selection.amount));
      break;
    case SelectionGoal::kTokenBudget:
      out.set_token_budget(CountToWire(selection.amount));
      break;
    case SelectionGoal::kCoverage:
      out.set_coverage(static_cast<float>(selection.amount));
      break;
    case SelectionGoal::kMaxError:
      out.set_max_error(static_cast<float>(selection.amount));
      break;
    case SelectionGoal::kInnerProductRange:
      out.set_inner_product_range(static_cast<float>(selection.amount));
      break;
  }
  return out;
}

absl::StatusOr<SelectionPolicy> FromWire(const v1::SelectionPolicy& selection) {
  switch (selection.goal_case()) {
    case v1::SelectionPolicy::kTopK:
      return SelectionPolicy{SelectionGoal::kTopK, static_cast<double>(selection.top_k())};
    case v1::SelectionPolicy::kTokenBudget:
      return SelectionPolicy{SelectionGoal::kTokenBudget,
                             static_cast<double>(selection.token_budget())};
    case v1::SelectionPolicy::kCoverage:
      return SelectionPolicy{SelectionGoal::kCoverage, selection.coverage()};
    case v1::SelectionPolicy::kMaxError:
      return SelectionPolicy{SelectionGoal::kMaxError, selection.max_error()};
    case v1::SelectionPolicy::kInnerProductRange:
      return SelectionPolicy{SelectionGoal::kInnerProductRange, selection.inner_product_range()};
    case v1::SelectionPolicy::GOAL_NOT_SET:
      break;
  }
  const auto& unknown = selection.GetReflection()->GetUnknownFields(selection);
  if (unknown.empty()) return SelectionPolicy();
  return absl::InvalidArgumentError("selection: a goal that is not known");
}

}  // namespace attic::wire
