// How far the store goes for an answer, as options of a command.
#ifndef ATTIC_CLIENT_CLI_SELECTION_OPTIONS_H_
#define ATTIC_CLIENT_CLI_SELECTION_OPTIONS_H_

#include <CLI/CLI.hpp>

#include "api/selection.h"

namespace attic::cli {

// Adds --top-k, --token-budget, --coverage, --max-error and --inner-product-range, of which a
// command line may have one. It sets `selection`, which outlives the parse; without one `selection`
// keeps what it has. An amount that does not suit (ValidateSelection) is an error of the parse.
void AddSelectionOptions(CLI::App& command, SelectionPolicy& selection);

}  // namespace attic::cli

#endif  // ATTIC_CLIENT_CLI_SELECTION_OPTIONS_H_
