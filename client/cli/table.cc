#include "client/cli/table.h"

#include <algorithm>

#include "base/check.h"

namespace attic::cli {

void Table::AddRow(std::vector<std::string> cells) {
  ATTIC_CHECK(cells.size() == columns_.size());
  rows_.push_back(std::move(cells));
}

void Table::Print(std::ostream& out) const {
  std::vector<size_t> widths;
  for (size_t c = 0; c < columns_.size(); ++c) {
    size_t width = columns_[c].title.size();
    for (const auto& row : rows_) width = std::max(width, row[c].size());
    widths.push_back(width);
  }
  const auto print_line = [&](const auto& cell) {
    std::string line;
    for (size_t c = 0; c < columns_.size(); ++c) {
      const std::string& text = cell(c);
      const std::string padding(widths[c] - text.size(), ' ');
      line += (c > 0 ? "  " : "");
      line += columns_[c].align == Align::kLeft ? text + padding : padding + text;
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out << line << '\n';
  };
  print_line([&](size_t c) -> const std::string& { return columns_[c].title; });
  size_t total = 0;
  for (const size_t width : widths) total += width + 2;
  out << std::string(total < 2 ? 0 : total - 2, '-') << '\n';
  for (const auto& row : rows_) {
    print_line([&](size_t c) -> const std::string& { return row[c]; });
  }
}

}  // namespace attic::cli
