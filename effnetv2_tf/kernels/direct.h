// 3x3 convolutions of few channels, a stem's, as the definition has them: with channels that fill
// no vector, Winograd's transformations would take longer than the multiplications that they save.

#ifndef EFFNETV2_TF_KERNELS_DIRECT_H_
#define EFFNETV2_TF_KERNELS_DIRECT_H_

#include "memory.h"
#include "products.h"
#include "strided.h"

namespace effnetv2_tf {
namespace direct {

constexpr int64_t kSide = 3;
constexpr int64_t kFewestChannels = 8;  // that are worth Winograd's algorithm

// The pixels under a row of the kernel lie in one row, one after the other: those under
// neighbouring pixels of the result, `stride` pixels apart, are a product's left matrix.
template <class Finish>
class Convolution {
 public:
  // `kernel`: its rows of taps and channels in panels, (9 * channels, filters).
  Convolution(const Side& height, const Side& width, int64_t stride, int64_t channels,
              const Panels& panels, const float* kernel, const Finish& finish)
      : height_(height),
        width_(width),
        step_(stride * channels),
        stride_(stride),
        channels_(channels),
        inner_(kSide * channels),
        line_((RoundUp(width.outputs, kRows) * stride + kSide) * channels),
        panels_(panels),
        kernel_(kernel),
        finish_(finish) {}

  // Rows of the result, all images' one after the other.
  void Compute(std::pair<int64_t, int64_t> rows, const float* x, float* y) const {
    const auto lines = Uninitialized(kSide * line_);
    std::fill_n(lines.get(), kSide * line_, 0.0f);  // which padding stays
    for (int64_t row = rows.first; row < rows.second; ++row) {
      const int64_t image = row / height_.outputs * height_.size;
      for (int64_t i = 0; i < kSide; ++i) {
        CopyLine(x, image, height_.Find<1>(row % height_.outputs * stride_ + i),
                 &lines[i * line_]);
      }
      MultiplyLines(lines.get(), y + row * width_.outputs * panels_.columns);
    }
  }

 private:
  // `row`: of the image, or -1 for padding.
  void CopyLine(const float* x, int64_t image, int64_t row, float* line) const {
    const int64_t size = width_.size * channels_;
    float* to = line + width_.padding * channels_;
    if (row < 0) {
      std::fill_n(to, size, 0.0f);
    } else {
      std::copy_n(x + (image + row) * size, size, to);
    }
  }

  void MultiplyLines(const float* lines, float* y) const {
    float tile[kRows * kWidest * kWidth];
    for (int64_t first = 0; first < width_.outputs; first += kRows) {
      panels_.ForEach([&](const Panel& panel) {
        const int64_t width = panel.vectors * kWidth;
        const float* kernel = kernel_ + kSide * inner_ * panel.column;
        for (int64_t i = 0; i < kSide; ++i, kernel += inner_ * width) {
          const auto multiply = i == 0 ? Multiply<false> : Multiply<true>;
          multiply({lines + i * line_ + first * step_, step_, 1, inner_}, kernel, panel.vectors,
                   tile, width);
        }
        const int64_t pixels = std::min(kRows, width_.outputs - first);
        float* at = y + first * panels_.columns + panel.column;
        for (int64_t p = 0; p < pixels; ++p) {
          std::copy_n(tile + p * width, panel.columns, at + p * panels_.columns);
        }
        finish_(at, panels_.columns, pixels, panel.column, panel.columns);
      });
    }
  }

  const Side height_, width_;
  const int64_t step_, stride_, channels_, inner_;
  const int64_t line_;  // elements of a row with its padding, as many as products read
  const Panels panels_;
  const float* const kernel_;
  const Finish finish_;
};

}  // namespace direct
}  // namespace effnetv2_tf

#endif  // EFFNETV2_TF_KERNELS_DIRECT_H_
