// What the kernels share: images as rows of channels, worked on by several threads.

#ifndef EFFNETV2_TF_KERNELS_ROWS_H_
#define EFFNETV2_TF_KERNELS_ROWS_H_

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "activations.h"
#include "helpers.h"
#include "tensorflow/core/framework/op_kernel.h"

namespace effnetv2_tf {

using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::TensorShape;

constexpr int64_t kBlockElements = 16384;      // of rows that stay in a cache
constexpr int64_t kStripElements = 128;        // that make a loop worth its beginning and end
constexpr int64_t kElementsPerThread = 65536;  // that are worth waking a thread for

inline const float* Values(const Tensor& tensor) { return tensor.flat<float>().data(); }
inline float* Values(Tensor* tensor) { return tensor->flat<float>().data(); }

inline absl::Status Allocate(OpKernelContext* context, int64_t size, Tensor* to) {
  return context->allocate_temp(tensorflow::DT_FLOAT, TensorShape({size}), to);
}

inline absl::Status CheckRank(const Tensor& tensor, int rank) {
  if (tensor.dims() == rank) return absl::OkStatus();
  return tensorflow::errors::InvalidArgument("expected a tensor of rank ", rank,
                                             ", received one shaped ",
                                             tensor.shape().DebugString());
}

inline absl::Status CheckShape(const Tensor& tensor, const TensorShape& expected) {
  if (tensor.shape() == expected) return absl::OkStatus();
  return tensorflow::errors::InvalidArgument("expected a tensor shaped ", expected.DebugString(),
                                             ", received one shaped ",
                                             tensor.shape().DebugString());
}

inline absl::Status CheckChannels(const Tensor& image, int64_t channels) {
  if (image.dims() == 4 && image.dim_size(3) == channels) return absl::OkStatus();
  return tensorflow::errors::InvalidArgument("expected images of ", channels,
                                             " channels, received a tensor shaped ",
                                             image.shape().DebugString());
}

// Calls of work(i) for each i below `count`, by whoever takes the next.
class Pass {
 public:
  explicit Pass(int64_t count) : count_(count) {}

  template <class Work>
  void Take(const Work& work) {
    for (int64_t i; (i = next_++) < count_; ++done_) work(i);
  }

  void Cancel() { next_ = count_; }
  bool is_done() const { return done_ == count_; }

 private:
  const int64_t count_;
  std::atomic<int64_t> next_{0}, done_{0};
};

// How many threads so many elements are worth, of as many as TensorFlow may take for an operation.
inline int64_t ThreadsFor(int64_t elements, OpKernelContext* context) {
  const int64_t most = context->device()->tensorflow_cpu_worker_threads()->num_threads;
  return std::clamp<int64_t>(elements / kElementsPerThread, 1, most);
}

// Pieces of work for so many threads: several for each, for them to end at the same time.
inline int64_t PiecesFor(int64_t workers) { return workers > 1 ? 4 * workers : 1; }

// Part `i` of `parts` of a number of things: from the first to before the second.
inline std::pair<int64_t, int64_t> PartOf(int64_t count, int64_t i, int64_t parts) {
  return {count * i / parts, count * (i + 1) / parts};
}

// Waits for other threads, which are at work: for microseconds, most often, less than a change of
// threads takes.
template <class Condition>
void WaitUntil(Condition holds) {
  constexpr int kPolls = 1 << 16;
  for (int polls = 0; !holds();) {
    if (polls < kPolls) {
      ++polls;
    } else {
      std::this_thread::yield();
    }
  }
}

// Calls first(i) for each i below `count`, then between(), and unless that returns false second(i)
// for each i below `pieces`. The caller and the threads that come, `workers` in all, take the next
// i when they are free, so that the caller never waits for a thread that other work keeps busy; and
// a thread that was woken for the first pass stays for the second.
template <class First, class Between, class Second>
void ShareTwice(int64_t workers, int64_t count, First first, Between between, int64_t pieces,
                Second second) {
  struct Progress {
    Progress(int64_t count, int64_t pieces) : first(count), second(pieces) {}
    Pass first, second;
    std::atomic<bool> is_halfway{false};
  };
  const auto progress = std::make_shared<Progress>(count, pieces);
  // The functions may refer to what the caller owns: a thread that comes too late calls neither.
  const auto help = [progress, &first, &second] {
    progress->first.Take(first);
    WaitUntil([&] { return progress->is_halfway.load(); });
    progress->second.Take(second);
  };
  if (workers > 1) Helpers::Get().Call(workers - 1, help);
  progress->first.Take(first);
  WaitUntil([&] { return progress->first.is_done(); });
  const bool goes_on = between();
  if (!goes_on) progress->second.Cancel();
  progress->is_halfway = true;
  if (!goes_on) return;
  progress->second.Take(second);
  WaitUntil([&] { return progress->second.is_done(); });
}

// The first pass alone.
template <class Work>
void Share(int64_t workers, int64_t count, Work work) {
  ShareTwice(workers, count, work, [] { return false; }, 0, [](int64_t) {});
}

// Values by channel, again and again for each row of a strip.
class ByColumn {
 public:
  ByColumn(int64_t channels, int64_t width) : channels_(channels), values_(width) {}

  float* data() { return values_.data(); }
  const float* data() const { return values_.data(); }
  float& operator[](int64_t channel) { return values_[channel]; }
  float operator[](int64_t channel) const { return values_[channel]; }
  void Clear() { std::fill(values_.begin(), values_.end(), 0.0f); }

  // From the first row's values to all rows.
  void Repeat() {
    for (size_t i = channels_; i < values_.size(); ++i) values_[i] = values_[i - channels_];
  }

  // From all rows' values to their sums in the first row.
  void Fold() {
    for (size_t row = channels_; row < values_.size(); row += channels_) {
      for (int64_t c = 0; c < channels_; ++c) values_[c] += values_[row + c];
    }
  }

 private:
  int64_t channels_;
  std::vector<float> values_;
};

// An image as rows of channels, in runs of rows that threads work on side by side, each run in
// blocks that stay in a cache, and each block in strips, rows enough for long loops. The
// runs depend on the number of threads alone, hence so do the sums' roundings.
class Rows {
 public:
  Rows(OpKernelContext* context, const Tensor& image, int64_t channels)
      : channels(channels),
        count(channels ? image.NumElements() / channels : 0),
        width(channels ? channels * std::max<int64_t>(1, kStripElements / channels) : 0),
        runs(ThreadsFor(image.NumElements(), context)) {}

  ByColumn MakeColumns() const { return ByColumn(channels, width); }

  // Calls block(run, first row, end of rows) for each block, then between(), and unless that returns
  // false strip(first element, number of elements) for each strip.
  template <class Block, class Between, class Strip>
  void InTwoPasses(Block block, Between between, Strip strip) const {
    const int64_t height = std::max<int64_t>(8, kBlockElements / std::max<int64_t>(channels, 1));
    const auto first_pass = [&](int64_t run) {
      const int64_t end = count * (run + 1) / runs;
      for (int64_t first = count * run / runs; first < end; first += height) {
        block(run, first, std::min(first + height, end));
      }
    };
    const int64_t pieces = PiecesFor(runs);  // of the second pass, which adds nothing up
    const auto second_pass = [&](int64_t piece) {
      ForEachStrip(count * piece / pieces, count * (piece + 1) / pieces, strip);
    };
    ShareTwice(runs, runs, first_pass, between, pieces, second_pass);
  }

  // Calls work(first element, number of elements) for each strip of these rows.
  template <class Work>
  void ForEachStrip(int64_t first, int64_t end, Work work) const {
    for (int64_t start = first * channels; start < end * channels; start += width) {
      work(start, std::min(width, end * channels - start));
    }
  }

  const int64_t channels, count, width, runs;
};

}  // namespace effnetv2_tf

#endif  // EFFNETV2_TF_KERNELS_ROWS_H_
