// The least of an HTTP client: bytes to a socket and back.
#ifndef ATTIC_TESTS_UNIT_METRICS_HTTP_CLIENT_H_
#define ATTIC_TESTS_UNIT_METRICS_HTTP_CLIENT_H_

#include <string>

namespace attic {

// A connection to 127.0.0.1. What fails throws std::system_error, as does waiting for more than 20
// seconds.
class RawConnection {
 public:
  explicit RawConnection(const std::string& address);  // 127.0.0.1:PORT
  ~RawConnection();
  RawConnection(const RawConnection&) = delete;
  RawConnection& operator=(const RawConnection&) = delete;

  void Send(const std::string& bytes);
  // Everything until the server closes the connection.
  std::string ReadAll();

 private:
  int socket_;
};

// The body of the answer to a GET of `path`; empty unless it is 200.
std::string HttpGet(const std::string& address, const std::string& path);

}  // namespace attic

#endif  // ATTIC_TESTS_UNIT_METRICS_HTTP_CLIENT_H_
