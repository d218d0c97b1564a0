// Depthwise convolutions of networks for inference, with what lies before and behind them in a block.

#ifndef EFFNETV2_TF_KERNELS_INFERENCE_DEPTHWISE_H_
#define EFFNETV2_TF_KERNELS_INFERENCE_DEPTHWISE_H_

#include "depthwise.h"
#include "inference.h"
#include "squeeze_excite.h"

namespace effnetv2_tf {
namespace inference {

// Also adds up what is finished, by channel.
struct FinishAndSum {
  static constexpr bool kAdds = true;

  template <class Values>
  Values Of(Values values, const float* at, int64_t channel) const {
    return finish.Of(values, at, channel);
  }

  template <class Values>
  void Add(Values sum, int64_t channel) const {
    Store(Load<Values>(sums + channel) + sum, sums + channel);
  }

  const Finished finish;
  float* const sums;
};

// The second result is the images' means by channel, in parts that are to be added up.
class DepthwiseConv : public depthwise::Operation {
 public:
  explicit DepthwiseConv(OpKernelConstruction* context) : Operation(context) {
    OP_REQUIRES_OK(context, GetActivation(context, &activation_));
  }

  void Compute(OpKernelContext* context) override {
    const Tensor &x = context->input(0), &kernel = context->input(1), &bias = context->input(2);
    With(context, x, kernel, [&](const auto& batch) {
      const int64_t channels = kernel.dim_size(2), images = batch.images();
      OP_REQUIRES_OK(context, CheckBias(bias, channels));
      const int64_t workers = ThreadsFor(x.NumElements(), context);
      const int64_t height = images ? batch.rows() / images : 0;
      const int64_t parts = std::clamp<int64_t>(
          (PiecesFor(workers) + images - 1) / std::max<int64_t>(images, 1), 1,
          std::max<int64_t>(height, 1));
      Tensor *y = nullptr, *means = nullptr;
      OP_REQUIRES_OK(context, context->allocate_output(0, batch.result_shape(), &y));
      OP_REQUIRES_OK(context, context->allocate_output(1, {images, parts, channels}, &means));
      if (y->NumElements() == 0) {
        std::fill_n(Values(means), means->NumElements(), 0.0f);
        return;
      }
      const Finished finish(Values(bias), activation_);
      Share(workers, images * parts, [&](int64_t i) {
        const int64_t image = i / parts * height;
        const auto [first, end] = PartOf(height, i % parts, parts);
        float* sums = Values(means) + i * channels;
        std::fill_n(sums, channels, 0.0f);
        batch.Convolve({image + first, image + end}, Values(x), Values(y),
                       FinishAndSum{finish, sums});
        for (int64_t c = 0; c < channels; ++c) sums[c] /= batch.pixels();
      });
    });
  }

 private:
  Activation activation_;
};

// A depthwise convolution of a 1x1 convolution's result, `activation` behind both, some channels at
// a time, so that the images between the two, which have the most channels of a network, stay in a
// cache. The second result is as above.
class ExpandedDepthwiseConv : public depthwise::Operation {
 public:
  explicit ExpandedDepthwiseConv(OpKernelConstruction* context) : Operation(context) {
    OP_REQUIRES_OK(context, GetActivation(context, &activation_));
  }

  void Compute(OpKernelContext* context) override {
    const Tensor &x = context->input(0), &expand = context->input(1), &kernel = context->input(3);
    OP_REQUIRES_OK(context, pointwise::Sizes::Check(x, expand));
    OP_REQUIRES_OK(context, CheckChannels(x, expand.dim_size(2)));
    WithForm(context, kernel, [&](auto form) {
      const int64_t channels = kernel.dim_size(2);
      OP_REQUIRES(context, expand.dim_size(3) == channels,
                  tensorflow::errors::InvalidArgument(
                      "expected kernels of the same channels, received tensors shaped ",
                      expand.shape().DebugString(), " and ", kernel.shape().DebugString()));
      OP_REQUIRES_OK(context, CheckBias(context->input(2), channels));
      OP_REQUIRES_OK(context, CheckBias(context->input(4), channels));
      Convolve<form.side, form.stride>(context);
    });
  }

 private:
  static constexpr int64_t kBandBytes = 3 << 17;  // of the images between, that stay in a cache

  // What pieces of the work have in common.
  struct Images {
    Images(OpKernelContext* context, int side, int stride)
        : x(context->input(0)),
          expand_bias(Values(context->input(2))),
          kernel(Values(context->input(3))),
          bias(Values(context->input(4))),
          inputs(x.dim_size(3)),
          height(Side::Same(x.dim_size(1), side, stride)),
          width(Side::Same(x.dim_size(2), side, stride)),
          panels(context->input(3).dim_size(2)),
          bands(std::clamp<int64_t>(
              height.size * width.size * kWidest * kWidth * sizeof(float) / kBandBytes, 1,
              std::max<int64_t>(height.outputs, 1))) {}

    int64_t pieces() const { return x.dim_size(0) * bands * panels.count(); }

    const Tensor& x;
    const float *const expand_bias, *const kernel, *const bias;
    const int64_t inputs;
    const Side height, width;
    const Panels panels;
    const int64_t bands;  // of an image's rows
  };

  template <int side, int stride>
  void Convolve(OpKernelContext* context) {
    const Images images(context, side, stride);
    const int64_t channels = images.panels.columns;
    Tensor *y = nullptr, *means = nullptr;
    const TensorShape shape(
        {images.x.dim_size(0), images.height.outputs, images.width.outputs, channels});
    OP_REQUIRES_OK(context, context->allocate_output(0, shape, &y));
    OP_REQUIRES_OK(context, context->allocate_output(
                                1, {images.x.dim_size(0), images.bands, channels}, &means));
    std::fill_n(Values(means), means->NumElements(), 0.0f);
    if (y->NumElements() == 0) return;
    const Tensor& expand = context->input(1);
    const auto packed = KernelInPanels(expand, &packed_);
    const int64_t workers = pointwise::Sizes(images.x, expand).Workers(1, context);
    Share(workers, images.pieces(), [&](int64_t i) {
      ComputePiece<side, stride>(images, i, packed.get(), Values(y), Values(means));
    });
  }

  // A panel's channels of a band of an image.
  template <int side, int stride>
  void ComputePiece(const Images& images, int64_t piece, const float* packed, float* y,
                    float* means) const {
    const Side &height = images.height, &width = images.width;
    const Panel panel = images.panels[piece % images.panels.count()];
    const int64_t channels = images.panels.columns, band = piece / images.panels.count();
    const int64_t image = band / images.bands;
    const auto [first, end] = PartOf(height.outputs, band % images.bands, images.bands);
    const int64_t top = std::max<int64_t>(0, first * stride - height.padding);
    const int64_t bottom = std::min(height.size, (end - 1) * stride - height.padding + side);
    const int64_t pixels = (bottom - top) * width.size;
    const auto between = Uninitialized(pixels * panel.columns);
    const float* x = Values(images.x) + (image * height.size + top) * width.size * images.inputs;
    pointwise::MultiplyRows(x, images.inputs, {0, pixels}, packed + images.inputs * panel.column,
                            {0, panel.columns, panel.vectors}, panel.columns, between.get(),
                            Finished(images.expand_bias + panel.column, activation_));
    float* sums = means + band * channels + panel.column;
    const FinishAndSum finish{Finished(images.bias + panel.column, activation_), sums};
    depthwise::Window<side, stride, 1> window(height, width, panel.columns, panel.columns,
                                              channels);
    for (int64_t row = first; row < end; ++row) {
      window.Move(between.get(), row, top);
      float* to = y + (image * height.outputs + row) * width.outputs * channels + panel.column;
      window.Convolve(images.kernel + panel.column, channels, to, finish);
    }
    for (int64_t c = 0; c < panel.columns; ++c) sums[c] /= height.outputs * width.outputs;
  }

  Activation activation_;
  Prepared packed_;
};

// The gates of squeeze-and-excitation, of such means.
class Gates : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* context) override {
    const Tensor &means = context->input(0), &reduce = context->input(1);
    const Tensor &reduce_bias = context->input(2), &expand = context->input(3);
    const Tensor& expand_bias = context->input(4);
    const int64_t squeezed = reduce_bias.NumElements(), channels = expand_bias.NumElements();
    OP_REQUIRES(context,
                means.dims() == 3 && means.dim_size(2) == channels &&
                    reduce.NumElements() == channels * squeezed &&
                    expand.NumElements() == channels * squeezed,
                tensorflow::errors::InvalidArgument(
                    "expected means, kernels and biases of ", channels, " channels and ", squeezed,
                    " squeezed ones, received means shaped ", means.shape().DebugString(),
                    ", kernels shaped ", reduce.shape().DebugString(), " and ",
                    expand.shape().DebugString()));
    const int64_t parts = means.dim_size(1);
    Tensor* gates = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, {means.dim_size(0), channels}, &gates));
    std::vector<float> mean(channels), hidden(squeezed);
    for (int64_t n = 0; n < means.dim_size(0); ++n) {
      std::fill(mean.begin(), mean.end(), 0.0f);
      for (int64_t part = n * parts; part < (n + 1) * parts; ++part) {
        AddScaled(1.0f, Values(means) + part * channels, channels, mean.data());
      }
      ComputeGates(mean.data(), channels, squeezed, Values(reduce), Values(reduce_bias),
                   Values(expand), Values(expand_bias), hidden.data(),
                   Values(gates) + n * channels);
    }
  }
};

}  // namespace inference
}  // namespace effnetv2_tf

#endif  // EFFNETV2_TF_KERNELS_INFERENCE_DEPTHWISE_H_
