// How processes of Attic reach each other over gRPC: one way to make a channel, to serve it, and to
// read what comes back.
#ifndef ATTIC_WIRE_CHANNEL_H_
#define ATTIC_WIRE_CHANNEL_H_

#include <grpcpp/channel.h>
#include <grpcpp/server_builder.h>
#include <grpcpp/support/status.h>

#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/status.h"

namespace attic::wire {

// A channel of its own connection to `address`, for messages of up to message_bytes_max. Does not
// wait for the connection.
//
// While calls are in progress a peer that says nothing is asked whether it is there, after
// kChannelPingMs of silence; without an answer for kChannelPingTimeoutMs, or an acknowledgement of
// bytes sent, the connection has failed, and the calls with it (UNAVAILABLE). An attempt to connect
// is given up after kChannelConnectMs, and the next one begins at most kChannelBackoffMaxMs later:
// so soon does a connection come about once the peer, or the network, is back.
std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address, size_t message_bytes_max);

inline constexpr int kChannelPingMs = 1'000;  // gRPC pings no more often
inline constexpr int kChannelPingTimeoutMs = 1'500;
inline constexpr int kChannelConnectMs = 750;
inline constexpr int kChannelBackoffMinMs = 100;
inline constexpr int kChannelBackoffMaxMs = 500;

// Lets callers ping as often as such channels do, or up to twice as often: a server that expects
// less ends connections that are idle but for pings (GOAWAY, too_many_pings).
void ServeChannels(grpc::ServerBuilder& builder);

// The same code (Abseil's and gRPC's numbers are equal) and message, except that CANCELLED becomes
// UNAVAILABLE: no call that somebody waits for is cancelled on this side, so the peer did, going
// away.
absl::Status FromGrpc(const grpc::Status& status);

}  // namespace attic::wire

#endif  // ATTIC_WIRE_CHANNEL_H_
