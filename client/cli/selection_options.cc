#include "client/cli/selection_options.h"

#include <string>
#include <vector>

#include "api/limits.h"

namespace attic::cli {
namespace {

struct SelectionOption {
  const char* name;
  SelectionGoal goal;
  const char* type;
  const char* meaning;
};

constexpr SelectionOption kOptions[] = {
    {"--top-k", SelectionGoal::kTopK, "N", "Read the N best keys of each query head"},
    {"--token-budget", SelectionGoal::kTokenBudget, "N",
     "Read at most the bytes of N tokens' keys and values for each kv head"},
    {"--coverage", SelectionGoal::kCoverage, "X",
     "Read until the share X of the softmax mass is attended exactly"},
    {"--max-error", SelectionGoal::kMaxError, "X",
     "Read until the estimated relative error of the output is at most X (not for search)"},
    {"--inner-product-range", SelectionGoal::kInnerProductRange, "X",
     "Read the keys whose logit is at least the largest less X"},
};

}  // namespace

void AddSelectionOptions(CLI::App& command, SelectionPolicy& selection) {
  std::vector<CLI::Option*> added;
  for (const SelectionOption& kind : kOptions) {
    const auto choose = [&selection, &kind](double amount) {
      const SelectionPolicy chosen{kind.goal, amount};
      const absl::Status status = ValidateSelection(chosen, Limits());
      if (!status.ok()) throw CLI::ValidationError(kind.name, std::string(status.message()));
      selection = chosen;
    };
    CLI::Option* option =
        command.add_option_function<double>(kind.name, choose, kind.meaning)->type_name(kind.type);
    for (CLI::Option* other : added) option->excludes(other);
    added.push_back(option);
  }
}

}  // namespace attic::cli
