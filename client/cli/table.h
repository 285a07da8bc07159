// Tables of text for people.
#ifndef ATTIC_CLIENT_CLI_TABLE_H_
#define ATTIC_CLIENT_CLI_TABLE_H_

#include <ostream>
#include <string>
#include <vector>

namespace attic::cli {

enum class Align { kLeft, kRight };

struct Column {
  std::string title;
  Align align = Align::kRight;
};

// Columns are as wide as their widest cell, two spaces apart, under a header line.
class Table {
 public:
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

  // As many cells as columns.
  void AddRow(std::vector<std::string> cells);
  void Print(std::ostream& out) const;

 private:
  const std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace attic::cli

#endif  // ATTIC_CLIENT_CLI_TABLE_H_
