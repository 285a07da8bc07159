// Channels over a network that loses what it carries, and then no longer does.
#include "wire/channel.h"

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "attic/v1/admin.grpc.pb.h"
#include "base/mutex.h"
#include "tests/unit/wire/tcp_proxy.h"

namespace attic {
namespace {

using Flow = TcpProxy::Flow;

constexpr absl::Duration kFoundWithin = absl::Seconds(4);  // some 2.5, on a machine with time
constexpr absl::Duration kBackWithin = absl::Seconds(2);
constexpr size_t kBytesMax = 1 << 20;

// Calls with metadata "wait" last until their caller goes.
class WaitingServer final : public v1::AdminService::CallbackService {
 public:
  explicit WaitingServer(bool serve_channels) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(this);
    if (serve_channels) wire::ServeChannels(builder);
    server_ = builder.BuildAndStart();
  }
  ~WaitingServer() override { server_->Shutdown(std::chrono::system_clock::now()); }
  int port() const { return port_; }
  std::string address() const { return absl::StrCat("127.0.0.1:", port_); }

  grpc::ServerUnaryReactor* GetStatus(grpc::CallbackServerContext* context,
                                      const v1::GetStatusRequest*, v1::StoreStatus*) override {
    class Waiting final : public grpc::ServerUnaryReactor {
      void OnCancel() override { Finish(grpc::Status::CANCELLED); }
      void OnDone() override { delete this; }
    };
    if (context->client_metadata().contains("wait")) return new Waiting;
    grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

 private:
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

class Caller {
 public:
  explicit Caller(const std::string& address)
      : stub_(v1::AdminService::NewStub(wire::MakeChannel(address, kBytesMax))) {}

  absl::Status Call(absl::Duration timeout, bool wait = false) const {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
    if (wait) context.AddMetadata("wait", "1");
    v1::StoreStatus response;
    return wire::FromGrpc(stub_->GetStatus(&context, {}, &response));
  }

  // Again and again until one succeeds; how long that took.
  absl::Duration CallUntilAnswered() const {
    const absl::Time begin = absl::Now();
    Mutex mutex;
    CondVar never;
    // Between calls, as callers do: gRPC does not close a connection while it is given new calls.
    while (!Call(absl::Milliseconds(100)).ok() && absl::Now() < begin + absl::Seconds(20)) {
      MutexLock lock(mutex);
      never.WaitFor(mutex, std::chrono::milliseconds(5));
    }
    return absl::Now() - begin;
  }

 private:
  const std::unique_ptr<v1::AdminService::Stub> stub_;
};

struct Cut {
  const char* name;
  Flow to_server, to_caller;
};

class ChannelTest : public testing::TestWithParam<Cut> {
 protected:
  WaitingServer server_{true};
  TcpProxy proxy_{server_.port()};
  Caller caller_{proxy_.address()};
};

TEST_P(ChannelTest, ADeadConnectionIsFoundAndReplacedWhenTheNetworkHeals) {
  ASSERT_TRUE(caller_.Call(absl::Seconds(20)).ok());
  for (int round = 0; round < 2; ++round) {
    // One call in progress when the network fails, the others while it is gone.
    absl::Duration took;
    absl::Status status;
    std::thread waiting([&] {
      const absl::Time begin = absl::Now();
      status = caller_.Call(absl::Seconds(20), /*wait=*/true);
      took = absl::Now() - begin;
    });
    proxy_.Set(GetParam().to_server, GetParam().to_caller);
    waiting.join();
    const absl::Status cut = caller_.Call(absl::Milliseconds(100 + round * 600));
    proxy_.Set(Flow::kPass, Flow::kPass);
    const absl::Duration healed = caller_.CallUntilAnswered();
    SCOPED_TRACE(absl::StrCat("round ", round, ": ", status.ToString(), " after ",
                              absl::FormatDuration(took), "; ", cut.ToString(), "; answered after ",
                              absl::FormatDuration(healed)));
    EXPECT_TRUE(absl::IsUnavailable(status));
    EXPECT_LT(took, kFoundWithin);
    EXPECT_FALSE(cut.ok());
    EXPECT_LT(healed, kBackWithin);
  }
}

INSTANTIATE_TEST_SUITE_P(Cuts, ChannelTest,
                         testing::Values(Cut{"Both", Flow::kSwallow, Flow::kSwallow},
                                         Cut{"ToServer", Flow::kSwallow, Flow::kPass},
                                         Cut{"ToCaller", Flow::kPass, Flow::kSwallow},
                                         Cut{"Held", Flow::kHold, Flow::kHold},
                                         Cut{"HeldToServer", Flow::kHold, Flow::kPass},
                                         Cut{"HeldToCaller", Flow::kPass, Flow::kHold}),
                         [](const auto& info) { return std::string(info.param.name); });

// What the ends of a call see when nothing is said on it for long.
absl::Status IdleCall(bool serve_channels) {
  WaitingServer server(serve_channels);
  return Caller(server.address()).Call(absl::Seconds(6), /*wait=*/true);
}

TEST(ChannelPingTest, ACallMayBeIdle) {
  const absl::Status status = IdleCall(/*serve_channels=*/true);
  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
}

TEST(ChannelPingTest, AServerThatExpectsNoPingsEndsIt) {
  const absl::Status status = IdleCall(/*serve_channels=*/false);
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
}

TEST(ChannelReconnectTest, AServerThatStartsLaterIsFound) {
  int port = 0;
  {
    const WaitingServer gone(true);
    port = gone.port();
  }
  const Caller caller(absl::StrCat("127.0.0.1:", port));
  for (int i = 0; i < 20; ++i) EXPECT_FALSE(caller.Call(absl::Milliseconds(100)).ok());
  grpc::ServerBuilder builder;
  builder.AddListeningPort(absl::StrCat("127.0.0.1:", port), grpc::InsecureServerCredentials());
  v1::AdminService::Service service;  // answers UNIMPLEMENTED
  builder.RegisterService(&service);
  const auto server = builder.BuildAndStart();
  if (server == nullptr) GTEST_SKIP() << "somebody else took the port";
  const absl::Time begin = absl::Now();
  while (!absl::IsUnimplemented(caller.Call(absl::Milliseconds(100))) &&
         absl::Now() < begin + absl::Seconds(20)) {
  }
  EXPECT_LT(absl::Now() - begin, absl::Seconds(1));
}

}  // namespace
}  // namespace attic
