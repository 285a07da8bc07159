#include "client/cli/table.h"

#include <gtest/gtest.h>

#include <sstream>

namespace attic::cli {
namespace {

TEST(TableTest, ColumnsAreAsWideAsTheirWidestCell) {
  Table table({{"name", Align::kLeft}, {"n"}});
  table.AddRow({"a", "1,000"});
  table.AddRow({"longer", "2"});
  std::ostringstream out;
  table.Print(out);
  EXPECT_EQ(out.str(),
            "name        n\n"
            "-------------\n"
            "a       1,000\n"
            "longer      2\n");
}

TEST(TableTest, NoSpacesAtLineEnds) {
  Table table({{"a", Align::kLeft}, {"b", Align::kLeft}});
  table.AddRow({"1", ""});
  std::ostringstream out;
  table.Print(out);
  EXPECT_EQ(out.str(), "a  b\n----\n1\n");
}

}  // namespace
}  // namespace attic::cli
