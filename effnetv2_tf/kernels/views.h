// The same memory in another shape. TensorFlow's `Reshape` is told the shape by a tensor, which is up
// to four operations in a training step that asks images for theirs, and again in its gradient.

#ifndef EFFNETV2_TF_KERNELS_VIEWS_H_
#define EFFNETV2_TF_KERNELS_VIEWS_H_

#include "rows.h"

namespace effnetv2_tf {

inline void SetView(OpKernelContext* context, const Tensor& tensor, const TensorShape& shape) {
  Tensor view;
  OP_REQUIRES(context, view.CopyFrom(tensor, shape),
              tensorflow::errors::InvalidArgument("expected a shape like ", shape.DebugString(),
                                                  ", received ", tensor.shape().DebugString()));
  context->set_output(0, view);
}

// All axes but the last as one.
class AsRows : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* context) override {
    const Tensor& x = context->input(0);
    int64_t rows = 1;
    for (int axis = 0; axis < x.dims() - 1; ++axis) rows *= x.dim_size(axis);
    SetView(context, x, TensorShape({rows, x.dim_size(x.dims() - 1)}));
  }
};

// Rows with the axes of another tensor, but for the last, which is theirs.
class ShapedAs : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* context) override {
    const Tensor& rows = context->input(0);
    TensorShape shape = context->input(1).shape();
    shape.set_dim(shape.dims() - 1, rows.dim_size(1));
    SetView(context, rows, shape);
  }
};

}  // namespace effnetv2_tf

#endif  // EFFNETV2_TF_KERNELS_VIEWS_H_
