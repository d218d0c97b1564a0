// What convolutions with a stride of 1 or 2 have in common.

#ifndef EFFNETV2_TF_KERNELS_STRIDED_H_
#define EFFNETV2_TF_KERNELS_STRIDED_H_

#include "rows.h"

namespace effnetv2_tf {

// One side of images: pixels, padding before them, and pixels of the result.
struct Side {
  // What TensorFlow's "SAME" makes of `size` pixels.
  static Side Same(int64_t size, int64_t kernel, int64_t stride) {
    const int64_t outputs = (size + stride - 1) / stride;
    const int64_t padding = std::max<int64_t>(0, (outputs - 1) * stride + kernel - size);
    return {size, padding / 2, outputs};
  }

  // For the gradient, from the result's pixels to the image's.
  Side TurnedRound(int64_t kernel) const { return {outputs, kernel - 1 - padding, size}; }

  // The pixel at a place of the padded image whose pixels lie `distance` apart, or -1.
  template <int distance>
  int64_t Find(int64_t place) const {
    place -= padding;
    const bool is_pixel = place >= 0 && place % distance == 0 && place < size * distance;
    return is_pixel ? place / distance : -1;
  }

  int64_t size, padding, outputs;
};

class StridedOperation : public OpKernel {
 public:
  explicit StridedOperation(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("stride", &stride_));
    OP_REQUIRES(context, stride_ == 1 || stride_ == 2,
                tensorflow::errors::InvalidArgument("expected a stride of 1 or 2, received ",
                                                    stride_));
  }

 protected:
  int stride() const { return stride_; }

 private:
  int stride_;
};

}  // namespace effnetv2_tf

#endif  // EFFNETV2_TF_KERNELS_STRIDED_H_
