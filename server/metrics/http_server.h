// HTTP for one document: what a monitoring system fetches every few seconds.
#ifndef ATTIC_SERVER_METRICS_HTTP_SERVER_H_
#define ATTIC_SERVER_METRICS_HTTP_SERVER_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace attic {

struct HttpServerOptions {
  std::string listen_address;  // host:port; port 0: chosen
  std::string path;            // such as /metrics
  std::string content_type;
  // The document. Called for each request for it, by the server's thread alone.
  std::function<std::string()> document;
  absl::Duration patience = absl::Seconds(10);  // how long a client may take altogether
};

// The answer to a request whose head is `head`, up to and with its empty line: the document to GET
// and HEAD of its path, 404 to other paths, 405 to other methods, 400 to what is no HTTP/1.
std::string AnswerHttp(const HttpServerOptions& options, const std::string& head);

// One thread serves all connections, each for one request, and waits for none of them: a client
// that sends or reads slowly, or nothing, is cut off after options.patience. No more than
// kConnectionsMax are open; others wait in the kernel's queue. Thread-safe.
class HttpServer {
 public:
  static constexpr size_t kConnectionsMax = 32;
  static constexpr size_t kHeadBytesMax = 16u << 10;

  // Serves when it returns. INVALID_ARGUMENT for an address that is no host:port, UNAVAILABLE when
  // it cannot be bound; a port is not shared with another server.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(HttpServerOptions options);
  // Answers under way are cut off.
  virtual ~HttpServer() = default;

  virtual const std::string& address() const = 0;  // with the port really bound
};

}  // namespace attic

#endif  // ATTIC_SERVER_METRICS_HTTP_SERVER_H_
