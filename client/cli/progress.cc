#include "client/cli/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <utility>

#include "client/cli/text_format.h"

namespace attic::cli {
namespace {

constexpr int kBarWidth = 30;
constexpr int kLabelWidth = 10;
constexpr std::chrono::milliseconds kRedrawInterval{100};

}  // namespace

ProgressBar::ProgressBar(std::string label, int64_t total, std::string unit, bool enabled)
    : label_(std::move(label)),
      total_(total),
      unit_(std::move(unit)),
      shown_(enabled && isatty(STDERR_FILENO) == 1) {}

ProgressBar::~ProgressBar() {
  if (shown_) std::fputs("\r\033[K", stderr);
}

void ProgressBar::Update(int64_t done) {
  const Clock::time_point now = Clock::now();
  if (!shown_ || now - drawn_ < kRedrawInterval) return;
  drawn_ = now;
  const double seconds = std::chrono::duration<double>(now - start_).count();
  std::fprintf(stderr, "\r%s\033[K", Line(done, seconds).c_str());
  std::fflush(stderr);
}

std::string ProgressBar::Line(int64_t done, double seconds) const {
  std::string line = label_;
  if (line.size() < kLabelWidth) line.resize(kLabelWidth, ' ');
  if (total_ <= 0) return line + " " + FormatCount(done) + " " + unit_;
  done = std::clamp<int64_t>(done, 0, total_);
  const double share = static_cast<double>(done) / static_cast<double>(total_);
  const int filled = static_cast<int>(share * kBarWidth);
  line += " [" + std::string(filled, '#') + std::string(kBarWidth - filled, '.') + "] ";
  line +=
      FormatPercent(share, 0) + "  " + FormatCount(done) + "/" + FormatCount(total_) + " " + unit_;
  if (done > 0 && done < total_) {
    line += "  " + FormatSeconds(seconds * (1 - share) / share) + " left";
  }
  return line;
}

}  // namespace attic::cli
