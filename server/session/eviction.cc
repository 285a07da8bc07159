#include "server/session/eviction.h"

#include <algorithm>
#include <string_view>
#include <utility>

namespace attic {
namespace {

// At least 1, so that empty sessions have an order too.
double MemoryBytes(const Session& session) {
  uint64_t bytes = 1;
  for (const auto& layer : session.layers()) bytes += layer->memory_use().total();
  return static_cast<double>(bytes);
}

}  // namespace

std::vector<std::shared_ptr<Session>> EndLeases(std::span<const std::shared_ptr<Session>> sessions,
                                                absl::Time now) {
  std::vector<std::shared_ptr<Session>> ended;
  for (const auto& session : sessions) {
    if (session->attributes().durability != Durability::kMemory) continue;
    if (session->lease().EndIfOver(now)) ended.push_back(session);
  }
  return ended;
}

std::shared_ptr<Session> ChooseVictim(std::span<const std::shared_ptr<Session>> sessions,
                                      const std::string* tenant, absl::Time now) {
  std::vector<std::pair<double, std::shared_ptr<Session>>> victims;
  for (const auto& session : sessions) {
    if (tenant != nullptr && session->attributes().tenant != *tenant) continue;
    if (!session->lease().over(now)) continue;
    const double idle = absl::ToDoubleSeconds(now - session->lease().last_use());
    victims.emplace_back(idle * MemoryBytes(*session), session);
  }
  std::sort(victims.begin(), victims.end(),
            [](const auto& a, const auto& b) { return a.first > b.first; });
  // One that is used at this moment is passed over.
  for (const auto& [value, session] : victims) {
    if (session->lease().EndIfOver(now)) return session;
  }
  return nullptr;
}

Shortage ShortageOf(const absl::Status& status) {
  if (!absl::IsResourceExhausted(status)) return Shortage::kNone;
  const std::string message(status.message());
  for (const std::string_view limit : {"memory_bytes_max", "sessions_max"}) {
    if (message.starts_with(limit)) return Shortage::kOfStore;
  }
  return message.starts_with("tenant_") ? Shortage::kOfTenant : Shortage::kNone;
}

}  // namespace attic
