#include "server/cluster/liveness/address_resolver.h"

#include <deque>
#include <thread>
#include <utility>

#include "base/mutex.h"

namespace attic {

struct AddressResolver::State {
  ResolveFunction resolve;
  std::function<void()> on_resolved;

  Mutex mutex;
  bool stopping ATTIC_GUARDED_BY(mutex) = false;
  bool running ATTIC_GUARDED_BY(mutex) = false;  // a thread takes what is asked
  std::deque<std::string> asked ATTIC_GUARDED_BY(mutex);
  std::vector<Resolved> resolved ATTIC_GUARDED_BY(mutex);
};

AddressResolver::AddressResolver(ResolveFunction resolve, std::function<void()> on_resolved)
    : state_(std::make_shared<State>()) {
  state_->resolve = std::move(resolve);
  state_->on_resolved = std::move(on_resolved);
}

AddressResolver::~AddressResolver() {
  MutexLock lock(state_->mutex);
  state_->stopping = true;
}

bool AddressResolver::Ask(const std::string& address) {
  MutexLock lock(state_->mutex);
  if (state_->asked.size() >= kAskedMax) return false;
  state_->asked.push_back(address);
  if (!std::exchange(state_->running, true)) {
    std::thread([state = state_] { Run(state); }).detach();
  }
  return true;
}

std::vector<AddressResolver::Resolved> AddressResolver::Take() {
  MutexLock lock(state_->mutex);
  return std::exchange(state_->resolved, {});
}

void AddressResolver::Run(const std::shared_ptr<State>& state) {
  while (true) {
    std::string address;
    {
      MutexLock lock(state->mutex);
      state->running = !state->stopping && !state->asked.empty();
      if (!state->running) return;
      address = std::move(state->asked.front());
      state->asked.pop_front();
    }
    std::vector<SocketAddress> addresses = state->resolve(address);
    {
      MutexLock lock(state->mutex);
      if (state->stopping) return;
      state->resolved.push_back({.address = std::move(address), .addresses = std::move(addresses)});
    }
    state->on_resolved();
  }
}

}  // namespace attic
