// The probe on real sockets of the loopback interface.
#include "server/cluster/liveness/liveness_probe.h"

#include <dirent.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/mutex.h"
#include "tests/unit/cluster/liveness/listener.h"

namespace attic {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(30);
constexpr absl::Duration kConfirm = absl::Milliseconds(20);
constexpr absl::Duration kPeriod = absl::Milliseconds(5);

// What the probe does and says. Outlives it.
class Log {
 public:
  // Each connection, before it is made; its result is that of `then`, of the number from 0.
  ConnectFunction Connect(std::function<int(int, const sockaddr*, socklen_t, size_t)> then) {
    return [this, then](int socket, const sockaddr* address, socklen_t size) {
      size_t number = 0;
      {
        MutexLock lock(mutex_);
        number = connects_.size();
        connects_.push_back({PortOf(address), absl::Now()});
        changed_.NotifyAll();
      }
      return then(socket, address, size, number);
    };
  }
  ConnectFunction Connect() {
    return Connect([](int socket, const sockaddr* address, socklen_t size, size_t) {
      return connect(socket, address, size);
    });
  }
  LivenessProbe::OnGone OnGone() {
    return [this](const ProbeTarget& target) {
      MutexLock lock(mutex_);
      gone_.push_back(target);
      connects_at_gone_ = connects_.size();
      changed_.NotifyAll();
    };
  }

  static uint16_t PortOf(const sockaddr* address) {
    return ntohs(reinterpret_cast<const sockaddr_in*>(address)->sin_port);  // also of IPv6
  }
  size_t Connects(std::optional<uint16_t> port = std::nullopt) {
    MutexLock lock(mutex_);
    return Count(port);
  }
  // Waits for `count` more, to `port` if that is given.
  void WaitForMore(size_t count, std::optional<uint16_t> port = std::nullopt) {
    MutexLock lock(mutex_);
    const size_t wanted = Count(port) + count;
    Wait([&] { return Count(port) >= wanted; });
    EXPECT_GE(Count(port), wanted);
  }
  std::vector<ProbeTarget> WaitForGone(size_t count = 1) {
    MutexLock lock(mutex_);
    Wait([&] { return gone_.size() >= count; });
    EXPECT_GE(gone_.size(), count);
    return gone_;
  }
  std::vector<ProbeTarget> gone() {
    MutexLock lock(mutex_);
    return gone_;
  }
  // Between the last two connections before the last target was gone.
  absl::Duration Confirmed() {
    MutexLock lock(mutex_);
    return connects_[connects_at_gone_ - 1].when - connects_[connects_at_gone_ - 2].when;
  }

 private:
  struct Connection {
    uint16_t port;
    absl::Time when;
  };

  size_t Count(std::optional<uint16_t> port) ATTIC_REQUIRES(mutex_) {
    return static_cast<size_t>(
        std::count_if(connects_.begin(), connects_.end(), [&](const Connection& connection) {
          return !port.has_value() || connection.port == *port;
        }));
  }
  void Wait(const std::function<bool()>& done) ATTIC_REQUIRES(mutex_) {
    const absl::Time deadline = absl::Now() + kPatience;
    while (!done() && absl::Now() < deadline) {
      changed_.WaitFor(mutex_, absl::ToChronoNanoseconds(deadline - absl::Now()));
    }
  }

  Mutex mutex_;
  CondVar changed_;
  std::vector<Connection> connects_ ATTIC_GUARDED_BY(mutex_);
  std::vector<ProbeTarget> gone_ ATTIC_GUARDED_BY(mutex_);
  size_t connects_at_gone_ ATTIC_GUARDED_BY(mutex_) = 0;
};

LivenessProbeOptions Quick(ConnectFunction connect) {
  LivenessProbeOptions options;
  options.confirm_after = kConfirm;
  options.connect_timeout = absl::Milliseconds(20);
  options.unanswered_min = absl::Milliseconds(2);
  options.unanswered_max = absl::Milliseconds(10);
  options.connect = std::move(connect);
  return options;
}

ProbeTarget Target(const std::string& address, const std::string& node_id = "a") {
  return {
      .node_id = node_id, .address = address, .boot_id = "1", .registration = 7, .period = kPeriod};
}

// Fills a listener's backlog; the connections that do it.
std::vector<OwnedDescriptor> Fill(const Listener& listener) {
  std::vector<OwnedDescriptor> held;
  while (held.size() < 64) {
    OwnedDescriptor socket(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    connect(socket.number(), listener.socket_address(), sizeof(sockaddr_in));
    pollfd waiting{.fd = socket.number(), .events = POLLOUT, .revents = 0};
    const bool connected = poll(&waiting, 1, 100) == 1;
    held.push_back(std::move(socket));
    if (!connected) return held;
  }
  ADD_FAILURE() << "the backlog has no end";
  return held;
}

TEST(LivenessProbeTest, APortThatWasClosedIsGone) {
  Log log;
  Listener listener;
  LivenessProbe probe(Quick(log.Connect()), log.OnGone());
  const ProbeTarget target = Target(listener.address());
  probe.SetTargets({target});
  log.WaitForMore(10);
  EXPECT_TRUE(log.gone().empty());
  listener.Close();
  EXPECT_EQ(log.WaitForGone().front(), target);
  EXPECT_GE(log.Confirmed(), kConfirm);
  // It is said as long as it is so.
  EXPECT_GE(log.WaitForGone(3).size(), 3u);
  listener.Listen();
  log.WaitForMore(3);
  const size_t said = log.gone().size();
  log.WaitForMore(20);
  EXPECT_EQ(log.gone().size(), said);
}

TEST(LivenessProbeTest, WhatNeverAcceptedIsNotGone) {
  Log log;
  Listener listener;
  listener.Close();
  LivenessProbe probe(Quick(log.Connect()), log.OnGone());
  probe.SetTargets({Target(listener.address())});
  log.WaitForMore(20);
  EXPECT_TRUE(log.gone().empty());
  // Until it accepts.
  listener.Listen();
  log.WaitForMore(10);
  listener.Close();
  log.WaitForGone();
}

// One refusal between other errors, again and again.
TEST(LivenessProbeTest, OtherErrorsSayNothing) {
  Log log;
  Listener listener;
  const std::vector<int> errors = {EHOSTUNREACH, ENETUNREACH, ETIMEDOUT,    ECONNRESET,
                                   EACCES,       EPERM,       EADDRNOTAVAIL};
  LivenessProbe probe(
      Quick(log.Connect([&](int socket, const sockaddr* address, socklen_t size, size_t number) {
        if (number < 3) return connect(socket, address, size);
        errno = number % 2 == 0 ? ECONNREFUSED : errors[number / 2 % errors.size()];
        return -1;
      })),
      log.OnGone());
  probe.SetTargets({Target(listener.address())});
  log.WaitForMore(3 + 4 * errors.size());
  EXPECT_TRUE(log.gone().empty());
}

TEST(LivenessProbeTest, AnAcceptedConnectionClearsOfARefusal) {
  Log log;
  Listener listener;
  LivenessProbe probe(
      Quick(log.Connect([&](int socket, const sockaddr* address, socklen_t size, size_t number) {
        if (number % 2 == 0) return connect(socket, address, size);
        errno = ECONNREFUSED;
        return -1;
      })),
      log.OnGone());
  probe.SetTargets({Target(listener.address())});
  log.WaitForMore(20);
  EXPECT_TRUE(log.gone().empty());
}

// As of a process that hangs: the system takes connections until its queue is full.
TEST(LivenessProbeTest, AFullBacklogSaysNothing) {
  Log log;
  Listener listener;
  LivenessProbe probe(Quick(log.Connect()), log.OnGone());
  probe.SetTargets({Target(listener.address())});
  log.WaitForMore(2);
  listener.Close();
  listener.Listen(0);
  const auto held = Fill(listener);
  const size_t said = log.gone().size();  // the port was closed for a moment
  log.WaitForMore(5);
  EXPECT_EQ(log.gone().size(), said);
  listener.Close();
  log.WaitForGone(said + 1);
}

TEST(LivenessProbeTest, RefusalsOfAnotherRegistrationDoNotCount) {
  Log log;
  Listener listener;
  std::atomic<bool> registers = true;
  std::atomic<int64_t> registration = 1;
  LivenessProbe* registered = nullptr;
  const auto target = [&] {
    ProbeTarget target = Target(listener.address());
    target.registration = registration;
    return target;
  };
  LivenessProbe probe(
      Quick(log.Connect([&](int socket, const sockaddr* address, socklen_t size, size_t number) {
        if (number < 3) return connect(socket, address, size);
        if (registers) {
          ++registration;
          registered->SetTargets({target()});
        }
        errno = ECONNREFUSED;
        return -1;
      })),
      log.OnGone());
  registered = &probe;
  probe.SetTargets({target()});
  log.WaitForMore(13);
  EXPECT_TRUE(log.gone().empty());
  registers = false;
  EXPECT_EQ(log.WaitForGone().front(), target());
}

TEST(LivenessProbeTest, OfAnotherProcessNothingIsKnown) {
  Log log;
  Listener listener;
  LivenessProbe* registered = nullptr;
  ProbeTarget other = Target(listener.address());
  other.boot_id = "2";
  LivenessProbe probe(
      Quick(log.Connect([&](int socket, const sockaddr* address, socklen_t size, size_t number) {
        if (number < 3) return connect(socket, address, size);
        if (number == 3) registered->SetTargets({other});
        errno = ECONNREFUSED;
        return -1;
      })),
      log.OnGone());
  registered = &probe;
  probe.SetTargets({Target(listener.address())});
  log.WaitForMore(20);
  EXPECT_TRUE(log.gone().empty());
}

TEST(LivenessProbeTest, OneConnectionIsEnoughToKnowAProcess) {
  Log log;
  Listener rested, watched;
  LivenessProbe probe(Quick(log.Connect()), log.OnGone());
  ProbeTarget once = Target(rested.address(), "rested");
  once.until_accepted = true;
  const ProbeTarget often = Target(watched.address(), "watched");
  probe.SetTargets({once, often});
  ASSERT_TRUE(rested.Await(kPatience));
  rested.Close();
  log.WaitForMore(20, watched.port());
  EXPECT_EQ(log.Connects(rested.port()), 1u);
  EXPECT_TRUE(log.gone().empty());
  once.until_accepted = false;
  probe.SetTargets({once, often});
  EXPECT_EQ(log.WaitForGone().front(), once);
}

TEST(LivenessProbeTest, NamesAreResolvedAndNobodyWaitsForThem) {
  Log log;
  Listener listener, slow_one;
  // What a resolver that does not answer waits for, and whoever it keeps.
  struct Shared {
    Mutex mutex;
    CondVar changed;
    bool answers ATTIC_GUARDED_BY(mutex) = false;
  };
  const auto shared = std::make_shared<Shared>();
  LivenessProbeOptions options = Quick(log.Connect());
  options.resolve = [shared](const std::string& address) {
    if (!address.starts_with("slow")) return ResolveAddress(address);
    MutexLock lock(shared->mutex);
    while (!shared->answers) shared->changed.Wait(shared->mutex);
    return std::vector<SocketAddress>();
  };
  auto probe = std::make_unique<LivenessProbe>(options, log.OnGone());
  const ProbeTarget named = Target(absl::StrCat("localhost:", listener.port()), "named");
  probe->SetTargets({named});
  log.WaitForMore(10, listener.port());
  listener.Close();
  EXPECT_EQ(log.WaitForGone().front(), named);
  // Others are probed while a name server keeps silent, and nothing waits for it in the end.
  probe->SetTargets({Target("slow.example:1", "slow"), Target(slow_one.address(), "number")});
  log.WaitForMore(10, slow_one.port());
  const absl::Time begin = absl::Now();
  probe.reset();
  EXPECT_LT(absl::Now() - begin, absl::Seconds(5));
  MutexLock lock(shared->mutex);
  shared->answers = true;
  shared->changed.NotifyAll();
}

size_t OpenDescriptors() {
  size_t count = 0;
  DIR* const folder = opendir("/proc/self/fd");
  while (readdir(folder) != nullptr) ++count;
  closedir(folder);
  return count;
}

// Hosts that swallow connections take a bounded number of sockets, and no time from the others.
TEST(LivenessProbeTest, HostsThatDoNotAnswerKeepNobodyFromBeingProbed) {
  constexpr size_t kSilent = 200, kInFlight = 8;
  Log log;
  Listener full(0), live;
  const auto held = Fill(full);
  const size_t before = OpenDescriptors();
  std::atomic<size_t> most = 0;
  LivenessProbeOptions options =
      Quick(log.Connect([&](int socket, const sockaddr* address, socklen_t size, size_t) {
        most = std::max<size_t>(most, OpenDescriptors());
        return connect(socket, address, size);
      }));
  options.in_flight_max = kInFlight;
  auto probe = std::make_unique<LivenessProbe>(options, log.OnGone());
  std::vector<ProbeTarget> targets = {Target(live.address(), "live")};
  for (size_t i = 0; i < kSilent; ++i) {
    targets.push_back(Target(full.address(), absl::StrCat("silent", i)));
  }
  probe->SetTargets(targets);
  log.WaitForMore(5, live.port());
  log.WaitForMore(50, full.port());
  live.Close();
  EXPECT_EQ(log.WaitForGone().front(), targets.front());
  // The wake-up event, and the socket that is about to be connected.
  EXPECT_LE(most, before + kInFlight + 2);
  EXPECT_GE(most, before + kInFlight);
}

TEST(LivenessProbeTest, TheEndDoesNotWaitForConnections) {
  Log log;
  Listener full(0);
  const auto held = Fill(full);
  LivenessProbeOptions options = Quick(log.Connect());
  options.connect_timeout = absl::Hours(1);
  auto probe = std::make_unique<LivenessProbe>(options, log.OnGone());
  probe->SetTargets({Target(full.address())});
  log.WaitForMore(1);
  const absl::Time begin = absl::Now();
  probe.reset();
  EXPECT_LT(absl::Now() - begin, absl::Seconds(5));
}

TEST(SocketAddressTest, NumbersAreAddressesAtOnce) {
  const auto family = [](const std::string& address) {
    const auto found = ResolveNumericAddress(address);
    return found.size() == 1 ? static_cast<int>(found[0].storage.ss_family) : -1;
  };
  EXPECT_EQ(family("10.1.2.3:7400"), AF_INET);
  EXPECT_EQ(family("[::1]:7400"), AF_INET6);
  for (const char* none : {"", ":", "1.2.3.4", "1.2.3.4:", ":7400", "localhost:7400", "[]:1",
                           "1.2.3.4:http", "dns:///1.2.3.4", "unix:/a"}) {
    EXPECT_EQ(family(none), -1) << none;
  }
}

}  // namespace
}  // namespace attic
