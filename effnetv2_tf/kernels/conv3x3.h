// 3x3 convolutions with stride 1 or 2, padded as TensorFlow's "SAME", and both their gradients, by
// Winograd's algorithm: float32 on CPUs, channels last. TensorFlow's run at the rate of the
// processor's matrix products; these need a quarter of the multiplications, with stride 2 nine
// sixteenths.

#ifndef EFFNETV2_TF_KERNELS_CONV3X3_H_
#define EFFNETV2_TF_KERNELS_CONV3X3_H_

#include "finish.h"
#include "tiles.h"

namespace effnetv2_tf {
namespace winograd {

// Stores values at the points of a side, `step` elements from one point to the next.
template <int points>
auto StoreAt(float* to, int64_t step) {
  return [=](int i, int j, auto values) { Store(values, to + (i * points + j) * step); };
}

// A block's tiles of the input at the points: matrices (block, channels), one for each point.
template <class Algorithm>
void TransformInput(const Tiled& images, const float* x, int64_t first, int64_t tiles,
                    int64_t block, float* copy, float* to) {
  const int64_t channels = images.channels, point = block * channels;
  for (int64_t t = 0; t < tiles; ++t) {
    const float* rows[kInputSideOf<Algorithm>];
    images.Read(x, first + t, copy, rows);
    ForEachVector(channels, [&](int64_t c, auto zero) {
      using Values = decltype(zero);
      float* at = to + t * channels + c;
      ToPoints<Values, Algorithm::kPaired>(
          Algorithm::kOfInput,
          [&](int i, int j) { return Load<Values>(rows[i] + j * channels + c); },
          StoreAt<kPointsOf<Algorithm>>(at, point));
    });
  }
}

// A row of a kernel's matrices (rows, columns) at the points, in panels, of this row's part of the
// kernel.
template <class Algorithm>
void TransformKernelRow(const float* const (&taps)[kKernel][kKernel], int64_t row, int64_t rows,
                        const Panels& panels, float* to) {
  const int64_t point = rows * panels.width();
  panels.ForEachVector([&](int64_t column, auto part) {
    float* at = to + panels.Find(row, column, rows);
    ToPoints<Vector, Algorithm::kPaired>(
        Algorithm::kOfKernel, [&](int i, int j) { return part.Load(taps[i][j] + column); },
        StoreAt<Algorithm::kFactors>(at, point));
  });
}

// Some rows of a kernel's (3, 3, channels, columns) matrices at the points.
template <class Algorithm>
void TransformKernel(const float* kernel, int64_t channels, std::pair<int64_t, int64_t> rows,
                     const Panels& panels, float* to) {
  for (int64_t c = rows.first; c < rows.second; ++c) {
    const float* taps[kKernel][kKernel];
    for (int i = 0; i < kKernel * kKernel; ++i) {
      taps[i / kKernel][i % kKernel] = kernel + (i * channels + c) * panels.columns;
    }
    TransformKernelRow<Algorithm>(taps, c, channels, panels, to);
  }
}

// The convolution of some tiles with a kernel at the points.
template <class Algorithm, class Finish = Unfinished>
class Convolution {
 public:
  Convolution(const Tiled& images, const float* x, const float* kernel, const Tiled& outputs,
              float* y, const Finish& finish = {})
      : images_(images),
        outputs_(outputs),
        panels_(outputs.channels),
        x_(x),
        kernel_(kernel),
        y_(y),
        finish_(finish) {}

  void Compute(std::pair<int64_t, int64_t> tiles) const {
    const int64_t channels = images_.channels, widest = kWidest * kWidth;
    const Range range(tiles, kPoints * (channels + widest));
    const auto copy = Uninitialized(kPoints * std::max(channels, panels_.columns));
    const auto inputs = Uninitialized(kPoints * range.block * channels);
    const auto products = Uninitialized(kPoints * range.block * widest);
    range.ForEachBlock([&](int64_t first, int64_t count) {
      TransformInput<Algorithm>(images_, x_, first, count, range.block, copy.get(), inputs.get());
      panels_.ForEach([&](const Panel& panel) {
        MultiplyPanel(inputs.get(), count, range.block, panel, products.get());
        for (int64_t t = 0; t < count; ++t) {
          const int64_t width = panel.vectors * kWidth;
          FinishTile(&products[t * width], range.block * width, first + t, panel, copy.get());
        }
      });
    });
  }

 private:
  static constexpr int kSide = kPointsOf<Algorithm>, kPoints = kSide * kSide;

  void MultiplyPanel(const float* inputs, int64_t count, int64_t block, const Panel& panel,
                     float* products) const {
    const int64_t channels = images_.channels, width = panel.vectors * kWidth;
    for (int point = 0; point < kPoints; ++point) {
      const int64_t factor = FactorOf<Algorithm>(point / kSide, point % kSide);
      const float* kernel = kernel_ + (factor * panels_.width() + panel.column) * channels;
      for (int64_t row = point * block; row < point * block + count; row += kRows) {
        Multiply<false>({inputs + row * channels, channels, 1, channels}, kernel, panel.vectors,
                        products + row * width, width);
      }
    }
  }

  // A tile's channels of a panel, of their products, `point` elements apart.
  void FinishTile(const float* products, int64_t point, int64_t tile, const Panel& panel,
                  float* copy) const {
    constexpr int side = kOutputSideOf<Algorithm>;
    const int64_t first = panel.column;
    float* rows[side];
    outputs_.FindRows(y_, tile, copy, rows);
    if (outputs_.template IsInside<side>(tile)) {
      Transform(products, point, panel, rows, [&](auto values, float* at, int64_t channel) {
        Store(finish_.Of(values, at, channel), at);
      });
      return;
    }
    Transform(products, point, panel, rows,
              [](auto values, float* at, int64_t) { Store(values, at); });
    outputs_.template TakeOver<side>(copy, tile, first, first + panel.columns, y_);
    outputs_.template ForEachPixel<side>(
        y_, tile, [&](float* pixel) { finish_(pixel + first, 0, 1, first, panel.columns); });
  }

  // Calls put(values, at, channel) for the vectors of the pixels of a tile's rows.
  template <class Put>
  void Transform(const float* products, int64_t point, const Panel& panel,
                 float* const (&rows)[kOutputSideOf<Algorithm>], Put put) const {
    ForEachVector(panel.columns, [&](int64_t c, auto zero) {
      using Values = decltype(zero);
      const int64_t channel = panel.column + c;
      FromPoints<Values, Algorithm::kPaired>(
          Algorithm::kOfOutput,
          [&](int i, int j) { return Load<Values>(products + (i * kSide + j) * point + c); },
          [&](int i, int j, Values values) {
            put(values, rows[i] + j * panels_.columns + channel, channel);
          });
    });
  }

  const Tiled images_, outputs_;
  const Panels panels_;
  const float *const x_, *const kernel_;
  float* const y_;
  const Finish finish_;
};

// The gradient of a kernel, of sums that some tiles each add to: matrices (rows, columns), one for
// each of the kernel's values at the points, in panels. There are some rows more than channels.
template <class Algorithm>
class KernelGradient {
 public:
  KernelGradient(const Tiled& images, const float* x, const Tiled& outputs, const float* dy)
      : images_(images),
        outputs_(outputs),
        panels_(outputs.channels),
        rows_(RoundUp(images.channels, kRows)),
        x_(x),
        dy_(dy) {}

  // Elements of the sums.
  int64_t size() const { return kFactors * kFactors * rows_ * panels_.width(); }

  void Sum(std::pair<int64_t, int64_t> tiles, float* sums) const {
    const int64_t channels = images_.channels, width = panels_.width();
    const Range range(tiles, kPoints * (channels + width));
    const auto copy = Uninitialized(kPoints * std::max(channels, panels_.columns));
    // Beyond the channels of the last tile are those of nobody's rows.
    const auto inputs = Uninitialized(kPoints * range.block * channels + kRows);
    const auto gradients = Uninitialized(kPoints * range.block * width);
    range.ForEachBlock([&](int64_t first, int64_t count) {
      TransformInput<Algorithm>(images_, x_, first, count, range.block, copy.get(), inputs.get());
      TransformOutput(first, count, range.block, copy.get(), gradients.get());
      for (int i = 0; i < kSide; ++i) {
        for (int j = 0; j < kSide; ++j) {
          const int64_t point = i * kSide + j, block = point * range.block;
          const int64_t factor = FactorOf<Algorithm>(i, j);
          const bool is_first = first == tiles.first && std::max(i, j) < kFactors;
          MultiplyPoint(&inputs[block * channels], &gradients[block * width], range.block, count,
                        is_first ? Multiply<false> : Multiply<true>, sums + factor * width * rows_);
        }
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
            sum += Load<Vector>(at + k * size() + (i * kFactors + j) * point);
          }
          return sum;
        };
        const auto store = [&](int i, int j, Vector values) {
          const int64_t row = (i * kKernel + j) * images_.channels + c;
          part.Store(values, to + row * panels_.columns + column);
        };
        FromPoints<Vector, Algorithm::kPaired>(Algorithm::kOfKernel, add_parts, store);
      });
    }
  }

 private:
  static constexpr int kSide = kPointsOf<Algorithm>, kPoints = kSide * kSide;
  static constexpr int kFactors = Algorithm::kFactors;

  // A block's tiles of the output's gradient at the points: matrices (block, columns) in panels.
  void TransformOutput(int64_t first, int64_t count, int64_t block, float* copy, float* to) const {
    const int64_t channels = panels_.columns, point = block * panels_.width();
    for (int64_t t = 0; t < count; ++t) {
      const float* rows[kOutputSideOf<Algorithm>];
      outputs_.Read(dy_, first + t, copy, rows);
      panels_.ForEachVector([&](int64_t column, auto part) {
        float* at = to + panels_.Find(t, column, block);
        ToPoints<Vector, Algorithm::kPaired>(
            Algorithm::kOfOutput,
            [&](int i, int j) { return part.Load(rows[i] + j * channels + column); },
            StoreAt<kSide>(at, point));
      });
    }
  }

  // The product of a block's tiles at a point, input transposed times gradient.
  template <class Product>
  void MultiplyPoint(const float* inputs, const float* gradients, int64_t block, int64_t count,
                     Product multiply, float* sums) const {
    const int64_t channels = images_.channels;
    panels_.ForEach([&](const Panel& panel) {
      const int64_t width = panel.vectors * kWidth;
      for (int64_t c = 0; c < channels; c += kRows) {
        multiply({inputs + c, 1, channels, count}, gradients + panel.column * block, panel.vectors,
                 sums + panel.column * rows_ + c * width, width);
      }
    });
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
inline int64_t ConvolutionThreads(int64_t elements, OpKernelContext* context) {
  return ThreadsFor(4 * elements, context);
}

class Conv3x3 : public StridedOperation {
 public:
  using StridedOperation::StridedOperation;

  void Compute(OpKernelContext* context) override {
    const Tensor &x = context->input(0), &kernel = context->input(1);
    OP_REQUIRES_OK(context, CheckKernel(kernel));
    OP_REQUIRES_OK(context, CheckChannels(x, kernel.dim_size(2)));
    const Grid grid(x, stride(), kTile);
    Tensor* y = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, grid.Shape(kernel.dim_size(3)), &y));
    if (y->NumElements() == 0) return;
    const auto convolve = stride() == 1 ? Convolve<Stride1> : Convolve<Stride2>;
    convolve(context, grid, y);
  }

 private:
  template <class Algorithm>
  static void Convolve(OpKernelContext* context, const Grid& grid, Tensor* y) {
    const Tensor &x = context->input(0), &kernel = context->input(1);
    const int64_t channels = kernel.dim_size(2);
    const Panels panels(kernel.dim_size(3));
    Tensor transformed;
    const int64_t size = Algorithm::kFactors * Algorithm::kFactors * channels * panels.width();
    OP_REQUIRES_OK(context, Allocate(context, size, &transformed));

    const Convolution<Algorithm> convolution(Tiled::Inputs(grid, channels), Values(x),
                                             Values(transformed),
                                             Tiled::Outputs(grid, panels.columns, 0), Values(y));
    const int64_t workers = ConvolutionThreads(y->NumElements(), context);
    const int64_t pieces = PiecesFor(workers);
    const auto transform = [&](int64_t part) {
      TransformKernel<Algorithm>(Values(kernel), channels, PartOf(channels, part, workers), panels,
                                 Values(&transformed));
    };
    const auto convolve = [&](int64_t i) { convolution.Compute(grid.PartOfTiles(i, pieces)); };
    ShareTwice(workers, workers, transform, [] { return true; }, pieces, convolve);
  }
};

// The gradients of the image, which is a convolution with the kernel turned round, and of the kernel.
class Conv3x3Grad : public StridedOperation {
 public:
  using StridedOperation::StridedOperation;

  void Compute(OpKernelContext* context) override {
    const Tensor &dy = context->input(0), &x = context->input(1), &kernel = context->input(2);
    OP_REQUIRES_OK(context, CheckKernel(kernel));
    OP_REQUIRES_OK(context, CheckChannels(x, kernel.dim_size(2)));
    const Grid grid(x, stride(), kTile);
    OP_REQUIRES_OK(context, CheckShape(dy, grid.Shape(kernel.dim_size(3))));
    Tensor *dx = nullptr, *dkernel = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, x.shape(), &dx));
    OP_REQUIRES_OK(context, context->allocate_output(1, kernel.shape(), &dkernel));
    if (x.NumElements() == 0 || dy.NumElements() == 0) {
      std::fill_n(Values(dx), dx->NumElements(), 0.0f);
      std::fill_n(Values(dkernel), dkernel->NumElements(), 0.0f);
      return;
    }
    const auto differentiate = stride() == 1 ? Differentiate<Stride1> : Differentiate<Stride2>;
    differentiate(context, grid, dx, dkernel);
  }

 private:
  template <class Algorithm>
  static void Differentiate(OpKernelContext* context, const Grid& grid, Tensor* dx,
                            Tensor* dkernel) {
    using Turned = typename Algorithm::Turned;
    const Tensor &dy = context->input(0), &x = context->input(1), &kernel = context->input(2);
    const int64_t channels = kernel.dim_size(2), filters = kernel.dim_size(3);
    const Tiled images = Tiled::Inputs(grid, channels);
    const KernelGradient<Algorithm> gradient(images, Values(x), Tiled::Outputs(grid, filters, 0),
                                             Values(dy));
    // Each has a sum of its own, of tiles of which there may be few.
    const int64_t workers =
        std::min(ConvolutionThreads(dy.NumElements(), context), grid.tiles());
    const Panels panels(channels);
    Tensor turned, sums;
    const int64_t size = Algorithm::kFactors * Algorithm::kFactors * filters * panels.width();
    OP_REQUIRES_OK(context, Allocate(context, size, &turned));
    OP_REQUIRES_OK(context, Allocate(context, workers * gradient.size(), &sums));
    const Convolution<Turned> convolution(Tiled::Outputs(grid, filters, 1), Values(dy),
                                          Values(turned), Tiled::InputGradients(grid, channels),
                                          Values(dx));

    const auto turn = [&](int64_t part) {
      const auto [first, end] = PartOf(filters, part, workers);
      for (int64_t k = first; k < end; ++k) {
        TurnKernelRow<Algorithm>(Values(kernel), k, panels, filters, Values(&turned));
      }
    };
    // Sums first, which are few and take long. Who makes the last of them finishes them.
    std::atomic<int64_t> missing_sums{workers};
    const int64_t pieces = PiecesFor(workers);
    const auto differentiate = [&](int64_t i) {
      if (i >= workers) {
        convolution.Compute(grid.PartOfTiles(i - workers, pieces));
        return;
      }
      gradient.Sum(PartOf(grid.tiles(), i, workers), Values(&sums) + i * gradient.size());
      if (--missing_sums == 0) gradient.Finish(Values(sums), workers, Values(dkernel));
    };
    ShareTwice(workers, workers, turn, [] { return true; }, workers + pieces, differentiate);
  }

  // Row `k` of the kernel turned round: (3, 3, outputs, inputs).
  template <class Algorithm>
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
    TransformKernelRow<Algorithm>(taps, k, outputs, inputs, to);
  }
};

}  // namespace winograd
}  // namespace effnetv2_tf

#endif  // EFFNETV2_TF_KERNELS_CONV3X3_H_
