// The memory of a store by part, as a table.
#ifndef ATTIC_CLIENT_CLI_MEMORY_TABLE_H_
#define ATTIC_CLIENT_CLI_MEMORY_TABLE_H_

#include <ostream>

#include "api/types.h"

namespace attic::cli {

void PrintMemoryTable(const MemoryUse& memory, std::ostream& out);

}  // namespace attic::cli

#endif  // ATTIC_CLIENT_CLI_MEMORY_TABLE_H_
