// attic sessions list|describe|fork|truncate|flush|pin|unpin|renew|close.
#include <iostream>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "client/cli/command.h"
#include "client/cli/json_output.h"
#include "client/cli/table.h"
#include "client/cli/text_format.h"

namespace attic::cli {
namespace {

constexpr absl::Duration kFlushTime = absl::Minutes(10);

struct SessionArguments {
  std::string session_id;
  std::string new_session_id;
  int64_t position = 0;
};

std::string Durable(const SessionDescription& session) {
  return session.durability == Durability::kDurable ? FormatCount(session.durable_watermark) : "no";
}

std::string Lease(const SessionDescription& session) {
  if (session.pinned) return "pinned";
  return session.ttl_seconds == 0 ? "none" : FormatSeconds(session.lease_seconds_left);
}

void PrintSession(const SessionDescription& session) {
  const Fingerprint& f = session.fingerprint;
  std::cout << "session " << session.session_id << ": " << FormatCount(session.watermark)
            << " tokens, " << FormatBytes(session.memory_bytes) << "\nmodel   " << f.model_id
            << (f.revision.empty() ? "" : " revision " + f.revision) << ": " << f.layers
            << " layers, " << f.q_heads << " query heads, " << f.kv_heads << " kv heads, keys of "
            << f.head_dim << ", values of " << f.value_dim << ", "
            << ElementTypeName(f.element_type) << ", position encoding "
            << (f.position_encoding.empty() ? "not given" : f.position_encoding) << "\nkept    "
            << DurabilityName(session.durability) << ", lease " << Lease(session) << ", tenant \""
            << session.tenant << "\", " << FormatCount(session.reused_tokens)
            << " tokens through a prefix, " << FormatBytes(session.evicted_bytes)
            << " on disk only\n\n";
  Table table({{"layer"}, {"tokens"}, {"indexed"}, {"tail"}, {"durable"}});
  for (const LayerDescription& layer : session.layers) {
    table.AddRow({std::to_string(layer.layer), FormatCount(layer.watermark),
                  FormatCount(layer.indexed_tokens), FormatCount(layer.tail_tokens),
                  FormatCount(layer.durable_watermark)});
  }
  table.Print(std::cout);
}

absl::StatusOr<int> PrintResult(const GlobalOptions& global,
                                const absl::StatusOr<SessionDescription>& session) {
  ATTIC_RETURN_IF_ERROR(session.status());
  if (global.json) {
    PrintJson(ToJson(*session));
  } else {
    PrintSession(*session);
  }
  return 0;
}

absl::StatusOr<int> RunList(const GlobalOptions& global) {
  ATTIC_ASSIGN_OR_RETURN(const auto client, Connect(global));
  ATTIC_ASSIGN_OR_RETURN(const std::vector<SessionDescription> sessions, client->ListSessions());
  if (global.json) {
    nlohmann::ordered_json list = nlohmann::ordered_json::array();
    for (const SessionDescription& session : sessions) list.push_back(ToJson(session));
    PrintJson({{"sessions", list}});
    return 0;
  }
  Table table({{"session", Align::kLeft},
               {"model", Align::kLeft},
               {"layers stored"},
               {"tokens"},
               {"indexed"},
               {"memory"},
               {"on disk only"},
               {"durable"},
               {"lease"},
               {"tenant", Align::kLeft}});
  for (const SessionDescription& session : sessions) {
    int64_t indexed = session.layers.empty() ? 0 : session.layers.front().indexed_tokens;
    for (const auto& layer : session.layers) indexed = std::min(indexed, layer.indexed_tokens);
    table.AddRow(
        {session.session_id, session.fingerprint.model_id, std::to_string(session.layers.size()),
         FormatCount(session.watermark), FormatCount(indexed), FormatBytes(session.memory_bytes),
         FormatBytes(session.evicted_bytes), Durable(session), Lease(session), session.tenant});
  }
  table.Print(std::cout);
  return 0;
}

absl::StatusOr<int> RunDescribe(const GlobalOptions& global, const SessionArguments& arguments) {
  ATTIC_ASSIGN_OR_RETURN(const auto client, Connect(global));
  return PrintResult(global, client->DescribeSession(arguments.session_id));
}

absl::StatusOr<int> RunFork(const GlobalOptions& global, SessionArguments arguments) {
  ATTIC_ASSIGN_OR_RETURN(const auto client, Connect(global));
  if (arguments.position < 0) {
    ATTIC_ASSIGN_OR_RETURN(const SessionDescription session,
                           client->DescribeSession(arguments.session_id));
    arguments.position = session.watermark;
  }
  return PrintResult(global, client->ForkSession(arguments.session_id,
                                                 {.position = arguments.position,
                                                  .new_session_id = arguments.new_session_id}));
}

absl::StatusOr<int> RunTruncate(const GlobalOptions& global, const SessionArguments& arguments) {
  ATTIC_ASSIGN_OR_RETURN(const auto client, Connect(global));
  return PrintResult(global, client->TruncateSession(arguments.session_id, arguments.position));
}

absl::StatusOr<int> RunFlush(const GlobalOptions& global, const SessionArguments& arguments) {
  ATTIC_ASSIGN_OR_RETURN(const auto client, Connect(global));
  return PrintResult(global, client->FlushSession(arguments.session_id, absl::Now() + kFlushTime));
}

absl::StatusOr<int> RunPin(const GlobalOptions& global, const SessionArguments& arguments) {
  ATTIC_ASSIGN_OR_RETURN(const auto client, Connect(global));
  return PrintResult(global, client->PinSession(arguments.session_id, true));
}

absl::StatusOr<int> RunUnpin(const GlobalOptions& global, const SessionArguments& arguments) {
  ATTIC_ASSIGN_OR_RETURN(const auto client, Connect(global));
  return PrintResult(global, client->PinSession(arguments.session_id, false));
}

absl::StatusOr<int> RunRenew(const GlobalOptions& global, const SessionArguments& arguments) {
  ATTIC_ASSIGN_OR_RETURN(const auto client, Connect(global));
  return PrintResult(global, client->RenewLease(arguments.session_id));
}

absl::StatusOr<int> RunClose(const GlobalOptions& global, const SessionArguments& arguments) {
  ATTIC_ASSIGN_OR_RETURN(const auto client, Connect(global));
  ATTIC_RETURN_IF_ERROR(client->CloseSession(arguments.session_id));
  if (global.json) {
    PrintJson({{"closed", arguments.session_id}});
  } else {
    std::cout << "closed " << arguments.session_id << '\n';
  }
  return 0;
}

}  // namespace

void AddSessionsCommand(CLI::App& app, SelectedCommand& selected) {
  CLI::App* sessions = app.add_subcommand("sessions", "List, inspect, fork and close sessions");
  sessions->require_subcommand(1);
  auto arguments = std::make_shared<SessionArguments>();
  const auto add = [&](const char* name, const char* help, auto run) {
    CLI::App* command = sessions->add_subcommand(name, help);
    command->callback([&selected, arguments, run] {
      selected.run = [&selected, arguments, run] { return run(selected.global, *arguments); };
    });
    return command;
  };
  const auto add_id = [&](CLI::App* command) {
    command->add_option("session", arguments->session_id, "Session id")->required();
  };
  add("list", "All sessions",
      [](const GlobalOptions& global, const SessionArguments&) { return RunList(global); });
  add_id(add("describe", "One session, layer by layer", RunDescribe));

  CLI::App* fork = add("fork", "A new session that shares another's first tokens", RunFork);
  add_id(fork);
  fork->add_option("new-session", arguments->new_session_id, "Id of the new session")->required();
  fork->add_option("--position", arguments->position, "Tokens to share (default: all)")
      ->default_val(-1);

  CLI::App* truncate = add("truncate", "Forget the tokens from a position on", RunTruncate);
  add_id(truncate);
  truncate->add_option("position", arguments->position, "First position to forget")->required();

  add_id(add("flush", "Wait until everything appended is durable", RunFlush));
  add_id(add("pin", "Keep the store from closing a session by itself", RunPin));
  add_id(add("unpin", "Undo pin", RunUnpin));
  add_id(add("renew", "Let the lease of a session run anew", RunRenew));
  add_id(add("close", "Forget a session", RunClose));
}

}  // namespace attic::cli
