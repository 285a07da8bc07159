// Early return on absl::Status errors.
#ifndef ATTIC_BASE_STATUS_MACROS_H_
#define ATTIC_BASE_STATUS_MACROS_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define ATTIC_MACRO_CONCAT_INNER(a, b) a##b
#define ATTIC_MACRO_CONCAT(a, b) ATTIC_MACRO_CONCAT_INNER(a, b)

// Returns the status from the enclosing function when `expression` is not OK.
#define ATTIC_RETURN_IF_ERROR(expression)                                                  \
  do {                                                                                     \
    if (absl::Status attic_status = (expression); !attic_status.ok()) return attic_status; \
  } while (false)

// ATTIC_ASSIGN_OR_RETURN(auto x, F()): assigns the value, or returns F's status.
#define ATTIC_ASSIGN_OR_RETURN(lhs, expression) \
  ATTIC_ASSIGN_OR_RETURN_IMPL(ATTIC_MACRO_CONCAT(attic_statusor_, __LINE__), lhs, expression)
#define ATTIC_ASSIGN_OR_RETURN_IMPL(statusor, lhs, expression) \
  auto statusor = (expression);                                \
  if (!statusor.ok()) return std::move(statusor).status();     \
  lhs = *std::move(statusor)

#endif  // ATTIC_BASE_STATUS_MACROS_H_
