// attic export and attic import: sessions as files.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iostream>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "api/cluster_map.h"
#include "base/status_macros.h"
#include "client/cli/command.h"
#include "client/cli/json_output.h"
#include "client/cli/progress.h"
#include "client/cli/text_format.h"

namespace attic::cli {
namespace {

constexpr absl::Duration kTimeMax = absl::Hours(12);
constexpr size_t kReadBytes = 1u << 20;

struct SnapshotArguments {
  std::string session_id;
  std::string file;
  bool durable = false;
  uint32_t replicas = 0;
};

absl::Status FileError(const std::string& file, int error) {
  const std::string message = absl::StrCat(file, ": ", std::strerror(error));
  switch (error) {
    case ENOENT:
      return absl::NotFoundError(message);
    case EEXIST:
      return absl::AlreadyExistsError(message);
    case ENOSPC:
      return absl::ResourceExhaustedError(message);
    default:
      return absl::UnavailableError(message);
  }
}

// A file that has its name once it is whole and on disk, and is gone otherwise.
class NewFile {
 public:
  static absl::StatusOr<std::unique_ptr<NewFile>> Create(const std::string& path) {
    if (access(path.c_str(), F_OK) == 0) return FileError(path, EEXIST);
    const std::string unfinished = path + ".tmp";
    const int file = open(unfinished.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (file < 0) return FileError(unfinished, errno);
    return std::unique_ptr<NewFile>(new NewFile(path, unfinished, file));
  }
  ~NewFile() {
    if (file_ >= 0) close(file_);
    if (!done_) unlink(unfinished_.c_str());
  }
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;

  absl::Status Write(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t written = write(file_, bytes.data(), bytes.size());
      if (written < 0 && errno != EINTR) return FileError(unfinished_, errno);
      if (written > 0) bytes.remove_prefix(static_cast<size_t>(written));
    }
    return absl::OkStatus();
  }

  absl::Status Finish() {
    if (fsync(file_) != 0) return FileError(unfinished_, errno);
    const int closed = close(file_);
    file_ = -1;
    if (closed != 0) return FileError(unfinished_, errno);
    // Not over a file that somebody made meanwhile.
    if (link(unfinished_.c_str(), path_.c_str()) != 0) return FileError(path_, errno);
    unlink(unfinished_.c_str());
    done_ = true;
    return absl::OkStatus();
  }

 private:
  NewFile(std::string path, std::string unfinished, int file)
      : path_(std::move(path)), unfinished_(std::move(unfinished)), file_(file) {}

  const std::string path_;
  const std::string unfinished_;
  int file_;
  bool done_ = false;
};

absl::StatusOr<int> RunExport(const GlobalOptions& global, const SnapshotArguments& arguments) {
  ATTIC_ASSIGN_OR_RETURN(const auto client, Connect(global));
  ATTIC_ASSIGN_OR_RETURN(const auto file, NewFile::Create(arguments.file));
  std::unique_ptr<ProgressBar> bar;
  int64_t done = 0;
  ATTIC_RETURN_IF_ERROR(client->ExportSession(arguments.session_id, absl::Now() + kTimeMax,
                                              [&](std::string_view bytes, uint64_t total_bytes) {
                                                if (bar == nullptr) {
                                                  bar = std::make_unique<ProgressBar>(
                                                      "exporting",
                                                      static_cast<int64_t>(total_bytes), "bytes");
                                                }
                                                done += static_cast<int64_t>(bytes.size());
                                                bar->Update(done);
                                                return file->Write(bytes);
                                              }));
  bar.reset();
  ATTIC_RETURN_IF_ERROR(file->Finish());
  if (global.json) {
    PrintJson({{"exported", arguments.session_id}, {"file", arguments.file}, {"bytes", done}});
  } else {
    std::cout << "exported " << arguments.session_id << " to " << arguments.file << ": "
              << FormatBytes(static_cast<double>(done)) << '\n';
  }
  return 0;
}

// While one lives, Ctrl-C does not end the process but is noted: what a half import opened in a
// cluster is closed by whoever opened it.
class InterruptNote {
 public:
  InterruptNote() {
    noted_ = 0;
    struct sigaction note = {};
    note.sa_handler = [](int) { noted_ = 1; };
    sigaction(SIGINT, &note, &interrupt_);
    sigaction(SIGTERM, &note, &terminate_);
  }
  ~InterruptNote() {
    sigaction(SIGINT, &interrupt_, nullptr);
    sigaction(SIGTERM, &terminate_, nullptr);
  }
  InterruptNote(const InterruptNote&) = delete;
  InterruptNote& operator=(const InterruptNote&) = delete;
  static bool noted() { return noted_ != 0; }

 private:
  static inline volatile sig_atomic_t noted_ = 0;
  struct sigaction interrupt_ = {}, terminate_ = {};
};

absl::StatusOr<int> RunImport(const GlobalOptions& global, const SnapshotArguments& arguments) {
  std::ifstream file(arguments.file, std::ios::binary | std::ios::ate);
  if (!file) return FileError(arguments.file, errno);
  const auto total = static_cast<int64_t>(file.tellg());
  file.seekg(0);
  ATTIC_ASSIGN_OR_RETURN(const auto client, Connect(global));
  ProgressBar bar("importing", total, "bytes");
  int64_t done = 0;
  const InterruptNote interrupts;
  const auto read = [&]() -> absl::StatusOr<std::string> {
    if (InterruptNote::noted()) return absl::CancelledError("interrupted");
    std::string bytes(kReadBytes, '\0');
    file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    if (file.bad()) return FileError(arguments.file, errno);
    bytes.resize(static_cast<size_t>(file.gcount()));
    done += static_cast<int64_t>(bytes.size());
    bar.Update(done);
    return bytes;
  };
  ATTIC_ASSIGN_OR_RETURN(
      const SessionDescription session,
      client->ImportSession(
          {.session_id = arguments.session_id,
           .durability = arguments.durable ? Durability::kDurable : Durability::kMemory,
           .replicas = arguments.replicas},
          absl::Now() + kTimeMax, read));
  if (global.json) {
    PrintJson(ToJson(session));
  } else {
    std::cout << "imported " << session.session_id << ": " << FormatCount(session.watermark)
              << " tokens, " << DurabilityName(session.durability) << '\n';
  }
  return 0;
}

}  // namespace

void AddExportCommand(CLI::App& app, SelectedCommand& selected) {
  CLI::App* command =
      app.add_subcommand("export",
                         "Write a session of a store or a cluster, with its index, to a file "
                         "that does not exist");
  auto arguments = std::make_shared<SnapshotArguments>();
  command->add_option("session", arguments->session_id, "Session id")->required();
  command->add_option("file", arguments->file, "File to write")->required();
  command->callback([&selected, arguments] {
    selected.run = [&selected, arguments] { return RunExport(selected.global, *arguments); };
  });
}

void AddImportCommand(CLI::App& app, SelectedCommand& selected) {
  CLI::App* command =
      app.add_subcommand("import",
                         "Make a session of a file that export wrote, of a store in a store, of a "
                         "cluster in a cluster");
  auto arguments = std::make_shared<SnapshotArguments>();
  command->add_option("file", arguments->file, "File to read")->required();
  command->add_option("--session-id", arguments->session_id,
                      "Id of the new session (default: that of the exported one)");
  command->add_flag("--durable", arguments->durable,
                    "Keep the session in the store's data directory");
  command
      ->add_option("--replicas", arguments->replicas,
                   "Of a session of a cluster: copies (default: as many as the exported one had)")
      ->check(CLI::Range(1u, kReplicasMax));
  command->callback([&selected, arguments] {
    selected.run = [&selected, arguments] { return RunImport(selected.global, *arguments); };
  });
}

}  // namespace attic::cli
