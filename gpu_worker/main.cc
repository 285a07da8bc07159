// attic-worker: flags to wiring to serve.
#include <pthread.h>

#include <csignal>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "client/cpp/client.h"
#include "gpu_worker/backend/make_backend.h"
#include "gpu_worker/model/decoder.h"
#include "gpu_worker/service/worker_service.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/grpcpp.h"
#include "wire/channel.h"

namespace attic::worker {
namespace {

struct Flags {
  std::string model;
  std::string store = "127.0.0.1:7400";
  std::string listen = "127.0.0.1:7500";
  std::string backend = "cpu";
  std::string prefill_mode = "indexed";
  size_t threads = 0;
  double drain_seconds = 5;
  bool allow_insecure_remote = false;
  bool durable = false;
  bool read_everything = false;
  DecoderOptions decoder;
  WorkerLimits limits;
};

void AddFlags(CLI::App& app, Flags& flags) {
  app.add_option("--model", flags.model, "Folder with config.json and model.safetensors")
      ->required();
  app.add_option("--store", flags.store,
                 "Address of the store, or of some of a cluster's, with commas between")
      ->capture_default_str();
  app.add_option("--listen", flags.listen, "Address to serve on; port 0 chooses a free one")
      ->capture_default_str();
  app.add_option("--backend", flags.backend, "cpu or cuda")->capture_default_str();
  app.add_option("--sink", flags.decoder.forward.sink_tokens, "First tokens kept on the worker")
      ->capture_default_str();
  app.add_option("--window", flags.decoder.forward.window_tokens,
                 "Latest tokens kept on the worker")
      ->capture_default_str();
  app.add_option("--threads", flags.threads, "Computing threads; 0: one per hardware thread")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  app.add_option("--chunk", flags.decoder.chunk_tokens, "Tokens of one pass of prefill")
      ->capture_default_str();
  app.add_option("--prefill-mode", flags.prefill_mode,
                 "How the store answers full layers before the last during prefill")
      ->check(CLI::IsMember({"indexed", "exact"}))
      ->capture_default_str();
  app.add_option("--sequences", flags.limits.sequences_max, "Sequences open at a time")
      ->capture_default_str();
  app.add_flag("--durable", flags.durable, "Sequences outlive the store's process");
  app.add_option("--tenant", flags.decoder.tenant, "Whose sessions the sequences are in the store")
      ->capture_default_str();
  app.add_option("--session-ttl", flags.decoder.ttl_seconds,
                 "Seconds after which the store may close an unused sequence; 0: never")
      ->capture_default_str();
  app.add_flag("--read-everything", flags.read_everything,
               "Also read tokens that a session of the store holds already");
  app.add_option("--drain-seconds", flags.drain_seconds,
                 "How long calls may run on after SIGTERM or SIGINT")
      ->check(CLI::Range(0.0, 3600.0))
      ->capture_default_str();
  app.add_flag("--allow-insecure-remote", flags.allow_insecure_remote,
               "Serve plain text without authentication beyond this machine");
}

// Connections are neither encrypted nor authenticated, so they stay on this machine by default.
bool IsLoopback(const std::string& address) {
  const std::string host = address.substr(0, address.rfind(':'));
  return host == "localhost" || host == "[::1]" || host.starts_with("127.") ||
         address.starts_with("unix:");
}

sigset_t StopSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  return signals;
}

absl::StatusOr<std::unique_ptr<grpc::Server>> StartServer(const Flags& flags,
                                                          grpc::Service& service, int& port) {
  if (!flags.allow_insecure_remote && !IsLoopback(flags.listen)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--listen: ", flags.listen, " is not a loopback address; see --allow-insecure-remote"));
  }
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  builder.SetMaxReceiveMessageSize(kWorkerMessageBytesMax);
  wire::ServeChannels(builder);
  // A second worker must fail to start, not share the port.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddListeningPort(flags.listen, grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&service);
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr || (port == 0 && !flags.listen.starts_with("unix:"))) {
    return absl::UnavailableError(absl::StrCat("--listen: cannot serve on ", flags.listen));
  }
  return server;
}

std::string ServedAddress(const std::string& listen, int port) {
  if (listen.starts_with("unix:")) return listen;
  return absl::StrCat(listen.substr(0, listen.rfind(':')), ":", port);
}

absl::Status Serve(Flags& flags) {
  size_t threads = flags.threads;
  if (threads == 0) threads = std::max(1u, std::thread::hardware_concurrency());
  // The calling thread computes too; one more is needed for attention beside the store's.
  ThreadPool pool(std::max<size_t>(1, threads - 1));
  ATTIC_ASSIGN_OR_RETURN(const std::unique_ptr<Backend> backend, MakeBackend(flags.backend, pool));
  ATTIC_ASSIGN_OR_RETURN(const std::unique_ptr<Model> model, LoadModel(flags.model, *backend));
  ATTIC_ASSIGN_OR_RETURN(const std::unique_ptr<Client> client,
                         ConnectClient({.address = flags.store}));
  flags.decoder.prefill_mode =
      flags.prefill_mode == "exact" ? AttendMode::kExact : AttendMode::kIndexed;
  if (flags.durable) flags.decoder.durability = Durability::kDurable;
  flags.decoder.reuse_prefixes = !flags.read_everything;
  ATTIC_ASSIGN_OR_RETURN(const std::unique_ptr<Decoder> decoder,
                         Decoder::Create(*model, *backend, pool, *client, flags.decoder));
  const std::unique_ptr<grpc::Service> service = MakeWorkerService(*decoder, flags.limits);
  int port = 0;
  ATTIC_ASSIGN_OR_RETURN(const std::unique_ptr<grpc::Server> server,
                         StartServer(flags, *service, port));
  std::printf("attic-worker ready on %s backend=%s model=%s\n",
              ServedAddress(flags.listen, port).c_str(), backend->name().c_str(),
              model->config.model_id.c_str());
  std::fflush(stdout);

  const sigset_t signals = StopSignals();
  int signal = 0;
  sigwait(&signals, &signal);
  // Calls in progress may finish; new ones are refused.
  server->GetHealthCheckService()->SetServingStatus(false);
  server->Shutdown(absl::ToChronoTime(absl::Now() + absl::Seconds(flags.drain_seconds)));
  server->Wait();
  return absl::OkStatus();
}

}  // namespace
}  // namespace attic::worker

int main(int argc, char** argv) {
  CLI::App app("Runs a decoder whose long context lives in an Attic store.");
  attic::worker::Flags flags;
  attic::worker::AddFlags(app, flags);
  CLI11_PARSE(app, argc, argv);
  // Blocked before any thread starts, so that only the wait in Serve receives them.
  const sigset_t signals = attic::worker::StopSignals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  const absl::Status status = attic::worker::Serve(flags);
  if (status.ok()) return 0;
  std::fprintf(stderr, "attic-worker: %s\n", status.ToString().c_str());
  return 1;
}
