// 3x3 convolutions of networks for inference together with the 1x1 convolution behind them.

#ifndef EFFNETV2_TF_KERNELS_INFERENCE_PROJECTED_H_
#define EFFNETV2_TF_KERNELS_INFERENCE_PROJECTED_H_

#include "inference.h"

namespace effnetv2_tf {
namespace inference {

// A grid's rows of tiles, all images' one after the other, in bands whose pixels, of `channels`
// channels, stay in a cache: as many rows each as leave the least to multiply to the busiest thread.
struct Bands {
  Bands(const winograd::Grid& grid, int64_t channels, int64_t workers)
      : grid(grid), rows(grid.images * grid.down) {
    const int64_t row = grid.side * grid.width.outputs * channels * sizeof(float);
    for (int64_t i = 1; i <= rows && (i == 1 || i * row <= winograd::kCacheBytes); ++i) {
      const int64_t bands = (rows + i - 1) / i;
      const int64_t work = (bands + workers - 1) / workers * RoundUp(i * grid.across, kRows);
      if (tiles > 0 && work >= tiles) continue;
      tiles = work;
      count = bands;
    }
  }

  // The row of pixels that a row of tiles begins with.
  int64_t FirstPixels(int64_t row) const {
    return row / grid.down * grid.height.outputs +
           std::min(row % grid.down * grid.side, grid.height.outputs);
  }

  const winograd::Grid grid;
  const int64_t rows;
  int64_t count = 0, tiles = 0;  // bands; tiles of the busiest thread
};

// `activation` is behind the first of the two, whose images have the most channels of a network: they
// are made and used up in a cache.
class ProjectedConv3x3 : public StridedOperation {
 public:
  explicit ProjectedConv3x3(OpKernelConstruction* context) : StridedOperation(context) {
    OP_REQUIRES_OK(context, GetActivation(context, &activation_));
  }

  void Compute(OpKernelContext* context) override {
    using winograd::Grid;
    const Tensor &x = context->input(0), &kernel = context->input(1), &bias = context->input(2);
    const Tensor &project = context->input(3), &project_bias = context->input(4);
    OP_REQUIRES_OK(context, winograd::CheckKernel(kernel));
    OP_REQUIRES_OK(context, CheckChannels(x, kernel.dim_size(2)));
    const int64_t channels = kernel.dim_size(3), outputs = project_bias.NumElements();
    OP_REQUIRES_OK(context, CheckBias(bias, channels));
    OP_REQUIRES_OK(context, CheckShape(project, {1, 1, channels, outputs}));
    const Grid grid(x, stride(), winograd::kTile);
    Tensor* y = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, grid.Shape(outputs), &y));
    const float* skip = nullptr;
    OP_REQUIRES_OK(context, GetSkip(context, y->shape(), &skip));
    if (y->NumElements() == 0) return;
    const int64_t pixels = y->NumElements() / outputs;
    const int64_t workers = winograd::ConvolutionThreads(pixels * channels, context);
    const Bands usual(grid, channels, workers);
    if (stride() == 2) {
      Convolve<winograd::Stride2>(context, usual, workers, skip, &prepared_);
      return;
    }
    const Bands wide(Grid(x, 1, winograd::kWideTile), channels, workers);
    if (AreWideLess(wide.tiles, usual.tiles)) {
      Convolve<winograd::Stride1Wide>(context, wide, workers, skip, &prepared_wide_);
    } else {
      Convolve<winograd::Stride1>(context, usual, workers, skip, &prepared_);
    }
  }

 private:
  template <class Algorithm>
  void Convolve(OpKernelContext* context, const Bands& bands, int64_t workers, const float* skip,
                Prepared* prepared) {
    const Tensor &kernel = context->input(1), &project = context->input(3);
    const auto transformed = KernelAtPoints<Algorithm>(kernel, prepared);
    const auto packed = KernelInPanels(project, &packed_);
    const Panels panels(project.dim_size(3));
    Share(workers, bands.count, [&](int64_t i) {
      const auto rows = PartOf(bands.rows, i, bands.count);
      ComputeBand<Algorithm>(context, bands, rows, transformed.get(), panels, packed.get(), skip);
    });
  }

  template <class Algorithm>
  void ComputeBand(OpKernelContext* context, const Bands& bands, std::pair<int64_t, int64_t> rows,
                   const float* kernel, const Panels& panels, const float* project,
                   const float* skip) const {
    using winograd::Tiled;
    const winograd::Grid& grid = bands.grid;
    const Tensor &x = context->input(0), &bias = context->input(2);
    const int64_t channels = bias.NumElements(), width = grid.width.outputs;
    const int64_t top = bands.FirstPixels(rows.first), bottom = bands.FirstPixels(rows.second);
    const auto between = Uninitialized((bottom - top) * width * channels);
    const winograd::Convolution<Algorithm, Finished> convolution(
        Tiled::Inputs(grid, context->input(1).dim_size(2)), Values(x), kernel,
        Tiled::OutputsFrom(grid, channels, top), between.get(),
        Finished(Values(bias), activation_));
    convolution.Compute({rows.first * grid.across, rows.second * grid.across});
    float* y = Values(context->mutable_output(0));
    const Finished finish(Values(context->input(4)), Activation::kLinear, y, skip);
    panels.ForEach([&](const Panel& panel) {
      pointwise::MultiplyRows(between.get(), channels, {0, (bottom - top) * width},
                              project + channels * panel.column, panel, panels.columns,
                              y + top * width * panels.columns, finish);
    });
  }

  Activation activation_;
  Prepared prepared_, prepared_wide_, packed_;
};

}  // namespace inference
}  // namespace effnetv2_tf

#endif  // EFFNETV2_TF_KERNELS_INFERENCE_PROJECTED_H_
