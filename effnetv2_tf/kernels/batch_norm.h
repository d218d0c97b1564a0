// Batch normalisation in training with the activation behind it, forward and backward: float32 on
// CPUs, channels last. TensorFlow has an operation for the norm and five more for SiLU and its
// gradient, each of which reads and writes the whole image; here it is two passes each way, and
// the normalised image is never kept.

#ifndef EFFNETV2_TF_KERNELS_BATCH_NORM_H_
#define EFFNETV2_TF_KERNELS_BATCH_NORM_H_

#include "rows.h"
#include "variables.h"

namespace effnetv2_tf {

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

// The rows of the forward pass's second output: those of the batch, the variance the biased one.
// It is one output, for TensorFlow hands zeros to the gradient for each that has none.
struct Statistics {
  Statistics(float* values, int64_t channels) : mean(values), variance(values + channels) {}

  float InverseDeviation(int64_t channel, float epsilon) const {
    return 1.0f / std::sqrt(variance[channel] + epsilon);
  }

  static constexpr int64_t kRows = 2;
  float *mean, *variance;
};

// The norm as z = x * scale + offset.
struct Affine {
  explicit Affine(const Rows& rows) : scale(rows.MakeColumns()), offset(rows.MakeColumns()) {}

  void Set(int64_t channels, const Tensor& gamma, const Tensor& beta, const Statistics& statistics,
           float epsilon) {
    for (int64_t c = 0; c < channels; ++c) {
      scale[c] = Values(gamma)[c] * statistics.InverseDeviation(c, epsilon);
      offset[c] = Values(beta)[c] - statistics.mean[c] * scale[c];
    }
    scale.Repeat();
    offset.Repeat();
  }

  ByColumn scale, offset;
};

inline absl::Status CheckParameters(const Tensor& x, const Tensor& gamma, const Tensor& beta) {
  const int64_t channels = gamma.NumElements();
  TF_RETURN_IF_ERROR(CheckChannels(x, channels));
  TF_RETURN_IF_ERROR(CheckShape(gamma, {channels}));
  return CheckShape(beta, {channels});
}

template <class Activation>
class Forward : public OpKernel {
 public:
  explicit Forward(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("epsilon", &epsilon_));
    OP_REQUIRES_OK(context, context->GetAttr("share", &share_));
    int moving;
    OP_REQUIRES_OK(context, context->GetAttr("N", &moving));
    OP_REQUIRES(context, moving == 0 || moving == 2,
                tensorflow::errors::InvalidArgument(
                    "expected a moving mean and variance, or neither, received ", moving));
  }

  void Compute(OpKernelContext* context) override {
    const Tensor &x = context->input(0), &gamma = context->input(1), &beta = context->input(2);
    OP_REQUIRES_OK(context, CheckParameters(x, gamma, beta));
    const Rows rows(context, x, gamma.NumElements());
    const TensorShape by_channel({Statistics::kRows, rows.channels});
    Tensor *y, *second;
    OP_REQUIRES_OK(context, context->allocate_output(0, x.shape(), &y));
    OP_REQUIRES_OK(context, context->allocate_output(1, by_channel, &second));
    const Statistics statistics(Values(second), rows.channels);

    Affine norm(rows);
    std::vector<Moments> by_run(rows.runs, Moments(rows));
    const auto add = [&](int64_t run, int64_t first, int64_t end) {
      by_run[run].Add(Values(x), first, end);
    };
    const auto finish = [&] {
      for (int64_t run = 1; run < rows.runs; ++run) by_run[0].Add(by_run[run]);
      for (int64_t c = 0; c < rows.channels; ++c) {
        statistics.mean[c] = by_run[0].mean(c);
        statistics.variance[c] = by_run[0].variance(c);
      }
      norm.Set(rows.channels, gamma, beta, statistics, epsilon_);
      if (context->num_inputs() == 3 || rows.count == 0) return true;
      context->SetStatus(Move(context, by_run[0], rows.channels));
      return context->status().ok();
    };
    rows.InTwoPasses(add, finish, [&](int64_t start, int64_t size) {
      const float* __restrict scale = norm.scale.data();
      const float* __restrict offset = norm.offset.data();
      const float* __restrict in = Values(x) + start;
      float* __restrict out = Values(y) + start;
      for (int64_t i = 0; i < size; ++i) out[i] = Activation::Value(in[i] * scale[i] + offset[i]);
    });
  }

 private:
  // The moving statistics take over their share of the batch's, the variance's unbiased.
  absl::Status Move(OpKernelContext* context, const Moments& batch, int64_t channels) const {
    LockedVariables moving;
    float *mean, *variance;
    TF_RETURN_IF_ERROR(moving.Lock(context, 3, 2));
    TF_RETURN_IF_ERROR(moving.Write(context, 0, {channels}, &mean));
    TF_RETURN_IF_ERROR(moving.Write(context, 1, {channels}, &variance));
    for (int64_t c = 0; c < channels; ++c) {
      mean[c] += share_ * (batch.mean(c) - mean[c]);
      variance[c] += share_ * (batch.unbiased_variance(c) - variance[c]);
    }
    return absl::OkStatus();
  }

  float epsilon_, share_;
};

template <class Activation>
class Backward : public OpKernel {
 public:
  explicit Backward(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("epsilon", &epsilon_));
  }

  void Compute(OpKernelContext* context) override {
    const Tensor &dy = context->input(0), &x = context->input(1), &gamma = context->input(2);
    const Tensor& beta = context->input(3);
    OP_REQUIRES_OK(context, CheckParameters(x, gamma, beta));
    OP_REQUIRES_OK(context, CheckShape(dy, x.shape()));
    OP_REQUIRES_OK(context,
                   CheckShape(context->input(4), {Statistics::kRows, gamma.NumElements()}));
    Tensor *dx, *dgamma, *dbeta;
    OP_REQUIRES_OK(context, context->forward_input_or_allocate_output({0}, 0, x.shape(), &dx));
    OP_REQUIRES_OK(context, context->allocate_output(1, gamma.shape(), &dgamma));
    OP_REQUIRES_OK(context, context->allocate_output(2, gamma.shape(), &dbeta));
    const Rows rows(context, x, gamma.NumElements());
    Tensor saved = context->input(4);  // the same memory, which is only read
    const Statistics statistics(Values(&saved), rows.channels);
    Affine norm(rows);
    norm.Set(rows.channels, gamma, beta, statistics, epsilon_);
    ByColumn means = rows.MakeColumns();
    std::copy_n(statistics.mean, rows.channels, means.data());
    means.Repeat();

    // dz, that with respect to the normalised image, lies in dx between the passes.
    std::vector<Sums> by_run(rows.runs, Sums(rows));
    const auto add = [&](int64_t run, int64_t first, int64_t end) {
      Sums block(rows);
      rows.ForEachStrip(first, end, [&](int64_t start, int64_t size) {
        AddGradients(Values(dy) + start, Values(x) + start, norm, means, size, Values(dx) + start,
                     &block);
      });
      block.dz.Fold();
      block.product.Fold();
      by_run[run].Add(block, rows.channels);
    };
    // dx = scale * (dz - mean(dz) - x' * mean(dz * x')), x' being x normalised.
    ByColumn slope = rows.MakeColumns(), constant = rows.MakeColumns();
    const auto finish = [&] {
      for (int64_t run = 1; run < rows.runs; ++run) by_run[0].Add(by_run[run], rows.channels);
      const float count = std::max<int64_t>(rows.count, 1);
      for (int64_t c = 0; c < rows.channels; ++c) {
        const float inverse = statistics.InverseDeviation(c, epsilon_);
        Values(dbeta)[c] = by_run[0].dz[c];
        Values(dgamma)[c] = by_run[0].product[c] * inverse;
        slope[c] = -norm.scale[c] * inverse * Values(dgamma)[c] / count;
        constant[c] = -norm.scale[c] * Values(dbeta)[c] / count - slope[c] * means[c];
      }
      slope.Repeat();
      constant.Repeat();
      return true;
    };
    rows.InTwoPasses(add, finish, [&](int64_t start, int64_t size) {
      const float* __restrict scales = norm.scale.data();
      const float* __restrict slopes = slope.data();
      const float* __restrict constants = constant.data();
      const float* __restrict in = Values(x) + start;
      float* __restrict out = Values(dx) + start;
      for (int64_t i = 0; i < size; ++i) {
        out[i] = out[i] * scales[i] + in[i] * slopes[i] + constants[i];
      }
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

  float epsilon_;
};

}  // namespace effnetv2_tf

#endif  // EFFNETV2_TF_KERNELS_BATCH_NORM_H_
