#include "client/cli/text_format.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

namespace attic::cli {

std::string FormatCount(int64_t value) {
  std::string text = std::to_string(value);
  const size_t first_digit = value < 0 ? 1 : 0;
  for (size_t at = text.size(); at > first_digit + 3;) {
    at -= 3;
    text.insert(at, ",");
  }
  return text;
}

std::string FormatBytes(double bytes) {
  constexpr std::array kUnits = {"B", "KB", "MB", "GB", "TB"};
  size_t unit = 0;
  while (bytes >= 999.5 && unit + 1 < kUnits.size()) {
    bytes /= 1000;
    ++unit;
  }
  return FormatFixed(bytes, unit == 0 || bytes >= 99.95 ? 0 : 1) + " " + kUnits[unit];
}

std::string FormatFixed(double value, int decimals) {
  std::array<char, 64> buffer;
  const int length = std::snprintf(buffer.data(), buffer.size(), "%.*f", decimals, value);
  return std::string(buffer.data(), std::min<size_t>(length, buffer.size() - 1));
}

std::string FormatPercent(double share, int decimals) {
  return FormatFixed(100 * share, decimals) + "%";
}

std::string FormatSeconds(double seconds) {
  if (seconds < 10) return FormatFixed(seconds, 1) + " s";
  const auto total = static_cast<int64_t>(std::lround(seconds));
  if (total < 60) return std::to_string(total) + " s";
  const auto two_digits = [](int64_t n) { return (n < 10 ? "0" : "") + std::to_string(n); };
  if (total < 3600) return std::to_string(total / 60) + " min " + two_digits(total % 60) + " s";
  return std::to_string(total / 3600) + " h " + two_digits(total / 60 % 60) + " min";
}

std::string EscapeText(std::string_view bytes) {
  std::string text;
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte < 0x7f) {
      text += c;
      continue;
    }
    std::array<char, 8> buffer;
    std::snprintf(buffer.data(), buffer.size(), "\\x%02x", byte);
    text += buffer.data();
  }
  return text;
}

double Percentile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  const double rank = std::ceil(share * static_cast<double>(values.size()));
  const size_t at = static_cast<size_t>(std::clamp(rank, 1.0, double(values.size()))) - 1;
  std::nth_element(values.begin(), values.begin() + at, values.end());
  return values[at];
}

}  // namespace attic::cli
