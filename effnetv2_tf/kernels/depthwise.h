// Depthwise convolutions of 3x3 and 5x5 pixels, padded as TensorFlow's "SAME", and both their
// gradients: float32 on CPUs, channels last. Some neighbouring pixels of a row at a time, so that each
// vector of channels that is loaded takes part in several sums.

#ifndef EFFNETV2_TF_KERNELS_DEPTHWISE_H_
#define EFFNETV2_TF_KERNELS_DEPTHWISE_H_

#include <type_traits>

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
// `distance`: from one pixel of the image to the next, with zeros between them.
template <int side, int stride, int distance>
class Window {
 public:
  Window(const Side& height, const Side& width, int64_t channels)
      : height_(height),
        width_(width),
        channels_(channels),
        columns_((width.outputs - 1) * stride + side),
        zeros_(channels),
        pixels_(side * columns_) {}

  void Move(const float* image, int64_t row) {
    const float** pixel = pixels_.data();
    for (int64_t i = 0; i < side; ++i) {
      const int64_t y = height_.Find<distance>(row * stride + i);
      for (int64_t j = 0; j < columns_; ++j, ++pixel) {
        const int64_t x = width_.Find<distance>(j);
        *pixel = x < 0 || y < 0 ? zeros_.data() : image + (y * width_.size + x) * channels_;
      }
    }
  }

  // The row of the result, with a kernel whose next tap lies `step` elements further.
  void Convolve(const float* kernel, int64_t step, float* to) const {
    ForEachBlock(width_.outputs, [&](auto pixels, int64_t x) {
      ForEachVector(channels_, [&](int64_t c, auto zero) {
        ConvolveBlock<pixels(), decltype(zero)>(&pixels_[x * stride], c, kernel + c, step,
                                                to + x * channels_ + c);
      });
    });
  }

  // Adds to the kernel's gradient what a row of the result's gradient gives, some pixels at a time.
  void Differentiate(const float* gradient, float* sums) const {
    ForEachBlock(width_.outputs, [&](auto pixels, int64_t x) {
      ForEachVectorOnce(channels_, [&](int64_t c, auto zero) {
        DifferentiateBlock<pixels(), decltype(zero)>(&pixels_[x * stride], c,
                                                     gradient + x * channels_ + c, sums + c);
      });
    });
  }

 private:
  template <int pixels, class Values>
  void ConvolveBlock(const float* const* from, int64_t c, const float* kernel, int64_t step,
                     float* to) const {
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
#pragma GCC unroll 8
    for (int p = 0; p < pixels; ++p) Store(sums[p], to + p * channels_);
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
  const int64_t channels_, columns_;
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

  // Rows of the result, all images' one after the other.
  void Convolve(std::pair<int64_t, int64_t> rows, const float* x, float* y) const {
    Window<side, stride, 1> window(height_, width_, channels_);
    for (int64_t row = rows.first; row < rows.second; ++row) {
      window.Move(x + row / height_.outputs * input_size(), row % height_.outputs);
      window.Convolve(kernel_, channels_, y + row * width_.outputs * channels_);
    }
  }

  // The images' gradient where these rows of the result lie, and their share of the kernel's.
  void Differentiate(std::pair<int64_t, int64_t> rows, const float* x, const float* dy, float* dx,
                     float* dkernel) const {
    Window<side, 1, stride> back(height_.TurnedRound(side), width_.TurnedRound(side), channels_);
    Window<side, stride, 1> window(height_, width_, channels_);
    const float* last = kernel_ + (kTaps - 1) * channels_;
    std::fill_n(dkernel, kTaps * channels_, 0.0f);
    for (int64_t row = rows.first; row < rows.second; ++row) {
      const int64_t image = row / height_.outputs, y = row % height_.outputs;
      window.Move(x + image * input_size(), y);
      window.Differentiate(dy + row * width_.outputs * channels_, dkernel);
      for (int64_t i = y * stride; i < std::min((y + 1) * stride, height_.size); ++i) {
        back.Move(dy + image * height_.outputs * width_.outputs * channels_, i);
        back.Convolve(last, -channels_, dx + image * input_size() + i * width_.size * channels_);
      }
    }
  }

 private:
  static constexpr int64_t kTaps = side * side;

  int64_t input_size() const { return height_.size * width_.size * channels_; }

  const int64_t count_, channels_;
  const Side height_, width_;
  const float* const kernel_;
};

// What both operations check, and how they find the code for their sizes.
class Operation : public StridedOperation {
 public:
  using StridedOperation::StridedOperation;

 protected:
  // Calls work(Batch) for images and a kernel.
  template <class Work>
  void With(OpKernelContext* context, const Tensor& x, const Tensor& kernel, Work work) const {
    const int64_t side = kernel.dims() == 4 ? kernel.dim_size(0) : 0;
    OP_REQUIRES(context,
                (side == 3 || side == 5) && kernel.dim_size(1) == side && kernel.dim_size(3) == 1,
                tensorflow::errors::InvalidArgument(
                    "expected a kernel shaped (3, 3, channels, 1) or (5, 5, channels, 1), received "
                    "a tensor shaped ", kernel.shape().DebugString()));
    OP_REQUIRES_OK(context, CheckChannels(x, kernel.dim_size(2)));
    const float* values = Values(kernel);
    if (side == 3 && stride() == 1) work(Batch<3, 1>(x, values));
    if (side == 3 && stride() == 2) work(Batch<3, 2>(x, values));
    if (side == 5 && stride() == 1) work(Batch<5, 1>(x, values));
    if (side == 5 && stride() == 2) work(Batch<5, 2>(x, values));
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
      const Pool& pool = *context->device()->tensorflow_cpu_worker_threads();
      const int64_t workers = ThreadsFor(x.NumElements(), pool);
      const int64_t pieces = Pieces(workers, batch.rows());
      Share(pool, workers, pieces, [&](int64_t i) {
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
      OP_REQUIRES(context, dy.shape() == batch.result_shape(),
                  tensorflow::errors::InvalidArgument(
                      "expected a gradient shaped ", batch.result_shape().DebugString(),
                      ", received ", dy.shape().DebugString()));
      Tensor *dx = nullptr, *dkernel = nullptr;
      OP_REQUIRES_OK(context, context->allocate_output(0, x.shape(), &dx));
      OP_REQUIRES_OK(context, context->allocate_output(1, kernel.shape(), &dkernel));
      const int64_t size = kernel.NumElements();
      std::fill_n(Values(dkernel), size, 0.0f);
      if (dx->NumElements() == 0) return;
      const Pool& pool = *context->device()->tensorflow_cpu_worker_threads();
      const int64_t workers = ThreadsFor(x.NumElements(), pool);
      const int64_t pieces = Pieces(workers, batch.rows());
      Tensor sums;
      OP_REQUIRES_OK(context, context->allocate_temp(tensorflow::DT_FLOAT,
                                                     TensorShape({pieces * size}), &sums));
      Share(pool, workers, pieces, [&](int64_t i) {
        batch.Differentiate(PartOf(batch.rows(), i, pieces), Values(x), Values(dy), Values(dx),
                            Values(&sums) + i * size);
      });
      for (int64_t i = 0; i < pieces; ++i) {
        const float* part = Values(&sums) + i * size;
        for (int64_t k = 0; k < size; ++k) Values(dkernel)[k] += part[k];
      }
    });
  }
};

}  // namespace depthwise
}  // namespace effnetv2_tf

#endif  // EFFNETV2_TF_KERNELS_DEPTHWISE_H_
