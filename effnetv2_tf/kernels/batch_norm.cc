// Batch normalisation in training with the activation behind it, forward and backward: float32 on
// CPUs, channels last. TensorFlow has an operation for the norm and five more for SiLU and its
// gradient, each of which reads and writes the whole image; here it is two passes each way, and
// the normalised image is never kept. `operations.py` has the Python side.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"

namespace effnetv2_tf {
namespace {

using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::TensorShape;

constexpr int64_t kBlockElements = 16384;      // of rows that stay in a cache
constexpr int64_t kStripElements = 128;        // that make a loop worth its beginning and end
constexpr int64_t kElementsPerThread = 16384;  // that are worth waking a thread for

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

const float* Values(const Tensor& tensor) { return tensor.flat<float>().data(); }
float* Values(Tensor* tensor) { return tensor->flat<float>().data(); }

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
    auto some = [&](int64_t run, int64_t end) {
      for (; run < end; ++run) work(run, count * run / runs, count * (run + 1) / runs);
    };
    if (runs == 1) return some(0, 1);
    constexpr int64_t kCost = 1 << 24;  // large: each run is worth a thread
    pool_->workers->ParallelFor(runs, kCost, some);
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

// Means and sums of squared deviations by channel, built up block by block (Chan, Golub and
// LeVeque, 1983), so that an image is read once and nothing cancels.
class Moments {
 public:
  explicit Moments(const Rows& rows)
      : rows_(rows),
        mean_(rows.channels),
        squares_(rows.channels),
        block_mean_(rows.MakeColumns()),
        block_squares_(rows.MakeColumns()) {}

  void Add(const float* x, int64_t first, int64_t end) {
    block_mean_.Clear();
    block_squares_.Clear();
    float* __restrict mean = block_mean_.data();
    float* __restrict squares = block_squares_.data();
    rows_.ForEachStrip(first, end, [&](int64_t start, int64_t size) {
      for (int64_t i = 0; i < size; ++i) mean[i] += x[start + i];
    });
    block_mean_.Fold();
    for (int64_t c = 0; c < rows_.channels; ++c) mean[c] /= end - first;
    block_mean_.Repeat();
    rows_.ForEachStrip(first, end, [&](int64_t start, int64_t size) {
      for (int64_t i = 0; i < size; ++i) {
        squares[i] += (x[start + i] - mean[i]) * (x[start + i] - mean[i]);
      }
    });
    block_squares_.Fold();
    Merge(mean, squares, end - first);
  }

  void Add(const Moments& other) {
    if (other.count_ > 0) Merge(other.mean_.data(), other.squares_.data(), other.count_);
  }

  float mean(int64_t channel) const { return mean_[channel]; }
  float variance(int64_t channel) const { return squares_[channel] / std::max(count_, 1.0f); }
  float unbiased_variance(int64_t channel) const {
    return squares_[channel] / std::max(count_ - 1.0f, 1.0f);
  }

 private:
  void Merge(const float* mean, const float* squares, float count) {
    const float share = count / (count_ + count), weight = share * count_;
    for (size_t c = 0; c < mean_.size(); ++c) {
      const float distance = mean[c] - mean_[c];
      mean_[c] += distance * share;
      squares_[c] += squares[c] + distance * distance * weight;
    }
    count_ += count;
  }

  const Rows& rows_;
  std::vector<float> mean_, squares_;
  ByColumn block_mean_, block_squares_;
  float count_ = 0;
};

// The rows of the forward pass's second output. It is one output, for TensorFlow hands zeros to the
// gradient for each that has none.
struct Statistics {
  Statistics(float* values, int64_t channels)
      : new_mean(values),
        new_variance(values + channels),
        mean(values + 2 * channels),
        inverse_deviation(values + 3 * channels) {}

  static constexpr int64_t kRows = 4;
  float *new_mean, *new_variance;    // moving ones that took over a share of the batch's
  float *mean, *inverse_deviation;  // of the batch; the second is 1 / sqrt(variance + epsilon)
};

// The norm as z = x * scale + offset.
struct Affine {
  Affine(const Rows& rows, const Tensor& gamma, const Tensor& beta, const Statistics& statistics)
      : scale(rows.MakeColumns()), offset(rows.MakeColumns()) {
    for (int64_t c = 0; c < rows.channels; ++c) {
      scale[c] = Values(gamma)[c] * statistics.inverse_deviation[c];
      offset[c] = Values(beta)[c] - statistics.mean[c] * scale[c];
    }
    scale.Repeat();
    offset.Repeat();
  }

  ByColumn scale, offset;
};

template <class Activation>
class Forward : public OpKernel {
 public:
  explicit Forward(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("epsilon", &epsilon_));
    OP_REQUIRES_OK(context, context->GetAttr("share", &share_));
  }

  void Compute(OpKernelContext* context) override {
    const Tensor& x = context->input(0);
    const Rows rows(context, x, context->input(1).NumElements());
    const TensorShape by_channel({Statistics::kRows, rows.channels});
    Tensor *y, *second;
    OP_REQUIRES_OK(context, context->allocate_output(0, x.shape(), &y));
    OP_REQUIRES_OK(context, context->allocate_output(1, by_channel, &second));
    const Statistics statistics(Values(second), rows.channels);

    std::vector<Moments> by_run(rows.runs, Moments(rows));
    rows.ForEachBlock([&](int64_t run, int64_t first, int64_t end) {
      by_run[run].Add(Values(x), first, end);
    });
    for (int64_t run = 1; run < rows.runs; ++run) by_run[0].Add(by_run[run]);

    const Moments& moments = by_run[0];
    const float* old_mean = Values(context->input(3));
    const float* old_variance = Values(context->input(4));
    for (int64_t c = 0; c < rows.channels; ++c) {
      statistics.mean[c] = moments.mean(c);
      statistics.inverse_deviation[c] = 1.0f / std::sqrt(moments.variance(c) + epsilon_);
      statistics.new_mean[c] = old_mean[c] + share_ * (moments.mean(c) - old_mean[c]);
      statistics.new_variance[c] =
          old_variance[c] + share_ * (moments.unbiased_variance(c) - old_variance[c]);
    }
    const Affine norm(rows, context->input(1), context->input(2), statistics);
    rows.ForEachRun([&](int64_t, int64_t first, int64_t end) {
      const float* __restrict scale = norm.scale.data();
      const float* __restrict offset = norm.offset.data();
      rows.ForEachStrip(first, end, [&](int64_t start, int64_t size) {
        const float* __restrict in = Values(x) + start;
        float* __restrict out = Values(y) + start;
        for (int64_t i = 0; i < size; ++i) out[i] = Activation::Value(in[i] * scale[i] + offset[i]);
      });
    });
  }

 private:
  float epsilon_, share_;
};

template <class Activation>
class Backward : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* context) override {
    const Tensor &dy = context->input(0), &x = context->input(1), &gamma = context->input(2);
    Tensor *dx, *dgamma, *dbeta;
    OP_REQUIRES_OK(context, context->forward_input_or_allocate_output({0}, 0, x.shape(), &dx));
    OP_REQUIRES_OK(context, context->allocate_output(1, gamma.shape(), &dgamma));
    OP_REQUIRES_OK(context, context->allocate_output(2, gamma.shape(), &dbeta));
    const Rows rows(context, x, gamma.NumElements());
    Tensor saved = context->input(4);  // the same memory, which is only read
    const Statistics statistics(Values(&saved), rows.channels);
    const Affine norm(rows, gamma, context->input(3), statistics);
    ByColumn means = rows.MakeColumns();
    std::copy_n(statistics.mean, rows.channels, means.data());
    means.Repeat();

    // dz, that with respect to the normalised image, lies in dx between the passes.
    std::vector<Sums> by_run(rows.runs, Sums(rows));
    rows.ForEachBlock([&](int64_t run, int64_t first, int64_t end) {
      Sums block(rows);
      rows.ForEachStrip(first, end, [&](int64_t start, int64_t size) {
        AddGradients(Values(dy) + start, Values(x) + start, norm, means, size, Values(dx) + start,
                     &block);
      });
      block.dz.Fold();
      block.product.Fold();
      by_run[run].Add(block, rows.channels);
    });
    for (int64_t run = 1; run < rows.runs; ++run) by_run[0].Add(by_run[run], rows.channels);

    // dx = scale * (dz - mean(dz) - x' * mean(dz * x')), x' being x normalised.
    ByColumn slope = rows.MakeColumns(), constant = rows.MakeColumns();
    const float count = std::max<int64_t>(rows.count, 1);
    for (int64_t c = 0; c < rows.channels; ++c) {
      const float inverse = statistics.inverse_deviation[c];
      Values(dbeta)[c] = by_run[0].dz[c];
      Values(dgamma)[c] = by_run[0].product[c] * inverse;
      slope[c] = -norm.scale[c] * inverse * Values(dgamma)[c] / count;
      constant[c] = -norm.scale[c] * Values(dbeta)[c] / count - slope[c] * means[c];
    }
    slope.Repeat();
    constant.Repeat();
    rows.ForEachRun([&](int64_t, int64_t first, int64_t end) {
      const float* __restrict scales = norm.scale.data();
      const float* __restrict slopes = slope.data();
      const float* __restrict constants = constant.data();
      rows.ForEachStrip(first, end, [&](int64_t start, int64_t size) {
        const float* __restrict in = Values(x) + start;
        float* __restrict out = Values(dx) + start;
        for (int64_t i = 0; i < size; ++i) {
          out[i] = out[i] * scales[i] + in[i] * slopes[i] + constants[i];
        }
      });
    });
  }

 private:
  // Of dz and of dz * (x - mean), by channel.
  struct Sums {
    explicit Sums(const Rows& rows) : dz(rows.MakeColumns()), product(rows.MakeColumns()) {}

    void Add(const Sums& other, int64_t channels) {
      for (int64_t c = 0; c < channels; ++c) {
        dz[c] += other.dz[c];
        product[c] += other.product[c];
      }
    }

    ByColumn dz, product;
  };

  // Writes a strip of dz, and adds it to the sums. `dy` and `dz` may be the same memory.
  static void AddGradients(const float* dy, const float* x, const Affine& norm,
                           const ByColumn& means, int64_t size, float* dz, Sums* sums) {
    const float* __restrict scale = norm.scale.data();
    const float* __restrict offset = norm.offset.data();
    const float* __restrict mean = means.data();
    float* __restrict sum = sums->dz.data();
    float* __restrict product = sums->product.data();
#pragma GCC ivdep
    for (int64_t i = 0; i < size; ++i) {
      const float value = dy[i] * Activation::Slope(x[i] * scale[i] + offset[i]);
      dz[i] = value;
      sum[i] += value;
      product[i] += value * (x[i] - mean[i]);
    }
  }
};

using tensorflow::shape_inference::InferenceContext;

absl::Status ForwardShapes(InferenceContext* context) {
  context->set_output(0, context->input(0));
  const auto channels = context->NumElements(context->input(1));
  context->set_output(1, context->Matrix(Statistics::kRows, channels));
  return absl::OkStatus();
}

absl::Status BackwardShapes(InferenceContext* context) {
  for (int i = 0; i < 3; ++i) context->set_output(i, context->input(i == 0 ? 1 : 2));
  return absl::OkStatus();
}

}  // namespace

// The moving statistics take over `share` of the batch's, the variance's unbiased.
#define REGISTER_FORWARD(name)         \
  REGISTER_OP(name)                    \
      .Input("x: float")               \
      .Input("gamma: float")           \
      .Input("beta: float")            \
      .Input("moving_mean: float")     \
      .Input("moving_variance: float") \
      .Output("y: float")              \
      .Output("statistics: float")     \
      .Attr("epsilon: float")          \
      .Attr("share: float")            \
      .SetShapeFn(ForwardShapes)

#define REGISTER_BACKWARD(name)   \
  REGISTER_OP(name)               \
      .Input("dy: float")         \
      .Input("x: float")          \
      .Input("gamma: float")      \
      .Input("beta: float")       \
      .Input("statistics: float") \
      .Output("dx: float")        \
      .Output("dgamma: float")    \
      .Output("dbeta: float")     \
      .SetShapeFn(BackwardShapes)

#define REGISTER_CPU_KERNEL(name, ...) \
  REGISTER_KERNEL_BUILDER(Name(name).Device(tensorflow::DEVICE_CPU), __VA_ARGS__)

REGISTER_FORWARD("Effnetv2BatchNorm");
REGISTER_FORWARD("Effnetv2BatchNormSilu");
REGISTER_BACKWARD("Effnetv2BatchNormGrad");
REGISTER_BACKWARD("Effnetv2BatchNormSiluGrad");
REGISTER_CPU_KERNEL("Effnetv2BatchNorm", Forward<Identity>);
REGISTER_CPU_KERNEL("Effnetv2BatchNormSilu", Forward<Silu>);
REGISTER_CPU_KERNEL("Effnetv2BatchNormGrad", Backward<Identity>);
REGISTER_CPU_KERNEL("Effnetv2BatchNormSiluGrad", Backward<Silu>);

}  // namespace effnetv2_tf
