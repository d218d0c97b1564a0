// Depthwise convolutions of 3x3 and 5x5 pixels, padded as TensorFlow's "SAME", and both their
// gradients: float32 on CPUs, channels last. Some neighbouring pixels of a row at a time, so that each
// vector of channels that is loaded takes part in several sums.

#ifndef EFFNETV2_TF_KERNELS_DEPTHWISE_H_
#define EFFNETV2_TF_KERNELS_DEPTHWISE_H_

#include <type_traits>

#include "finish.h"
#include "products.h"
#include "strided.h"

namespace effnetv2_tf {
namespace depthwise {

// Calls work(pixels, first pixel) for blocks of a row's pixels, as large as there are, up to 8.
template <class Work>
void ForEachBlock(int64_t pixels, Work work) {
  int64_t x = 0;
  for (; x + 8 <= pixels; x += 8) work(std::integral_constant<int, 8>{}, x);
  for (; x + 4 <= pixels; x += 4) work(std::integral_constant<int, 4>{}, x);
  for (; x < pixels; ++x) work(std::integral_constant<int, 1>{}, x);
}

// A vector of channels of each of some pixels.
template <class Values, int pixels>
class Run {
 public:
  __attribute__((always_inline)) Run(const float* const* from, int64_t channel) {
#pragma GCC unroll 19
    for (int i = 0; i < pixels; ++i) values_[i] = Load<Values>(from[i] + channel);
  }

  Values operator[](int i) const { return values_[i]; }

 private:
  Values values_[pixels];
};

// Where the pixels lie that a row of the result is made of: kernel rows, each of a row's columns.
// `distance`: from one pixel of the image to the next, with zeros between them. Of each pixel some
// neighbouring channels, to which all pointers point. `step`: from one pixel of the result to the
// next, as far as from one pixel of the image to the next where nothing is said.
template <int side, int stride, int distance>
class Window {
 public:
  Window(const Side& height, const Side& width, int64_t channels, int64_t count)
      : Window(height, width, channels, count, channels) {}

  Window(const Side& height, const Side& width, int64_t channels, int64_t count, int64_t step)
      : height_(height),
        width_(width),
        channels_(channels),
        count_(count),
        step_(step),
        columns_((width.outputs - 1) * stride + side),
        zeros_(count),
        pixels_(side * columns_) {}

  // `top`: the first row of the image that is there.
  void Move(const float* image, int64_t row, int64_t top = 0) {
    const float** pixel = pixels_.data();
    for (int64_t i = 0; i < side; ++i) {
      const int64_t y = height_.Find<distance>(row * stride + i);
      for (int64_t j = 0; j < columns_; ++j, ++pixel) {
        const int64_t x = width_.Find<distance>(j);
        *pixel = x < 0 || y < 0 ? zeros_.data() : image + ((y - top) * width_.size + x) * channels_;
      }
    }
  }

  // The row of the result, with a kernel whose next tap lies `step` elements further. `finish` also
  // has Add(sum, channel), called with sums of neighbouring pixels' values: where it adds them up,
  // each channel's pixels are once among them.
  template <class Finish = Unfinished>
  void Convolve(const float* kernel, int64_t step, float* to, const Finish& finish = {}) const {
    ForEachBlock(width_.outputs, [&](auto pixels, int64_t x) {
      const auto convolve = [&](int64_t c, auto zero) {
        ConvolveBlock<pixels(), decltype(zero)>(&pixels_[x * stride], c, kernel + c, step,
                                                to + x * step_ + c, finish);
      };
      if constexpr (Finish::kAdds) {
        ForEachVectorOnce(count_, convolve);
      } else {
        ForEachVector(count_, convolve);
      }
    });
  }

  // Adds to the kernel's gradient what a row of the result's gradient gives, some pixels at a time.
  void Differentiate(const float* gradient, float* sums) const {
    ForEachBlock(width_.outputs, [&](auto pixels, int64_t x) {
      ForEachVectorOnce(count_, [&](int64_t c, auto zero) {
        DifferentiateBlock<pixels(), decltype(zero)>(&pixels_[x * stride], c,
                                                     gradient + x * channels_ + c, sums + c);
      });
    });
  }

 private:
  template <int pixels, class Values, class Finish>
  void ConvolveBlock(const float* const* from, int64_t c, const float* kernel, int64_t step,
                     float* to, const Finish& finish) const {
    Values sums[pixels] = {};
#pragma GCC unroll 5
    for (int i = 0; i < side; ++i, from += columns_) {
      const Run<Values, (pixels - 1) * stride + side> row(from, c);
#pragma GCC unroll 5
      for (int j = 0; j < side; ++j, kernel += step) {
        const Values factor = Load<Values>(kernel);
#pragma GCC unroll 8
        for (int p = 0; p < pixels; ++p) sums[p] += factor * row[p * stride + j];
      }
    }
    Values total{};
#pragma GCC unroll 8
    for (int p = 0; p < pixels; ++p, to += step_) {
      const Values values = finish.Of(sums[p], to, c);
      Store(values, to);
      total += values;
    }
    finish.Add(total, c);
  }

  template <int pixels, class Values>
  void DifferentiateBlock(const float* const* from, int64_t c, const float* gradient,
                          float* to) const {
    Values slopes[pixels];
#pragma GCC unroll 8
    for (int p = 0; p < pixels; ++p) slopes[p] = Load<Values>(gradient + p * channels_);
#pragma GCC unroll 5
    for (int i = 0; i < side; ++i, from += columns_) {
      const Run<Values, (pixels - 1) * stride + side> row(from, c);
#pragma GCC unroll 5
      for (int j = 0; j < side; ++j, to += channels_) {
        Values sum = slopes[0] * row[j];
#pragma GCC unroll 8
        for (int p = 1; p < pixels; ++p) sum += slopes[p] * row[p * stride + j];
        Store(Load<Values>(to) + sum, to);
      }
    }
  }

  const Side height_, width_;
  const int64_t channels_, count_, step_, columns_;
  const std::vector<float> zeros_;
  std::vector<const float*> pixels_;
};

// A batch of images and their convolutions, row of the result by row.
template <int side, int stride>
class Batch {
 public:
  Batch(const Tensor& images, const float* kernel)
      : count_(images.dim_size(0)),
        channels_(images.dim_size(3)),
        height_(Side::Same(images.dim_size(1), side, stride)),
        width_(Side::Same(images.dim_size(2), side, stride)),
        kernel_(kernel) {}

  TensorShape result_shape() const {
    return TensorShape({count_, height_.outputs, width_.outputs, channels_});
  }
  int64_t rows() const { return count_ * height_.outputs; }
  int64_t images() const { return count_; }
  int64_t pixels() const { return height_.outputs * width_.outputs; }  // of a result

  // Rows of the result, all images' one after the other.
  template <class Finish = Unfinished>
  void Convolve(std::pair<int64_t, int64_t> rows, const float* x, float* y,
                const Finish& finish = {}) const {
    Window<side, stride, 1> window(height_, width_, channels_, channels_);
    for (int64_t row = rows.first; row < rows.second; ++row) {
      window.Move(x + row / height_.outputs * input_size(), row % height_.outputs);
      window.Convolve(kernel_, channels_, y + row * width_.outputs * channels_, finish);
    }
  }

  // Of some channels the images' gradient where these rows of the result lie, and their share of the
  // kernel's.
  void Differentiate(std::pair<int64_t, int64_t> rows, std::pair<int64_t, int64_t> channels,
                     const float* x, const float* dy, float* dx, float* dkernel) const {
    const auto [first, end] = channels;
    Window<side, 1, stride> back(height_.TurnedRound(side), width_.TurnedRound(side), channels_,
                                 end - first);
    Window<side, stride, 1> window(height_, width_, channels_, end - first);
    const float* last = kernel_ + (kTaps - 1) * channels_ + first;
    for (int64_t tap = 0; tap < kTaps; ++tap) {
      std::fill(dkernel + tap * channels_ + first, dkernel + tap * channels_ + end, 0.0f);
    }
    for (int64_t row = rows.first; row < rows.second; ++row) {
      const int64_t image = row / height_.outputs, y = row % height_.outputs;
      const float* slopes = dy + image * output_size() + first;
      window.Move(x + image * input_size() + first, y);
      window.Differentiate(slopes + y * width_.outputs * channels_, dkernel + first);
      for (int64_t i = y * stride; i < std::min((y + 1) * stride, height_.size); ++i) {
        back.Move(slopes, i);
        back.Convolve(last, -channels_,
                      dx + image * input_size() + i * width_.size * channels_ + first);
      }
    }
  }

 private:
  static constexpr int64_t kTaps = side * side;

  int64_t input_size() const { return height_.size * width_.size * channels_; }
  int64_t output_size() const { return height_.outputs * width_.outputs * channels_; }

  const int64_t count_, channels_;
  const Side height_, width_;
  const float* const kernel_;
};

// Channels in slices of whole vectors, the last one with what is left over.
class Slices {
 public:
  explicit Slices(int64_t channels)
      : channels_(channels), count_(std::max<int64_t>(1, channels / kLeast)) {}

  int64_t count() const { return count_; }

  std::pair<int64_t, int64_t> operator[](int64_t i) const {
    const auto [first, end] = PartOf(channels_ / kWidth, i, count_);
    return {first * kWidth, i + 1 == count_ ? channels_ : end * kWidth};
  }

 private:
  static constexpr int64_t kLeast = 128;  // channels, whose sums for a kernel stay in a cache

  const int64_t channels_, count_;
};

// What both operations check, and how they find the code for their sizes.
class Operation : public StridedOperation {
 public:
  using StridedOperation::StridedOperation;

 protected:
  // The side of a kernel and the stride, as constants.
  template <int side_, int stride_>
  struct Form {
    static constexpr int side = side_, stride = stride_;
  };

  // Calls work(Batch) for images and a kernel.
  template <class Work>
  void With(OpKernelContext* context, const Tensor& x, const Tensor& kernel, Work work) const {
    WithForm(context, kernel, [&](auto form) {
      OP_REQUIRES_OK(context, CheckChannels(x, kernel.dim_size(2)));
      work(Batch<form.side, form.stride>(x, Values(kernel)));
    });
  }

  // Calls work(Form) for a kernel.
  template <class Work>
  void WithForm(OpKernelContext* context, const Tensor& kernel, Work work) const {
    const int64_t side = kernel.dims() == 4 ? kernel.dim_size(0) : 0;
    OP_REQUIRES(context,
                (side == 3 || side == 5) && kernel.dim_size(1) == side && kernel.dim_size(3) == 1,
                tensorflow::errors::InvalidArgument(
                    "expected a kernel shaped (3, 3, channels, 1) or (5, 5, channels, 1), received "
                    "a tensor shaped ", kernel.shape().DebugString()));
    if (side == 3 && stride() == 1) work(Form<3, 1>());
    if (side == 3 && stride() == 2) work(Form<3, 2>());
    if (side == 5 && stride() == 1) work(Form<5, 1>());
    if (side == 5 && stride() == 2) work(Form<5, 2>());
  }

  static int64_t Pieces(int64_t workers, int64_t rows) {
    return std::min(rows, PiecesFor(workers));
  }
};

class DepthwiseConv : public Operation {
 public:
  using Operation::Operation;

  void Compute(OpKernelContext* context) override {
    const Tensor &x = context->input(0), &kernel = context->input(1);
    With(context, x, kernel, [&](const auto& batch) {
      Tensor* y = nullptr;
      OP_REQUIRES_OK(context, context->allocate_output(0, batch.result_shape(), &y));
      if (y->NumElements() == 0) return;
      const int64_t workers = ThreadsFor(x.NumElements(), context);
      const int64_t pieces = Pieces(workers, batch.rows());
      Share(workers, pieces, [&](int64_t i) {
        batch.Convolve(PartOf(batch.rows(), i, pieces), Values(x), Values(y));
      });
    });
  }
};

// The gradients of the images, which are convolutions with the kernel turned round, and of the
// kernel, of sums that some rows each add to.
class DepthwiseConvGrad : public Operation {
 public:
  using Operation::Operation;

  void Compute(OpKernelContext* context) override {
    const Tensor &dy = context->input(0), &x = context->input(1), &kernel = context->input(2);
    With(context, x, kernel, [&](const auto& batch) {
      OP_REQUIRES_OK(context, CheckShape(dy, batch.result_shape()));
      Tensor *dx = nullptr, *dkernel = nullptr;
      OP_REQUIRES_OK(context, context->allocate_output(0, x.shape(), &dx));
      OP_REQUIRES_OK(context, context->allocate_output(1, kernel.shape(), &dkernel));
      const int64_t size = kernel.NumElements();
      if (dx->NumElements() == 0) {
        std::fill_n(Values(dkernel), size, 0.0f);
        return;
      }
      // Pieces of channels need no sums of sums. Rows are shared where channels are few.
      const int64_t workers = ThreadsFor(x.NumElements(), context);
      const Slices slices(kernel.dim_size(2));
      const int64_t most = (PiecesFor(workers) + slices.count() - 1) / slices.count();
      const int64_t parts = std::min(batch.rows(), most);
      Tensor sums;
      OP_REQUIRES_OK(context, Allocate(context, (parts - 1) * size, &sums));
      const auto sum = [&](int64_t part) {
        return part == 0 ? Values(dkernel) : Values(&sums) + (part - 1) * size;
      };
      Share(workers, parts * slices.count(), [&](int64_t i) {
        const int64_t part = i / slices.count();
        batch.Differentiate(PartOf(batch.rows(), part, parts), slices[i % slices.count()],
                            Values(x), Values(dy), Values(dx), sum(part));
      });
      for (int64_t part = 1; part < parts; ++part) {
        for (int64_t k = 0; k < size; ++k) Values(dkernel)[k] += sum(part)[k];
      }
    });
  }
};

}  // namespace depthwise
}  // namespace effnetv2_tf

#endif  // EFFNETV2_TF_KERNELS_DEPTHWISE_H_
