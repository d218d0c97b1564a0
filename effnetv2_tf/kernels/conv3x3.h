// 3x3 convolutions with stride 1, padded to the same size, and both their gradients, by Winograd's
// algorithm: float32 on CPUs, channels last. TensorFlow's run at the rate of the processor's matrix
// products; these need a quarter of the multiplications.

#ifndef EFFNETV2_TF_KERNELS_CONV3X3_H_
#define EFFNETV2_TF_KERNELS_CONV3X3_H_

#include "tiles.h"

namespace effnetv2_tf {
namespace winograd {

constexpr int64_t kCacheBytes = 1 << 19;

// Stores values at the points, `step` elements from one point to the next.
inline auto StoreAt(float* to, int64_t step) {
  return [=](int i, int j, auto values) { Store(values, to + (i * kSide + j) * step); };
}

// A block's tiles of the input at the points: matrices (block, channels), one for each point.
inline void TransformInput(const Tiled& images, const float* x, int64_t first, int64_t tiles,
                           int64_t block, float* copy, float* to) {
  const int64_t channels = images.channels, point = block * channels;
  for (int64_t t = 0; t < tiles; ++t) {
    const float* rows[kSide];
    images.Read(x, first + t, 1, copy, rows);
    ForEachVector(channels, [&](int64_t c, auto zero) {
      using Values = decltype(zero);
      float* at = to + t * channels + c;
      ToPoints<Values>(
          kOfInput, [&](int i, int j) { return Load<Values>(rows[i] + j * channels + c); },
          StoreAt(at, point));
    });
  }
}

// A row of a kernel's matrices (rows, columns) at the points, in panels, of this row's part of the
// kernel.
inline void TransformKernelRow(const float* const (&taps)[kKernel][kKernel], int64_t row,
                               int64_t rows, const Panels& panels, float* to) {
  const int64_t point = rows * panels.width();
  panels.ForEachVector([&](int64_t column, auto part) {
    float* at = to + panels.Find(row, column, rows);
    ToPoints<Vector>(
        kOfKernel, [&](int i, int j) { return part.Load(taps[i][j] + column); },
        StoreAt(at, point));
  });
}

// The convolution of some tiles with a kernel at the points.
class Convolution {
 public:
  Convolution(const Tiled& images, const float* x, const float* kernel, const Panels& panels,
              float* y)
      : images_(images),
        outputs_(images.With(panels.columns)),
        panels_(panels),
        x_(x),
        kernel_(kernel),
        y_(y) {}

  void Compute(std::pair<int64_t, int64_t> tiles) const {
    const int64_t channels = images_.channels;
    const Range range(tiles, channels, kCacheBytes);
    const auto copy = Uninitialized(kPoints * std::max(channels, panels_.columns));
    const auto inputs = Uninitialized(kPoints * range.block * channels);
    const auto products = Uninitialized(kPoints * range.block * kWidest * kWidth);
    range.ForEachBlock([&](int64_t first, int64_t count) {
      TransformInput(images_, x_, first, count, range.block, copy.get(), inputs.get());
      panels_.ForEach([&](int64_t column, int64_t vectors) {
        MultiplyPanel(inputs.get(), count, range.block, column, vectors, products.get());
        for (int64_t t = 0; t < count; ++t) {
          const int64_t width = vectors * kWidth;
          Finish(&products[t * width], range.block * width, first + t, column,
                 std::min(column + width, panels_.columns), copy.get());
        }
      });
    });
  }

 private:
  void MultiplyPanel(const float* inputs, int64_t count, int64_t block, int64_t column,
                     int64_t vectors, float* products) const {
    const int64_t channels = images_.channels;
    for (int point = 0; point < kPoints; ++point) {
      const float* panel = kernel_ + (point * panels_.width() + column) * channels;
      for (int64_t row = point * block; row < point * block + count; row += kRows) {
        Multiply<false>({inputs + row * channels, channels, 1, channels}, panel, vectors,
                        products + row * vectors * kWidth);
      }
    }
  }

  // A tile's channels from `first` to before `end`, of their products, `point` elements apart.
  void Finish(const float* products, int64_t point, int64_t tile, int64_t first, int64_t end,
              float* copy) const {
    const int64_t channels = panels_.columns;
    float* rows[kTile];
    outputs_.FindRows(y_, tile, copy, rows);
    ForEachVector(end - first, [&](int64_t c, auto zero) {
      using Values = decltype(zero);
      FromPoints<Values>(
          kOfOutput,
          [&](int i, int j) { return Load<Values>(products + (i * kSide + j) * point + c); },
          [&](int i, int j, Values values) { Store(values, rows[i] + j * channels + first + c); });
    });
    outputs_.TakeOver(copy, tile, first, end, y_);
  }

  const Tiled images_, outputs_;
  const Panels panels_;
  const float *const x_, *const kernel_;
  float* const y_;
};

// The gradient of a kernel, of sums that some tiles each add to: matrices (rows, columns), one for
// each point, in panels. There are some rows more than channels.
class KernelGradient {
 public:
  KernelGradient(const Tiled& images, const float* x, const float* dy, const Panels& panels)
      : images_(images),
        outputs_(images.With(panels.columns)),
        panels_(panels),
        rows_(RoundUp(images.channels, kRows)),
        x_(x),
        dy_(dy) {}

  // Elements of the sums.
  int64_t size() const { return kPoints * rows_ * panels_.width(); }

  void Sum(std::pair<int64_t, int64_t> tiles, float* sums) const {
    const int64_t channels = images_.channels, width = panels_.width();
    const Range range(tiles, channels + width, 2 * kCacheBytes);
    const auto copy = Uninitialized(kPoints * std::max(channels, panels_.columns));
    // Beyond the channels of the last tile are those of nobody's rows.
    const auto inputs = Uninitialized(kPoints * range.block * channels + kRows);
    const auto gradients = Uninitialized(kPoints * range.block * width);
    range.ForEachBlock([&](int64_t first, int64_t count) {
      TransformInput(images_, x_, first, count, range.block, copy.get(), inputs.get());
      TransformOutput(first, count, range.block, copy.get(), gradients.get());
      const auto multiply = first > tiles.first ? Multiply<true> : Multiply<false>;
      for (int point = 0; point < kPoints; ++point) {
        panels_.ForEach([&](int64_t column, int64_t vectors) {
          const float* panel = &gradients[(point * width + column) * range.block];
          float* to = sums + (point * width + column) * rows_;
          for (int64_t c = 0; c < channels; c += kRows) {
            multiply({&inputs[point * range.block * channels + c], 1, channels, count}, panel,
                     vectors, to + c * vectors * kWidth);
          }
        });
      }
    });
  }

  // The gradient (3, 3, channels, columns) of `parts` sums, one after the other.
  void Finish(const float* sums, int64_t parts, float* to) const {
    const int64_t point = rows_ * panels_.width();
    for (int64_t c = 0; c < images_.channels; ++c) {
      panels_.ForEachVector([&](int64_t column, auto part) {
        const float* at = sums + panels_.Find(c, column, rows_);
        const auto add_parts = [&](int i, int j) {
          Vector sum{};
          for (int64_t k = 0; k < parts; ++k) {
            sum += Load<Vector>(at + k * size() + (i * kSide + j) * point);
          }
          return sum;
        };
        FromPoints<Vector>(kOfKernel, add_parts, [&](int i, int j, Vector values) {
          const int64_t row = (i * kKernel + j) * images_.channels + c;
          part.Store(values, to + row * panels_.columns + column);
        });
      });
    }
  }

 private:
  // A block's tiles of the output's gradient at the points: matrices (block, columns) in panels.
  void TransformOutput(int64_t first, int64_t count, int64_t block, float* copy, float* to) const {
    const int64_t channels = panels_.columns, point = block * panels_.width();
    for (int64_t t = 0; t < count; ++t) {
      const float* rows[kTile];
      outputs_.Read(dy_, first + t, 0, copy, rows);
      panels_.ForEachVector([&](int64_t column, auto part) {
        float* at = to + panels_.Find(t, column, block);
        ToPoints<Vector>(
            kOfOutput, [&](int i, int j) { return part.Load(rows[i] + j * channels + column); },
            StoreAt(at, point));
      });
    }
  }

  const Tiled images_, outputs_;
  const Panels panels_;
  const int64_t rows_;
  const float *const x_, *const dy_;
};

inline absl::Status CheckKernel(const Tensor& kernel) {
  if (kernel.dims() == 4 && kernel.dim_size(0) == kKernel && kernel.dim_size(1) == kKernel) {
    return absl::OkStatus();
  }
  return tensorflow::errors::InvalidArgument("expected a kernel of 3x3, received a tensor shaped ",
                                             kernel.shape().DebugString());
}

// A convolution costs more for each element than a norm, for which the threads are reckoned.
inline int64_t ConvolutionThreads(int64_t elements, const Pool& pool) {
  return ThreadsFor(4 * elements, pool);
}

class Conv3x3 : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* context) override {
    const Tensor &x = context->input(0), &kernel = context->input(1);
    OP_REQUIRES_OK(context, CheckKernel(kernel));
    OP_REQUIRES_OK(context, CheckChannels(x, kernel.dim_size(2)));
    const int64_t channels = kernel.dim_size(2);
    const Panels panels(kernel.dim_size(3));
    TensorShape shape = x.shape();
    shape.set_dim(3, panels.columns);
    Tensor* y = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, shape, &y));
    if (y->NumElements() == 0) return;
    Tensor transformed;
    const TensorShape size({kPoints * channels * panels.width()});
    OP_REQUIRES_OK(context, context->allocate_temp(tensorflow::DT_FLOAT, size, &transformed));

    const Convolution convolution(Tiled(x), Values(x), Values(transformed), panels, Values(y));
    const int64_t tiles = Tiled(x).tiles();
    const Pool& pool = *context->device()->tensorflow_cpu_worker_threads();
    const int64_t workers = ConvolutionThreads(y->NumElements(), pool);
    const int64_t pieces = PiecesFor(workers);
    const auto transform = [&](int64_t part) {
      const auto [first, end] = PartOf(channels, part, workers);
      for (int64_t c = first; c < end; ++c) {
        const float* taps[kKernel][kKernel];
        for (int i = 0; i < kKernel * kKernel; ++i) {
          taps[i / kKernel][i % kKernel] = Values(kernel) + (i * channels + c) * panels.columns;
        }
        TransformKernelRow(taps, c, channels, panels, Values(&transformed));
      }
    };
    const auto convolve = [&](int64_t i) { convolution.Compute(PartOf(tiles, i, pieces)); };
    ShareTwice(pool, workers, workers, transform, [] { return true; }, pieces, convolve);
  }
};

// The gradients of the image, which is a convolution with the kernel turned round, and of the kernel.
class Conv3x3Grad : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* context) override {
    const Tensor &dy = context->input(0), &x = context->input(1), &kernel = context->input(2);
    OP_REQUIRES_OK(context, CheckKernel(kernel));
    OP_REQUIRES_OK(context, CheckChannels(x, kernel.dim_size(2)));
    OP_REQUIRES_OK(context, CheckChannels(dy, kernel.dim_size(3)));
    const Panels inputs(kernel.dim_size(2)), outputs(kernel.dim_size(3));
    Tensor *dx = nullptr, *dkernel = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, x.shape(), &dx));
    OP_REQUIRES_OK(context, context->allocate_output(1, kernel.shape(), &dkernel));
    if (x.NumElements() == 0 || dy.NumElements() == 0) {
      std::fill_n(Values(dx), dx->NumElements(), 0.0f);
      std::fill_n(Values(dkernel), dkernel->NumElements(), 0.0f);
      return;
    }
    const Tiled images(x);
    const KernelGradient gradient(images, Values(x), Values(dy), outputs);
    const Pool& pool = *context->device()->tensorflow_cpu_worker_threads();
    const int64_t workers = ConvolutionThreads(dy.NumElements(), pool);
    Tensor turned, sums;
    OP_REQUIRES_OK(context, Allocate(context, kPoints * outputs.columns * inputs.width(), &turned));
    OP_REQUIRES_OK(context, Allocate(context, workers * gradient.size(), &sums));
    const Convolution convolution(images.With(outputs.columns), Values(dy), Values(turned), inputs,
                                  Values(dx));

    const auto turn = [&](int64_t part) {
      const auto [first, end] = PartOf(outputs.columns, part, workers);
      for (int64_t k = first; k < end; ++k) {
        TurnKernelRow(Values(kernel), k, inputs, outputs.columns, Values(&turned));
      }
    };
    // Sums first, which are few and take long. Who makes the last of them finishes them.
    std::atomic<int64_t> missing_sums{workers};
    const int64_t pieces = PiecesFor(workers);
    const auto differentiate = [&](int64_t i) {
      if (i >= workers) {
        convolution.Compute(PartOf(images.tiles(), i - workers, pieces));
        return;
      }
      gradient.Sum(PartOf(images.tiles(), i, workers), Values(&sums) + i * gradient.size());
      if (--missing_sums == 0) gradient.Finish(Values(sums), workers, Values(dkernel));
    };
    ShareTwice(pool, workers, workers, turn, [] { return true; }, workers + pieces, differentiate);
  }

 private:
  static absl::Status Allocate(OpKernelContext* context, int64_t size, Tensor* to) {
    return context->allocate_temp(tensorflow::DT_FLOAT, TensorShape({size}), to);
  }

  // Row `k` of the kernel turned round: (3, 3, outputs, inputs).
  static void TurnKernelRow(const float* kernel, int64_t k, const Panels& inputs, int64_t outputs,
                            float* to) {
    std::vector<float> row(kKernel * kKernel * inputs.columns);
    const float* taps[kKernel][kKernel];
    for (int i = 0; i < kKernel * kKernel; ++i) {
      float* tap = &row[i * inputs.columns];
      const float* from = kernel + (kKernel * kKernel - 1 - i) * inputs.columns * outputs + k;
      for (int64_t c = 0; c < inputs.columns; ++c) tap[c] = from[c * outputs];
      taps[i / kKernel][i % kKernel] = tap;
    }
    TransformKernelRow(taps, k, outputs, inputs, to);
  }
};

}  // namespace winograd
}  // namespace effnetv2_tf

#endif  // EFFNETV2_TF_KERNELS_CONV3X3_H_
