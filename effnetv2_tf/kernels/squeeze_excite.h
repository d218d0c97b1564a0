// Squeeze-and-excitation with SiLU, forward and backward: float32 on CPUs, channels last. As
// operations of TensorFlow it is some fifty, seven of which pass over the image; here it is one each
// way, and an image is one thread's, in whose cache it stays between the two passes.

#ifndef EFFNETV2_TF_KERNELS_SQUEEZE_EXCITE_H_
#define EFFNETV2_TF_KERNELS_SQUEEZE_EXCITE_H_

#include "rows.h"

namespace effnetv2_tf {

// y += factor * x
inline void AddScaled(float factor, const float* __restrict x, int64_t size, float* __restrict y) {
  for (int64_t i = 0; i < size; ++i) y[i] += factor * x[i];
}

// A compiler may not reorder the additions of one sum, hence sixteen.
inline float Dot(const float* __restrict a, const float* __restrict b, int64_t size) {
  constexpr int64_t kSums = 16;
  float sums[kSums] = {}, sum = 0;
  int64_t i = 0;
  for (; i + kSums <= size; i += kSums) {
    for (int64_t k = 0; k < kSums; ++k) sums[k] += a[i + k] * b[i + k];
  }
  for (; i < size; ++i) sum += a[i] * b[i];
  for (float part : sums) sum += part;
  return sum;
}

// The gates of an image from its means: `hidden`, which is returned too, before its SiLU.
inline void ComputeGates(const float* means, int64_t channels, int64_t squeezed,
                         const float* reduce, const float* reduce_bias, const float* expand,
                         const float* expand_bias, float* hidden, float* gates) {
  std::copy_n(reduce_bias, squeezed, hidden);
  for (int64_t c = 0; c < channels; ++c) {
    AddScaled(means[c], reduce + c * squeezed, squeezed, hidden);
  }
  std::copy_n(expand_bias, channels, gates);
  for (int64_t s = 0; s < squeezed; ++s) {
    AddScaled(Silu::Value(hidden[s]), expand + s * channels, channels, gates);
  }
  for (int64_t c = 0; c < channels; ++c) gates[c] = Sigmoid(gates[c]);
}

// Of images and both kernels, of which those for squeezing say how many channels are left.
inline absl::Status CheckKernels(const Tensor& x, const Tensor& reduce, const Tensor& expand) {
  TF_RETURN_IF_ERROR(CheckRank(x, 4));
  TF_RETURN_IF_ERROR(CheckRank(reduce, 4));
  const int64_t channels = x.dim_size(3), squeezed = reduce.dim_size(3);
  TF_RETURN_IF_ERROR(CheckShape(reduce, {1, 1, channels, squeezed}));
  return CheckShape(expand, {1, 1, squeezed, channels});
}

// The sizes of a call, and the threads for it.
struct Excitation {
  Excitation(OpKernelContext* context, const Tensor& x, int64_t squeezed)
      : images(x.dim_size(0)),
        pixels(x.dim_size(1) * x.dim_size(2)),
        channels(x.dim_size(3)),
        squeezed(squeezed),
        workers(std::min(images, ThreadsFor(x.NumElements(), context))) {}

  // Elements of an image, and of what the forward pass keeps of one.
  int64_t image() const { return pixels * channels; }
  int64_t kept() const { return 2 * channels + squeezed; }

  // Makes `sums` by channel, to which add(pixel, sums) adds a pixel. They are made in blocks of
  // pixels, to be rounded less than one long sum.
  template <class Add>
  void SumPixels(float* sums, Add add) const {
    constexpr int64_t kBlock = 64;
    std::vector<float> block(channels);
    std::fill_n(sums, channels, 0.0f);
    for (int64_t first = 0; first < pixels; first += kBlock) {
      std::fill(block.begin(), block.end(), 0.0f);
      const int64_t end = std::min(first + kBlock, pixels);
      for (int64_t pixel = first; pixel < end; ++pixel) add(pixel, block.data());
      AddScaled(1.0f, block.data(), channels, sums);
    }
  }

  const int64_t images, pixels, channels, squeezed;
  const int64_t workers;  // to share the images
};

// What the forward pass keeps of an image: the means, the squeezed layer before its SiLU, the gates.
template <class Float>
struct Kept {
  Kept(Float* values, const Excitation& sizes)
      : means(values), hidden(means + sizes.channels), gates(hidden + sizes.squeezed) {}

  Float *means, *hidden, *gates;
};

class SqueezeExcite : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* context) override {
    const Tensor &x = context->input(0), &reduce = context->input(1);
    OP_REQUIRES_OK(context, CheckChannels(x, context->input(4).NumElements()));
    OP_REQUIRES_OK(context, CheckKernels(x, reduce, context->input(3)));
    const Excitation sizes(context, x, reduce.dim_size(3));
    OP_REQUIRES_OK(context, CheckShape(context->input(2), {sizes.squeezed}));
    OP_REQUIRES_OK(context, CheckShape(context->input(4), {sizes.channels}));
    Tensor *y, *second;
    OP_REQUIRES_OK(context, context->allocate_output(0, x.shape(), &y));
    const TensorShape kept_shape({sizes.images, sizes.kept()});
    OP_REQUIRES_OK(context, context->allocate_output(1, kept_shape, &second));
    const auto excite = [&](int64_t n) {
      const float* in = Values(x) + n * sizes.image();
      const Kept<float> kept(Values(second) + n * sizes.kept(), sizes);
      Excite(context, sizes, in, kept);
      Scale(in, kept.gates, sizes, Values(y) + n * sizes.image());
    };
    Share(sizes.workers, sizes.images, excite);
  }

 private:
  static void Excite(OpKernelContext* context, const Excitation& sizes, const float* x,
                     const Kept<float>& kept) {
    const int64_t channels = sizes.channels;
    sizes.SumPixels(kept.means, [&](int64_t pixel, float* sums) {
      AddScaled(1.0f, x + pixel * channels, channels, sums);
    });
    for (int64_t c = 0; c < channels; ++c) kept.means[c] /= sizes.pixels;
    ComputeGates(kept.means, channels, sizes.squeezed, Values(context->input(1)),
                 Values(context->input(2)), Values(context->input(3)), Values(context->input(4)),
                 kept.hidden, kept.gates);
  }

  static void Scale(const float* x, const float* __restrict gates, const Excitation& sizes,
                    float* y) {
    for (int64_t pixel = 0; pixel < sizes.pixels; ++pixel) {
      const float* __restrict in = x + pixel * sizes.channels;
      float* __restrict out = y + pixel * sizes.channels;
      for (int64_t c = 0; c < sizes.channels; ++c) out[c] = in[c] * gates[c];
    }
  }
};

class SqueezeExciteGrad : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* context) override {
    const Tensor &dy = context->input(0), &x = context->input(1), &reduce = context->input(2);
    const Tensor &expand = context->input(3), &second = context->input(4);
    OP_REQUIRES_OK(context, CheckKernels(x, reduce, expand));
    const Excitation sizes(context, x, reduce.dim_size(3));
    OP_REQUIRES_OK(context, CheckShape(dy, x.shape()));
    OP_REQUIRES_OK(context, CheckShape(second, {sizes.images, sizes.kept()}));
    Tensor *dx, *d_reduce, *d_reduce_bias, *d_expand, *d_expand_bias;
    OP_REQUIRES_OK(context, context->forward_input_or_allocate_output({0}, 0, x.shape(), &dx));
    OP_REQUIRES_OK(context, context->allocate_output(1, reduce.shape(), &d_reduce));
    OP_REQUIRES_OK(context, context->allocate_output(2, {sizes.squeezed}, &d_reduce_bias));
    OP_REQUIRES_OK(context, context->allocate_output(3, expand.shape(), &d_expand));
    OP_REQUIRES_OK(context, context->allocate_output(4, {sizes.channels}, &d_expand_bias));

    // By image, with respect to the squeezed layer and to the gates, before their activations.
    std::vector<float> d_hidden(sizes.images * sizes.squeezed);
    std::vector<float> d_gates(sizes.images * sizes.channels);
    std::vector<float> hidden(d_hidden.size());  // the squeezed layer itself
    const auto kept_of = [&](int64_t n) {
      return Kept<const float>(Values(second) + n * sizes.kept(), sizes);
    };
    const auto by_image = [&](int64_t n) {
      const int64_t start = n * sizes.image();
      float* of_hidden = d_hidden.data() + n * sizes.squeezed;
      float* of_gates = d_gates.data() + n * sizes.channels;
      GateGradient(Values(dy) + start, Values(x) + start, kept_of(n).gates, sizes, of_gates);
      for (int64_t s = 0; s < sizes.squeezed; ++s) {
        const float z = kept_of(n).hidden[s];
        hidden[n * sizes.squeezed + s] = Silu::Value(z);
        of_hidden[s] = Silu::Slope(z) *
                       Dot(Values(expand) + s * sizes.channels, of_gates, sizes.channels);
      }
      ImageGradient(Values(dy) + start, kept_of(n).gates, Values(reduce), of_hidden, sizes,
                    Values(dx) + start);
    };

    const auto mean = [&](int64_t n, int64_t c) { return kept_of(n).means[c]; };
    const auto squeezed = [&](int64_t n, int64_t s) { return hidden[n * sizes.squeezed + s]; };
    const auto one = [](int64_t, int64_t) { return 1.0f; };
    const auto go_on = [] { return true; };
    const auto sum_images = [&](int64_t piece) {
      const auto sum = [&](auto factor, int64_t rows, const std::vector<float>& values,
                           int64_t width, Tensor* sums) {
        const int64_t first = rows * piece / kPieces, end = rows * (piece + 1) / kPieces;
        SumImages(sizes, factor, first, end, values, width, Values(sums));
      };
      sum(mean, sizes.channels, d_hidden, sizes.squeezed, d_reduce);
      sum(squeezed, sizes.squeezed, d_gates, sizes.channels, d_expand);
      sum(one, 1, d_hidden, sizes.squeezed, d_reduce_bias);
      sum(one, 1, d_gates, sizes.channels, d_expand_bias);
    };
    ShareTwice(sizes.workers, sizes.images, by_image, go_on, kPieces, sum_images);
  }

 private:
  static void GateGradient(const float* dy, const float* x, const float* gates,
                           const Excitation& sizes, float* d_gates) {
    const int64_t channels = sizes.channels;
    sizes.SumPixels(d_gates, [&](int64_t pixel, float* __restrict sums) {
      const float* __restrict a = dy + pixel * channels;
      const float* __restrict b = x + pixel * channels;
      for (int64_t c = 0; c < channels; ++c) sums[c] += a[c] * b[c];
    });
    for (int64_t c = 0; c < channels; ++c) d_gates[c] *= gates[c] * (1.0f - gates[c]);
  }

  // dx = dy * gate + d_mean / pixels. `dy` and `dx` may be the same memory.
  static void ImageGradient(const float* dy, const float* __restrict gates, const float* reduce,
                            const float* d_hidden, const Excitation& sizes, float* dx) {
    const int64_t channels = sizes.channels;
    std::vector<float> offsets(channels);
    float* __restrict offset = offsets.data();
    for (int64_t c = 0; c < channels; ++c) {
      offset[c] = Dot(reduce + c * sizes.squeezed, d_hidden, sizes.squeezed) / sizes.pixels;
    }
    for (int64_t pixel = 0; pixel < sizes.pixels; ++pixel, dy += channels, dx += channels) {
#pragma GCC ivdep
      for (int64_t c = 0; c < channels; ++c) dx[c] = dy[c] * gates[c] + offset[c];
    }
  }

  // Each of these rows of the sums is that of the images' `values`, `width` of each, times
  // factor(image, row).
  template <class Factor>
  static void SumImages(const Excitation& sizes, Factor factor, int64_t first, int64_t end,
                        const std::vector<float>& values, int64_t width, float* sums) {
    for (int64_t row = first; row < end; ++row) {
      float* of_row = sums + row * width;
      std::fill_n(of_row, width, 0.0f);
      for (int64_t n = 0; n < sizes.images; ++n) {
        AddScaled(factor(n, row), &values[n * width], width, of_row);
      }
    }
  }

  static constexpr int64_t kPieces = 16;  // of the sums' rows, which threads share
};

}  // namespace effnetv2_tf

#endif  // EFFNETV2_TF_KERNELS_SQUEEZE_EXCITE_H_
