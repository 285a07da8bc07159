#include "client/cli/memory_table.h"

#include <algorithm>

#include "client/cli/table.h"
#include "client/cli/text_format.h"

namespace attic::cli {

void PrintMemoryTable(const MemoryUse& memory, std::ostream& out) {
  const double raw =
      std::max<double>(1, memory.vectors_bytes + memory.tail_bytes + memory.evicted_bytes);
  Table table({{"memory", Align::kLeft}, {"bytes"}, {"of keys and values"}});
  const auto add = [&](const char* part, uint64_t bytes) {
    table.AddRow({part, FormatBytes(bytes), FormatPercent(bytes / raw)});
  };
  add("keys and values, indexed", memory.vectors_bytes);
  add("keys and values, tail", memory.tail_bytes);
  add("cluster sums", memory.summaries_bytes);
  add("codes", memory.codes_bytes);
  add("graph", memory.graph_bytes);
  add("total", memory.total());
  if (memory.evicted_bytes > 0) add("on disk only", memory.evicted_bytes);
  table.Print(out);
}

}  // namespace attic::cli
