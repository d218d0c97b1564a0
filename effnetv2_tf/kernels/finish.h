// What follows the sums of a convolution: nothing in training, where a norm sees them first; in a
// network for inference bias, activation and residual sum, while the sums are in a cache.

#ifndef EFFNETV2_TF_KERNELS_FINISH_H_
#define EFFNETV2_TF_KERNELS_FINISH_H_

#include <mutex>
#include <string>

#include "memory.h"
#include "rows.h"

namespace effnetv2_tf {

enum class Activation { kLinear, kSilu, kRelu6 };

inline absl::Status GetActivation(OpKernelConstruction* context, Activation* activation) {
  std::string name;
  TF_RETURN_IF_ERROR(context->GetAttr("activation", &name));
  *activation = name == "silu"    ? Activation::kSilu
                : name == "relu6" ? Activation::kRelu6
                                  : Activation::kLinear;
  return absl::OkStatus();
}

// Called with `count` neighbouring channels of a pixel of the result, `at`, from `channel` on.
struct Unfinished {
  void operator()(float*, int64_t, int64_t) const {}
};

class Finished {
 public:
  // `skip`: images to add, which lie as those of the result, `y`, do; or null.
  Finished(const float* bias, Activation activation, const float* y = nullptr,
           const float* skip = nullptr)
      : bias_(bias), activation_(activation), y_(y), skip_(skip) {}

  void operator()(float* __restrict at, int64_t channel, int64_t count) const {
    const float* __restrict bias = bias_ + channel;
    switch (activation_) {
      case Activation::kSilu:
        for (int64_t c = 0; c < count; ++c) at[c] = Silu::Value(at[c] + bias[c]);
        break;
      case Activation::kRelu6:
        for (int64_t c = 0; c < count; ++c) at[c] = std::min(std::max(at[c] + bias[c], 0.0f), 6.0f);
        break;
      case Activation::kLinear:
        for (int64_t c = 0; c < count; ++c) at[c] += bias[c];
    }
    if (!skip_) return;
    const float* __restrict skip = skip_ + (at - y_);
    for (int64_t c = 0; c < count; ++c) at[c] += skip[c];
  }

 private:
  const float* const bias_;
  const Activation activation_;
  const float *const y_, *const skip_;
};

// A kernel in the order in which an operation's products take it. It is made when the kernel is
// first seen: a network for inference has it as a constant.
class Prepared {
 public:
  using Values = std::shared_ptr<const float[]>;

  // The values, `size` of them, which make(to) makes.
  template <class Make>
  Values Get(const Tensor& kernel, int64_t size, Make make) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto data = [](const Tensor& tensor) { return tensor.tensor_data().data(); };
    if (!values_ || data(of_) != data(kernel) || of_.shape() != kernel.shape()) {
      auto values = Uninitialized(size);
      make(values.get());
      values_ = std::move(values);
      of_ = kernel;  // kept: nothing else can come to lie in its place, or be written there
    }
    return values_;
  }

 private:
  std::mutex mutex_;
  Tensor of_;
  Values values_;
};

}  // namespace effnetv2_tf

#endif  // EFFNETV2_TF_KERNELS_FINISH_H_
