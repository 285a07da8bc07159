// Connections between two ends of this process, through a network that loses what it carries.
#ifndef ATTIC_TESTS_UNIT_WIRE_TCP_PROXY_H_
#define ATTIC_TESTS_UNIT_WIRE_TCP_PROXY_H_

#include <atomic>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

namespace attic {

// Listens on a free loopback port and carries bytes to and from `port`. What is tried while nothing
// gets to the server does not reach it: such a connection carries nothing, or, where bytes are
// held, comes about later. Thread-safe.
class TcpProxy {
 public:
  enum class Flow : uint8_t {
    kPass,
    kHold,     // bytes wait, as those that TCP sends again
    kSwallow,  // bytes are lost: a connection that lost any carries nothing any more that way
  };

  explicit TcpProxy(int port);
  ~TcpProxy();

  std::string address() const;
  // From callers to the server, and back.
  void Set(Flow to_server, Flow to_caller);

 private:
  struct Pipe {
    int fd[2] = {-1, -1};           // the caller's, the server's
    bool lost[2] = {false, false};  // what came from it
  };

  void Run();
  void Accept();
  // False when the connection has ended.
  bool Carry(Pipe& pipe, int from);

  const int port_;
  int listening_ = -1;
  int own_port_ = 0;
  std::atomic<Flow> flow_[2];
  std::atomic<bool> stopping_{false};
  std::vector<Pipe> pipes_;
  std::thread thread_;
};

}  // namespace attic

#endif  // ATTIC_TESTS_UNIT_WIRE_TCP_PROXY_H_
