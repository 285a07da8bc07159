#include "server/metrics/metric_writer.h"

#include <gtest/gtest.h>
#include <prometheus/text_serializer.h>

#include <string>

namespace attic {
namespace {

std::string Text(MetricWriter& writer) {
  const prometheus::TextSerializer text;
  return static_cast<const prometheus::Serializer&>(text).Serialize(writer.Take());
}

TEST(MetricWriterTest, SeriesOfOneNameStandTogether) {
  MetricWriter writer;
  writer.Gauge("a", "Of a.", 1.5, {{"kind", "x"}});
  writer.Counter("b_total", "Of b.", 7);
  writer.Gauge("a", "Of a.", 2, {{"kind", "say \"y\"\n"}});
  EXPECT_EQ(Text(writer),
            "# HELP a Of a.\n# TYPE a gauge\na{kind=\"x\"} 1.5\na{kind=\"say \\\"y\\\"\\n\"} 2\n"
            "# HELP b_total Of b.\n# TYPE b_total counter\nb_total 7\n");
  EXPECT_EQ(Text(writer), "") << "Take leaves nothing";
}

TEST(MetricWriterTest, HistogramsAreCumulative) {
  MetricWriter writer;
  writer.Histogram("h", "Of h.", {.upper_bounds = {0.5, 1}, .counts = {3, 4, 5}, .sum = 9.25});
  EXPECT_EQ(Text(writer),
            "# HELP h Of h.\n# TYPE h histogram\nh_count 12\nh_sum 9.25\n"
            "h_bucket{le=\"0.5\"} 3\nh_bucket{le=\"1\"} 7\nh_bucket{le=\"+Inf\"} 12\n");
}

TEST(MetricWriterDeathTest, ANameHasOneType) {
  MetricWriter writer;
  writer.Gauge("a_total", "Of a.", 1);
  EXPECT_DEATH(writer.Counter("a_total", "Of a.", 1), "type");
  EXPECT_DEATH(writer.Counter("b", "Of b.", 1), "_total");
}

}  // namespace
}  // namespace attic
