// A store's metrics over HTTP tell what it was asked over gRPC.
#include "server/metrics/store_metrics.h"

#include <gmock/gmock.h>

#include <cmath>
#include <map>
#include <memory>
#include <sstream>
#include <string>

#include "server/metrics/metrics_server.h"
#include "tests/integration/store_service_fixture.h"
#include "tests/unit/metrics/http_client.h"

namespace attic {
namespace {

class StoreMetricsTest : public StoreServiceTest {
 protected:
  void SetUp() override {
    StartServer();
    auto metrics = MetricsServer::Start({.listen_address = "127.0.0.1:0"});
    ASSERT_TRUE(metrics.ok()) << metrics.status();
    metrics_ = *std::move(metrics);
    metrics_->AddSource([this](MetricWriter& writer) { WriteStoreMetrics(*server_, writer); });
  }

  // What is exported now: {name and labels: value}.
  std::map<std::string, double> Scrape() {
    std::istringstream text(HttpGet(metrics_->address(), "/metrics"));
    std::map<std::string, double> values;
    for (std::string line; std::getline(text, line);) {
      if (line.starts_with('#')) continue;
      const size_t space = line.rfind(' ');
      values[line.substr(0, space)] = std::stod(line.substr(space + 1));
    }
    return values;
  }

  static std::string Calls(const std::string& method, const std::string& code) {
    return "attic_store_calls_total{method=\"" + method + "\",code=\"" + code + "\"}";
  }
  static std::string Durations(const std::string& call) {
    return "attic_store_call_duration_seconds_count{call=\"" + call + "\"}";
  }

  std::unique_ptr<MetricsServer> metrics_;
};

TEST_F(StoreMetricsTest, CallsAreCountedByMethodAndCode) {
  OpenSession("s");
  OpenSession("s");
  EXPECT_EQ(Watermark("nobody"), -1);
  Append({AppendRequest("s", 0, 100), AppendRequest("s", 50, 10), AppendRequest("s", 100, 20)});
  v1::SearchRequest search;
  search.set_session_id("s");
  search.set_k(0);
  v1::SearchResponse hits;
  EXPECT_FALSE(attention_->Search(Context().get(), search, &hits).ok());
  search.set_k(3);
  search.set_queries(RandomFloatBytes(size_t{kQHeads} * kHeadDim));
  ASSERT_TRUE(attention_->Search(Context().get(), search, &hits).ok());
  const auto values = Scrape();
  EXPECT_EQ(values.at(Calls("Open", "OK")), 2);
  EXPECT_EQ(values.at(Calls("Describe", "NOT_FOUND")), 1);
  EXPECT_EQ(values.at(Calls("Describe", "OK")), 0);
  EXPECT_EQ(values.at(Calls("Append", "OK")), 2);
  EXPECT_EQ(values.at(Calls("Append", "ALREADY_EXISTS")), 1);
  EXPECT_EQ(values.at(Calls("Search", "OK")), 1);
  EXPECT_EQ(values.at(Calls("Search", "INVALID_ARGUMENT")), 1);
  EXPECT_EQ(values.at(Durations("session")), 3);
  EXPECT_EQ(values.at(Durations("append")), 3);
  EXPECT_EQ(values.at(Durations("search")), 2);
  EXPECT_EQ(values.at("attic_store_appended_tokens_total"), 120);
  EXPECT_EQ(values.at("attic_store_sessions"), 1);
  EXPECT_EQ(values.at("attic_store_tokens"), 120);
  EXPECT_EQ(values.at("attic_store_ready"), 1);
  EXPECT_GT(values.at("attic_store_memory_limit_bytes"), 0);
}

TEST_F(StoreMetricsTest, AnswersAreCountedWithTheirCoverageAndErrors) {
  OpenSession("s");
  Fill("s", 3000);
  v1::AttendRequest request = AttendRequest("s");
  *request.add_items() = Item("s");
  *request.add_items() = Item("nobody");
  request.add_items()->set_queries("123");
  v1::AttendResponse response;
  ASSERT_TRUE(attention_->Attend(Context().get(), request, &response).ok());
  double coverage = 0, error = 0, tokens = 0, bytes = 0;
  for (const v1::AttendItemResponse& item : {response.items(0), response.items(1)}) {
    ASSERT_EQ(item.error().code(), 0) << item.error().message();
    for (const float x : item.coverage()) coverage += x;
    for (const float x : item.estimated_error()) error += x;
    tokens += static_cast<double>(item.read().tokens());
    bytes += static_cast<double>(item.read().bytes_read());
  }
  const auto values = Scrape();
  EXPECT_EQ(values.at(Calls("Attend", "OK")), 1);
  EXPECT_EQ(values.at("attic_store_attend_items_total{code=\"OK\"}"), 2);
  EXPECT_EQ(values.at("attic_store_attend_items_total{code=\"NOT_FOUND\"}"), 1);
  EXPECT_EQ(values.at("attic_store_attend_items_total{code=\"INVALID_ARGUMENT\"}"), 1);
  EXPECT_EQ(values.at("attic_store_attend_coverage_ratio_count"), 2 * kQHeads);
  EXPECT_NEAR(values.at("attic_store_attend_coverage_ratio_sum"), coverage, 1e-4);
  EXPECT_EQ(values.at("attic_store_attend_estimated_error_ratio_count"), 2 * kQHeads);
  EXPECT_NEAR(values.at("attic_store_attend_estimated_error_ratio_sum"), error, 1e-4);
  EXPECT_EQ(values.at("attic_store_query_tokens_total"), tokens);
  EXPECT_GT(bytes, 0);
  EXPECT_EQ(values.at("attic_store_query_read_bytes_total{source=\"memory\"}"), bytes);
}

TEST_F(StoreMetricsTest, StreamsAndDrainingShow) {
  OpenSession("s");
  Fill("s", 100);
  const auto context = Context();
  const auto stream = attention_->AttendStream(context.get());
  v1::AttendResponse response;
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(stream->Write(AttendRequest("s")));
    ASSERT_TRUE(stream->Read(&response));
  }
  auto values = Scrape();
  // The stream that filled the session goes a moment after its caller knows of its end.
  const absl::Time deadline = absl::Now() + absl::Seconds(30);
  while (values.at("attic_store_streams") != 1 && absl::Now() < deadline) values = Scrape();
  EXPECT_EQ(values.at("attic_store_streams"), 1);
  EXPECT_EQ(values.at("attic_store_draining"), 0);
  EXPECT_EQ(values.at(Calls("AttendStream", "OK")), 3);
  EXPECT_EQ(values.at(Durations("attend")), 3);
  server_->SetReady(false);
  EXPECT_EQ(Scrape().at("attic_store_ready"), 0);
  server_->SetReady(true);
  EXPECT_EQ(Scrape().at("attic_store_ready"), 1);
  server_->Drain(absl::Now() + absl::Seconds(10));
  values = Scrape();
  EXPECT_EQ(values.at("attic_store_ready"), 0);
  EXPECT_EQ(values.at("attic_store_draining"), 1);
}

TEST_F(StoreMetricsTest, SnapshotsAreCountedOncePerStream) {
  OpenSession("s");
  Fill("s", 100);
  for (const char* name : {"s", "nobody"}) {
    v1::ExportRequest request;
    request.set_session_id(name);
    const auto context = Context();
    const auto stream = sessions_->Export(context.get(), request);
    v1::SnapshotChunk chunk;
    while (stream->Read(&chunk)) {
    }
    EXPECT_EQ(stream->Finish().ok(), std::string(name) == "s");
  }
  const auto values = Scrape();
  EXPECT_EQ(values.at(Calls("Export", "OK")), 1);
  EXPECT_EQ(values.at(Calls("Export", "NOT_FOUND")), 1);
  EXPECT_EQ(values.at(Durations("snapshot")), 2);
}

TEST_F(StoreMetricsTest, SourcesAreAddedWhileItServes) {
  metrics_->AddSource([](MetricWriter& writer) { writer.Gauge("attic_test", "A test's.", 42); });
  EXPECT_EQ(Scrape().at("attic_test"), 42);
}

TEST(MetricsServerTest, OtherMachinesAreRefusedUnlessAllowed) {
  EXPECT_EQ(MetricsServer::Start({.listen_address = "0.0.0.0:0"}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(
      MetricsServer::Start({.listen_address = "0.0.0.0:0", .allow_insecure_remote = true}).ok());
  const auto first = MetricsServer::Start({.listen_address = "127.0.0.1:0"});
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(MetricsServer::Start({.listen_address = (*first)->address()}).status().code(),
            absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace attic
