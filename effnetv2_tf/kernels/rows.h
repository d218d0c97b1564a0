// What the kernels share: elementwise functions that become vector code, and images as rows of
// channels, worked on by TensorFlow's threads.

#ifndef EFFNETV2_TF_KERNELS_ROWS_H_
#define EFFNETV2_TF_KERNELS_ROWS_H_

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

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

// exp(x) to a few units in the last place, of operations that a compiler makes vector ones of.
inline float Exp(float x) {
  x = std::min(std::max(x, -87.0f), 88.0f);  // beyond, the result is not a normal number
  const float n = std::nearbyint(x * 1.44269504f);  // x = n ln 2 + r
  const float r = (x - n * 0.693145752f) - n * 1.42860677e-6f;  // ln 2, of which n * the first is exact
  float series = 1.0f / 5040;  // of exp(r), |r| < 0.35
  series = series * r + 1.0f / 720;
  series = series * r + 1.0f / 120;
  series = series * r + 1.0f / 24;
  series = series * r + 1.0f / 6;
  series = series * r + 0.5f;
  series = series * r + 1.0f;
  series = series * r + 1.0f;
  const int32_t bits = (static_cast<int32_t>(n) + 127) << 23;  // of 2^n
  float power;
  std::memcpy(&power, &bits, sizeof power);
  return series * power;
}

inline float Sigmoid(float z) { return 1.0f / (1.0f + Exp(-z)); }

struct Identity {
  static float Value(float z) { return z; }
  static float Slope(float) { return 1.0f; }
};

struct Silu {
  static float Value(float z) { return z * Sigmoid(z); }
  static float Slope(float z) {
    const float gate = Sigmoid(z);
    return gate * (1.0f + z * (1.0f - gate));
  }
};

inline const float* Values(const Tensor& tensor) { return tensor.flat<float>().data(); }
inline float* Values(Tensor* tensor) { return tensor->flat<float>().data(); }

inline absl::Status CheckChannels(const Tensor& image, int64_t channels) {
  if (image.dims() == 4 && image.dim_size(3) == channels) return absl::OkStatus();
  return tensorflow::errors::InvalidArgument("expected images of ", channels,
                                             " channels, received a tensor shaped ",
                                             image.shape().DebugString());
}

// Calls work(i) for each i below `count`. The caller and the threads that come take the next i when
// they are free, so that the caller never waits for a thread that other work keeps busy.
template <class Work>
void Share(tensorflow::thread::ThreadPool* threads, int64_t count, Work work) {
  struct Progress {
    std::atomic<int64_t> next{0}, done{0};
  };
  const auto progress = std::make_shared<Progress>();
  // `work` may refer to what the caller owns: a thread that comes too late does not touch it.
  const auto take = [progress, count, &work] {
    for (int64_t i; (i = progress->next++) < count; ++progress->done) work(i);
  };
  for (int64_t helper = 1; helper < count; ++helper) threads->Schedule(take);
  take();
  while (progress->done < count) std::this_thread::yield();
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
  const tensorflow::DeviceBase::CpuWorkerThreads* const pool_;

 public:
  Rows(OpKernelContext* context, const Tensor& image, int64_t channels)
      : pool_(context->device()->tensorflow_cpu_worker_threads()),
        channels(channels),
        count(channels ? image.NumElements() / channels : 0),
        width(channels ? channels * std::max<int64_t>(1, kStripElements / channels) : 0),
        runs(std::clamp<int64_t>(image.NumElements() / kElementsPerThread, 1, pool_->num_threads)) {
  }

  ByColumn MakeColumns() const { return ByColumn(channels, width); }

  // Calls work(run, first row, end of rows) for each run.
  template <class Work>
  void ForEachRun(Work work) const {
    Share(pool_->workers, runs, [&](int64_t run) {
      work(run, count * run / runs, count * (run + 1) / runs);
    });
  }

  // Calls work(run, first row, end of rows) for each block.
  template <class Work>
  void ForEachBlock(Work work) const {
    const int64_t height = std::max<int64_t>(8, kBlockElements / std::max<int64_t>(channels, 1));
    ForEachRun([&](int64_t run, int64_t first, int64_t end) {
      for (; first < end; first += height) work(run, first, std::min(first + height, end));
    });
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
