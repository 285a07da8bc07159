#include "api/selection.h"

#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace attic {
namespace {

absl::Status Refused(SelectionGoal goal, const char* what) {
  return absl::InvalidArgumentError(absl::StrCat("selection.", SelectionGoalName(goal), what));
}

// Comparisons are written so that NaN fails them.
absl::Status CheckWholeNumber(const SelectionPolicy& selection) {
  const double amount = selection.amount;
  const bool whole = amount >= 1 && std::isfinite(amount) && amount == std::floor(amount);
  return whole ? absl::OkStatus()
               : Refused(selection.goal, ": must be a whole number of at least 1");
}

absl::Status CheckShare(const SelectionPolicy& selection) {
  const bool share = selection.amount > 0 && selection.amount <= 1;
  return share ? absl::OkStatus() : Refused(selection.goal, ": must be above 0 and at most 1");
}

absl::Status CheckDistance(const SelectionPolicy& selection) {
  const bool distance =
      selection.amount >= 0 && selection.amount <= std::numeric_limits<float>::max();
  return distance ? absl::OkStatus()
                  : Refused(selection.goal, ": must be a finite number of at least 0");
}

}  // namespace

const char* SelectionGoalName(SelectionGoal goal) {
  switch (goal) {
    case SelectionGoal::kDefault:
      return "default";
    case SelectionGoal::kTopK:
      return "top_k";
    case SelectionGoal::kTokenBudget:
      return "token_budget";
    case SelectionGoal::kCoverage:
      return "coverage";
    case SelectionGoal::kMaxError:
      return "max_error";
    case SelectionGoal::kInnerProductRange:
      return "inner_product_range";
  }
  return "unknown";
}

absl::Status ValidateSelection(const SelectionPolicy& selection, const Limits& limits) {
  switch (selection.goal) {
    case SelectionGoal::kDefault:
      return absl::OkStatus();
    case SelectionGoal::kTopK:
      ATTIC_RETURN_IF_ERROR(CheckWholeNumber(selection));
      if (selection.amount <= limits.selection_top_k_max) return absl::OkStatus();
      return absl::ResourceExhaustedError(absl::StrCat(
          "selection.top_k: over the limit selection_top_k_max of ", limits.selection_top_k_max));
    case SelectionGoal::kTokenBudget:
      return CheckWholeNumber(selection);
    case SelectionGoal::kCoverage:
    case SelectionGoal::kMaxError:
      return CheckShare(selection);
    case SelectionGoal::kInnerProductRange:
      return CheckDistance(selection);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("selection.goal: ", static_cast<int>(selection.goal), " is not known"));
}

}  // namespace attic
