// Shell scripts stand for the servers.
#include "client/cli/demo/processes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <cerrno>

#include "absl/time/clock.h"

namespace attic::cli {
namespace {

using ::testing::HasSubstr;

absl::StatusOr<std::unique_ptr<ServerProcess>> StartScript(
    const std::string& script, absl::Duration timeout = absl::Seconds(20)) {
  return ServerProcess::Start("/bin/sh", {"-c", script}, "server ready on", timeout);
}

bool Exists(pid_t pid) { return kill(pid, 0) == 0 || errno != ESRCH; }

TEST(ServerProcessTest, TheReadyLineGivesTheAddress) {
  auto process = StartScript(
      "echo starting; echo 'server ready on 127.0.0.1:81 pid 3'; echo 'server ready on x:1'; "
      "exec sleep 100");
  ASSERT_TRUE(process.ok()) << process.status();
  EXPECT_EQ((*process)->address(), "127.0.0.1:81");
  const pid_t pid = (*process)->pid();
  EXPECT_TRUE(Exists(pid));
  process->reset();
  EXPECT_FALSE(Exists(pid));
}

TEST(ServerProcessTest, AProcessThatEndsEarlyIsReportedWithItsLastLine) {
  const auto process = StartScript("echo loading; echo 'error: no such model' >&2; exit 1");
  EXPECT_EQ(process.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(process.status().message()), HasSubstr("error: no such model"));
  EXPECT_THAT(std::string(process.status().message()), HasSubstr("ended before it was ready"));
}

TEST(ServerProcessTest, AProcessThatIsNeverReadyIsStopped) {
  const absl::Time start = absl::Now();
  const auto process = StartScript("echo waiting; exec sleep 100", absl::Milliseconds(200));
  EXPECT_EQ(process.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(process.status().message()), HasSubstr("not ready in 200ms: waiting"));
  EXPECT_LT(absl::Now() - start, absl::Seconds(10));
}

TEST(ServerProcessTest, AProcessThatIgnoresSigtermIsKilled) {
  auto process = StartScript("trap '' TERM; echo 'server ready on a:1'; while :; do sleep 1; done");
  ASSERT_TRUE(process.ok()) << process.status();
  const pid_t pid = (*process)->pid();
  const absl::Time start = absl::Now();
  (*process)->Stop();
  EXPECT_FALSE(Exists(pid));
  EXPECT_GE(absl::Now() - start, kStopTimeout);
}

TEST(ServerProcessTest, AMissingBinaryIsNamed) {
  const auto process = ServerProcess::Start("/no/such/binary", {}, "x", absl::Seconds(1));
  EXPECT_EQ(process.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(process.status().message()), HasSubstr("/no/such/binary"));
}

TEST(ServerProcessTest, OutputAfterTheReadyLineIsTakenIn) {
  // More than a pipe holds: a process that nobody reads from would stop here.
  auto process = StartScript(
      "echo 'server ready on a:1'; i=0; while [ $i -lt 3000 ]; do echo "
      "'a line of output that is about fifty bytes long ...'; i=$((i+1)); done; echo last; "
      "exec sleep 100");
  ASSERT_TRUE(process.ok()) << process.status();
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  while ((*process)->last_line() != "last" && absl::Now() < deadline) {
    absl::SleepFor(absl::Milliseconds(5));
  }
  EXPECT_EQ((*process)->last_line(), "last");
}

TEST(BesideThisBinaryTest, IsInTheFolderOfTheTest) {
  EXPECT_THAT(BesideThisBinary("attic-store"), ::testing::EndsWith("/attic-store"));
  EXPECT_EQ(BesideThisBinary("x").front(), '/');
}

}  // namespace
}  // namespace attic::cli
