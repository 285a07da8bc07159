#include "server/metrics/http_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "tests/unit/metrics/http_client.h"

namespace attic {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

HttpServerOptions Options(const std::string& document = "text") {
  return {.listen_address = "127.0.0.1:0",
          .path = "/metrics",
          .content_type = "text/plain",
          .document = [document] { return document; }};
}

TEST(HttpServerTest, AnswersByMethodAndPath) {
  const auto answer = [](const std::string& line) {
    return AnswerHttp(Options(), line + "\r\nHost: a\r\n\r\n");
  };
  EXPECT_EQ(answer("GET /metrics HTTP/1.1"),
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n"
            "Connection: close\r\n\r\ntext");
  EXPECT_THAT(answer("GET /metrics?a=b HTTP/1.0"), EndsWith("\r\n\r\ntext"));
  const std::string head = answer("HEAD /metrics HTTP/1.1");
  EXPECT_THAT(head, HasSubstr("Content-Length: 4\r\n"));
  EXPECT_THAT(head, EndsWith("\r\n\r\n"));
  for (const char* path : {"/", "/metrics/", "/metricsx", "*", "//metrics", "/../etc/passwd", ""}) {
    EXPECT_THAT(answer("GET " + std::string(path) + " HTTP/1.1"), StartsWith("HTTP/1.1 404 "));
  }
  EXPECT_THAT(answer("POST /metrics HTTP/1.1"), StartsWith("HTTP/1.1 405 "));
  for (const char* line : {"", "GET", "GET /metrics", "GET /metrics HTTP/2",
                           "GET  /metrics HTTP/1.1", "GET /metrics HTTP/1.1 more", "\xff\xfe"}) {
    EXPECT_THAT(answer(line), StartsWith("HTTP/1.1 400 ")) << line;
  }
}

TEST(HttpServerTest, ServesOverASocketWhateverPiecesTheRequestComesIn) {
  const std::string document(3'000'000, 'x');  // more than fits the kernel's buffers
  const auto server = HttpServer::Start(Options(document));
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_EQ(HttpGet((*server)->address(), "/metrics"), document);
  RawConnection connection((*server)->address());
  for (const char c : std::string("GET /metrics HTTP/1.1\r\n\r\n")) {
    connection.Send(std::string(1, c));
  }
  EXPECT_THAT(connection.ReadAll(), EndsWith(document));
}

TEST(HttpServerTest, IdleAndEndlessRequestsDelayNobody) {
  const auto server = HttpServer::Start(Options());
  ASSERT_TRUE(server.ok()) << server.status();
  std::vector<std::unique_ptr<RawConnection>> idle;
  for (size_t i = 0; i + 1 < HttpServer::kConnectionsMax; ++i) {
    idle.push_back(std::make_unique<RawConnection>((*server)->address()));
    idle.back()->Send("GET /met");
  }
  const absl::Time start = absl::Now();
  EXPECT_EQ(HttpGet((*server)->address(), "/metrics"), "text");
  EXPECT_LT(absl::Now() - start, Options().patience / 2);
  idle.back()->Send(std::string(HttpServer::kHeadBytesMax + 1 - 8, 'a'));
  EXPECT_THAT(idle.back()->ReadAll(), StartsWith("HTTP/1.1 431 "));
  idle.front()->Send("rics HTTP/1.1\r\n\r\n");
  EXPECT_THAT(idle.front()->ReadAll(), EndsWith("text"));
}

TEST(HttpServerTest, MoreClientsThanItTakesAreServedWhenIdleOnesAreCutOff) {
  HttpServerOptions options = Options();
  options.patience = absl::Milliseconds(300);
  const auto server = HttpServer::Start(options);
  ASSERT_TRUE(server.ok()) << server.status();
  std::vector<std::unique_ptr<RawConnection>> idle;
  for (size_t i = 0; i < HttpServer::kConnectionsMax; ++i) {
    idle.push_back(std::make_unique<RawConnection>((*server)->address()));
  }
  EXPECT_EQ(HttpGet((*server)->address(), "/metrics"), "text");
  EXPECT_EQ(idle.front()->ReadAll(), "");
}

TEST(HttpServerTest, EndsWithConnectionsOpen) {
  auto server = HttpServer::Start(Options());
  ASSERT_TRUE(server.ok()) << server.status();
  RawConnection connection((*server)->address());
  connection.Send("GET ");
  server->reset();
  EXPECT_EQ(connection.ReadAll(), "");
}

TEST(HttpServerTest, RefusesAddressesItCannotListenOn) {
  const auto code = [](const std::string& address) {
    HttpServerOptions options = Options();
    options.listen_address = address;
    return HttpServer::Start(options).status().code();
  };
  for (const char* address : {"", "nonsense", ":1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536",
                              "127.0.0.1:-1", "127.0.0.1:1,127.0.0.1:", "unix:/tmp/a"}) {
    EXPECT_EQ(code(address), absl::StatusCode::kInvalidArgument) << address;
  }
  EXPECT_EQ(code("192.0.2.1:0"), absl::StatusCode::kUnavailable);  // no address of this machine
  const auto first = HttpServer::Start(Options());
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(code((*first)->address()), absl::StatusCode::kUnavailable);
  HttpServerOptions by_name = Options();
  by_name.listen_address = "localhost:0";
  EXPECT_TRUE(HttpServer::Start(by_name).ok());
}

}  // namespace
}  // namespace attic
