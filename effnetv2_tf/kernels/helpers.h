// Threads of this library's own, one for each processor. TensorFlow's pool wakes a thread wherever it
// ran last, which on few processors often is where its caller is at work, and there it waits. These
// are tied to their processors, those are called that the caller is not on, and for a while they
// stay awake for the next operation.

#ifndef EFFNETV2_TF_KERNELS_HELPERS_H_
#define EFFNETV2_TF_KERNELS_HELPERS_H_

#ifdef __linux__
#include <sched.h>
#endif

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace effnetv2_tf {

// What this process may run on; elsewhere than on Linux as many as there are, none of them known.
inline std::vector<int> Processors() {
  std::vector<int> found;
#ifdef __linux__
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) {
    for (int i = 0; i < CPU_SETSIZE; ++i) {
      if (CPU_ISSET(i, &allowed)) found.push_back(i);
    }
  }
#endif
  if (found.empty()) found.assign(std::max(1u, std::thread::hardware_concurrency()), -1);
  return found;
}

inline int ThisProcessor() {
#ifdef __linux__
  return sched_getcpu();
#else
  return -1;
#endif
}

inline void StayOn([[maybe_unused]] int processor) {
#ifdef __linux__
  cpu_set_t only;
  CPU_ZERO(&only);
  CPU_SET(processor, &only);
  sched_setaffinity(0, sizeof only, &only);  // if it may not, it runs where it is put
#endif
}

// One thread, which does what it is given in turn.
class Helper {
 public:
  explicit Helper(int processor) : processor_(processor), thread_([this] { Run(); }) {}

  void Give(const std::function<void()>& work) {
    bool is_asleep;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      works_.push_back(work);
      has_work_ = true;
      is_asleep = is_asleep_;
    }
    if (is_asleep) wake_.notify_one();
  }

 private:
  using Clock = std::chrono::steady_clock;

  // Within which a step's next operation comes.
  static constexpr std::chrono::microseconds kAwake{500};
  static constexpr int kPollsPerYield = 32;

  [[noreturn]] void Run() {
    if (processor_ >= 0) StayOn(processor_);
    while (true) {
      const auto end = Clock::now() + kAwake;
      for (int polls = 1; !has_work_ && Clock::now() < end; ++polls) {
        // Whoever else wants this processor gets it.
        if (polls % kPollsPerYield == 0) std::this_thread::yield();
      }
      Take()();
    }
  }

  std::function<void()> Take() {
    std::unique_lock<std::mutex> lock(mutex_);
    is_asleep_ = true;
    wake_.wait(lock, [this] { return !works_.empty(); });
    is_asleep_ = false;
    const auto work = std::move(works_.front());
    works_.pop_front();
    has_work_ = !works_.empty();
    return work;
  }

  const int processor_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> works_;
  std::atomic<bool> has_work_{false};
  bool is_asleep_ = false;
  std::thread thread_;  // the last member: it runs from here on
};

class Helpers {
 public:
  // This process's, started when they are first asked for and never stopped.
  static Helpers& Get() {
    static Helpers* const helpers = new Helpers();
    return *helpers;
  }

  // Has `work` called by `count` threads, on other processors than this one as far as there are.
  void Call(int64_t count, const std::function<void()>& work) {
    const auto here = std::find(processors_.begin(), processors_.end(), ThisProcessor());
    const int64_t first = here - processors_.begin();
    for (int64_t i = 1; i <= count; ++i) helpers_[(first + i) % helpers_.size()]->Give(work);
  }

 private:
  Helpers() : processors_(Processors()) {
    for (int processor : processors_) helpers_.push_back(std::make_unique<Helper>(processor));
  }

  const std::vector<int> processors_;
  std::vector<std::unique_ptr<Helper>> helpers_;
};

}  // namespace effnetv2_tf

#endif  // EFFNETV2_TF_KERNELS_HELPERS_H_
