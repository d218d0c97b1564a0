// What follows the sums of a convolution: nothing in training, where a norm sees them first; in a
// network for inference bias, activation and residual sum, while the sums are in a cache.

#ifndef EFFNETV2_TF_KERNELS_FINISH_H_
#define EFFNETV2_TF_KERNELS_FINISH_H_

#include <mutex>
#include <string>

#include "memory.h"
#include "rows.h"
#include "vectors.h"

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

// What follows a product. `Of`: values of neighbouring channels from `channel` on, a vector of them or
// a single one, that belong at `at` in the result. The operator: `count` channels of `rows` pixels,
// `step` elements from one to the next, that are at `at`.
struct Unfinished {
  template <class Values>
  Values Of(Values values, const float*, int64_t) const {
    return values;
  }
  void operator()(float*, int64_t, int64_t, int64_t, int64_t) const {}

  static constexpr bool kAdds = false;
  template <class Values>
  void Add(Values, int64_t) const {}
};

class Finished {
 public:
  // `skip`: images to add, which lie as those of the result, `y`, do; or null.
  Finished(const float* bias, Activation activation, const float* y = nullptr,
           const float* skip = nullptr)
      : bias_(bias), activation_(activation), y_(y), skip_(skip) {}

  template <class Values>
  Values Of(Values values, const float* at, int64_t channel) const {
    WithActivation([&](auto activation) {
      values = activation.Value(values + Load<Values>(bias_ + channel));
    });
    return AddSkip(values, at);
  }

  void operator()(float* at, int64_t step, int64_t rows, int64_t channel, int64_t count) const {
    WithActivation([&](auto activation) {
      ForEachVectorOnce(count, [&](int64_t c, auto zero) {
        using Values = decltype(zero);
        const Values bias = Load<Values>(bias_ + channel + c);
        float* to = at + c;
        for (int64_t i = 0; i < rows; ++i, to += step) {
          Store(AddSkip(activation.Value(Load<Values>(to) + bias), to), to);
        }
      });
    });
  }

 private:
  template <class Values>
  Values AddSkip(Values values, const float* at) const {
    return skip_ ? values + Load<Values>(skip_ + (at - y_)) : values;
  }

  template <class Work>
  void WithActivation(Work work) const {
    switch (activation_) {
      case Activation::kSilu:
        return work(Silu{});
      case Activation::kRelu6:
        return work(Relu6{});
      case Activation::kLinear:
        return work(Identity{});
    }
  }

  const float* const bias_;
  const Activation activation_;
  const float *const y_, *const skip_;
};

// A kernel in the order in which an operation's products take it. It is made when the kernel is
// first seen: a network for inference has it as a constant. One that is changed where it lies, as an
// array of NumPy's that an eager call shares may be, is not noticed.
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
