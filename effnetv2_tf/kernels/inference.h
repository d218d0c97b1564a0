// Convolutions of networks for inference, each one operation with what follows it: forward alone,
// float32 on CPUs, channels last. They multiply as those for training do.

#ifndef EFFNETV2_TF_KERNELS_INFERENCE_H_
#define EFFNETV2_TF_KERNELS_INFERENCE_H_

#include "conv3x3.h"
#include "direct.h"
#include "finish.h"
#include "pointwise.h"

namespace effnetv2_tf {
namespace inference {

// The values of an input that may be left out, null then; `name` is that of the list which it is in.
inline absl::Status GetOptional(OpKernelContext* context, const char* name,
                                const TensorShape& shape, const float** values) {
  tensorflow::OpInputList inputs;
  TF_RETURN_IF_ERROR(context->input_list(name, &inputs));
  *values = nullptr;
  if (inputs.size() == 0) return absl::OkStatus();
  if (inputs.size() > 1) {
    return tensorflow::errors::InvalidArgument("expected at most one `", name, "`, received ",
                                               inputs.size());
  }
  *values = Values(inputs[0]);
  return CheckShape(inputs[0], shape);
}

// The images to be added to the result, or null.
inline absl::Status GetSkip(OpKernelContext* context, const TensorShape& shape,
                            const float** skip) {
  return GetOptional(context, "skip", shape, skip);
}

inline absl::Status CheckBias(const Tensor& bias, int64_t channels) {
  if (bias.NumElements() == channels) return absl::OkStatus();
  return tensorflow::errors::InvalidArgument("expected a bias for ", channels,
                                             " channels, received a tensor shaped ",
                                             bias.shape().DebugString());
}

// A 3x3 kernel as products take it.
template <class Algorithm>
Prepared::Values KernelAtPoints(const Tensor& kernel, Prepared* prepared) {
  const int64_t channels = kernel.dim_size(2);
  const Panels panels(kernel.dim_size(3));
  const int64_t size = Algorithm::kFactors * Algorithm::kFactors * channels * panels.width();
  return prepared->Get(kernel, size, [&](float* to) {
    winograd::TransformKernel<Algorithm>(Values(kernel), channels, {0, channels}, panels, to);
  });
}

// A kernel's rows, of taps and channels, as products take them.
inline Prepared::Values KernelInPanels(const Tensor& kernel, Prepared* prepared) {
  const Panels panels(kernel.dim_size(3));
  const int64_t rows = kernel.NumElements() / panels.columns;
  return prepared->Get(kernel, rows * panels.width(), [&](float* to) {
    pointwise::PackAll(Values(kernel), rows, panels, to);
  });
}

// Whether there is less to multiply in wide tiles, of so many tiles of the busiest thread.
inline bool AreWideLess(int64_t wide, int64_t usual) {
  constexpr int64_t wide_side = winograd::kPointsOf<winograd::Stride1Wide>;
  constexpr int64_t usual_side = winograd::kPointsOf<winograd::Stride1>;
  return wide * wide_side * wide_side < usual * usual_side * usual_side;
}

class Conv3x3 : public StridedOperation {
 public:
  explicit Conv3x3(OpKernelConstruction* context) : StridedOperation(context) {
    OP_REQUIRES_OK(context, GetActivation(context, &activation_));
  }

  void Compute(OpKernelContext* context) override {
    const Tensor &x = context->input(0), &kernel = context->input(1), &bias = context->input(2);
    OP_REQUIRES_OK(context, winograd::CheckKernel(kernel));
    OP_REQUIRES_OK(context, CheckChannels(x, kernel.dim_size(2)));
    OP_REQUIRES_OK(context, CheckBias(bias, kernel.dim_size(3)));
    const winograd::Grid grid(x, stride(), winograd::kTile);
    Tensor* y = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, grid.Shape(kernel.dim_size(3)), &y));
    const float* skip = nullptr;
    OP_REQUIRES_OK(context, GetSkip(context, y->shape(), &skip));
    if (y->NumElements() == 0) return;
    const Finished finish(Values(bias), activation_, Values(y), skip);
    if (kernel.dim_size(2) < direct::kFewestChannels) {
      Multiply(context, grid, finish, y);
      return;
    }
    const int64_t workers = winograd::ConvolutionThreads(y->NumElements(), context);
    if (stride() == 2) {
      Convolve<winograd::Stride2>(context, grid, workers, finish, &prepared_);
      return;
    }
    const winograd::Grid wide(x, 1, winograd::kWideTile);
    if (AreWideLess(MostTiles(wide, workers), MostTiles(grid, workers))) {
      Convolve<winograd::Stride1Wide>(context, wide, workers, finish, &prepared_wide_);
    } else {
      Convolve<winograd::Stride1>(context, grid, workers, finish, &prepared_);
    }
  }

 private:
  void Multiply(OpKernelContext* context, const winograd::Grid& grid, const Finished& finish,
                Tensor* y) {
    const Tensor &x = context->input(0), &kernel = context->input(1);
    const Panels panels(kernel.dim_size(3));
    const auto packed = KernelInPanels(kernel, &prepared_);
    const direct::Convolution<Finished> convolution(grid.height, grid.width, stride(),
                                                    kernel.dim_size(2), panels, packed.get(),
                                                    finish);
    const int64_t height = grid.images * grid.height.outputs;
    const int64_t workers = winograd::ConvolutionThreads(y->NumElements(), context);
    const int64_t pieces = std::min(height, PiecesFor(workers));
    Share(workers, pieces,
          [&](int64_t i) { convolution.Compute(PartOf(height, i, pieces), Values(x), Values(y)); });
  }

  // Tiles of the busiest thread.
  static int64_t MostTiles(const winograd::Grid& grid, int64_t workers) {
    return RoundUp(grid.tiles(), workers * kRows) / workers;
  }

  template <class Algorithm>
  static void Convolve(OpKernelContext* context, const winograd::Grid& grid, int64_t workers,
                       const Finished& finish, Prepared* prepared) {
    using winograd::Tiled;
    const Tensor &x = context->input(0), &kernel = context->input(1);
    const int64_t channels = kernel.dim_size(2);
    const Panels panels(kernel.dim_size(3));
    const auto transformed = KernelAtPoints<Algorithm>(kernel, prepared);
    const winograd::Convolution<Algorithm, Finished> convolution(
        Tiled::Inputs(grid, channels), Values(x), transformed.get(),
        Tiled::Outputs(grid, panels.columns, 0), Values(context->mutable_output(0)), finish);
    const int64_t pieces = PiecesFor(workers);
    Share(workers, pieces,
          [&](int64_t i) { convolution.Compute(grid.PartOfTiles(i, pieces)); });
  }

  Activation activation_;
  Prepared prepared_, prepared_wide_;
};

// Of images, times gates by image and channel where there are some.
class PointwiseConv : public OpKernel {
 public:
  explicit PointwiseConv(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, GetActivation(context, &activation_));
  }

  void Compute(OpKernelContext* context) override {
    const Tensor &x = context->input(0), &kernel = context->input(1), &bias = context->input(2);
    OP_REQUIRES_OK(context, pointwise::Sizes::Check(x, kernel));
    const pointwise::Sizes sizes(x, kernel);
    OP_REQUIRES_OK(context, CheckBias(bias, sizes.outputs));
    const TensorShape shape = sizes.Result(x);
    Tensor* y = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, shape, &y));
    if (y->NumElements() == 0) return;
    const float *skip = nullptr, *gates = nullptr;
    OP_REQUIRES_OK(context, GetSkip(context, shape, &skip));
    const TensorShape by_channel({x.dim_size(0), sizes.inputs});
    OP_REQUIRES_OK(context, GetOptional(context, "gates", by_channel, &gates));
    OP_REQUIRES(context, !gates || x.dims() > 1,
                tensorflow::errors::InvalidArgument("expected a batch where there are gates, "
                                                    "received a tensor shaped ",
                                                    x.shape().DebugString()));
    Multiply(context, sizes, gates, Finished(Values(bias), activation_, Values(y), skip), y);
  }

 private:
  // `gates`: null for none.
  void Multiply(OpKernelContext* context, const pointwise::Sizes& sizes, const float* gates,
                const Finished& finish, Tensor* y) {
    const Tensor &x = context->input(0), &kernel = context->input(1);
    const Panels panels(sizes.outputs);
    const auto packed = KernelInPanels(kernel, &packed_);
    // An image's gates are multiplied with the kernel, which has fewer elements than most images.
    const int64_t images = gates ? x.dim_size(0) : 1, rows = sizes.rows / images;
    const int64_t workers = sizes.Workers(1, context);
    const pointwise::Pieces pieces(rows, panels, workers);
    Share(workers, images * pieces.count(), [&](int64_t i) {
      const int64_t image = i / pieces.count();
      const auto multiply = [&](int64_t, std::pair<int64_t, int64_t> part, int64_t index) {
        const Panel panel = panels[index];
        const float* right = packed.get() + sizes.inputs * panel.column;
        std::unique_ptr<float[], FreeAligned> gated;
        if (gates) {
          gated = Uninitialized(sizes.inputs * panel.vectors * kWidth);
          ScaleRows(right, gates + image * sizes.inputs, sizes.inputs, panel.vectors, gated.get());
          right = gated.get();
        }
        const int64_t first = image * rows;
        pointwise::MultiplyRows(Values(x), sizes.inputs, {first + part.first, first + part.second},
                                right, panel, sizes.outputs, Values(y), finish);
      };
      pieces.Find(i % pieces.count(), multiply);
    });
  }

  // A panel whose rows are multiplied with one factor each.
  static void ScaleRows(const float* from, const float* factors, int64_t rows, int64_t vectors,
                        float* to) {
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t v = 0; v < vectors; ++v, from += kWidth, to += kWidth) {
        Store(factors[i] * Load<Vector>(from), to);
      }
    }
  }

  Activation activation_;
  Prepared packed_;
};

// x * scale + offset, by channel.
class Normalize : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* context) override {
    const Tensor &x = context->input(0), &scale = context->input(1), &offset = context->input(2);
    const Rows rows(context, x, scale.NumElements());
    OP_REQUIRES_OK(context, CheckChannels(x, rows.channels));
    OP_REQUIRES_OK(context, CheckShape(offset, scale.shape()));
    Tensor* y = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, x.shape(), &y));
    ByColumn scales = rows.MakeColumns(), offsets = rows.MakeColumns();
    std::copy_n(Values(scale), rows.channels, scales.data());
    std::copy_n(Values(offset), rows.channels, offsets.data());
    scales.Repeat();
    offsets.Repeat();
    const float* in = Values(x);
    float* out = Values(y);
    const int64_t pieces = PiecesFor(rows.runs);
    Share(rows.runs, pieces, [&](int64_t i) {
      const auto [first, end] = PartOf(rows.count, i, pieces);
      rows.ForEachStrip(first, end, [&](int64_t start, int64_t size) {
        for (int64_t k = 0; k < size; ++k) out[start + k] = in[start + k] * scales[k] + offsets[k];
      });
    });
  }
};

}  // namespace inference
}  // namespace effnetv2_tf

#endif  // EFFNETV2_TF_KERNELS_INFERENCE_H_
