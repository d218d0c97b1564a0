// The sum of a residual branch, each image scaled by a factor of its own, and what leads past it, in
// one pass over the images; and the branch's gradient.

#ifndef EFFNETV2_TF_KERNELS_RESIDUAL_H_
#define EFFNETV2_TF_KERNELS_RESIDUAL_H_

#include "rows.h"

namespace effnetv2_tf {
namespace residual {

// factor * branch + skip, or without a skip factor * branch.
template <bool has_skip>
class Sum : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* context) override {
    const Tensor &branch = context->input(0), &factors = context->input(1);
    const Tensor& skip = context->input(has_skip ? 2 : 0);
    const int64_t images = branch.dims() > 0 ? branch.dim_size(0) : 0;
    OP_REQUIRES(context, skip.shape() == branch.shape(),
                tensorflow::errors::InvalidArgument("expected a skip shaped ",
                                                    branch.shape().DebugString(), ", received ",
                                                    skip.shape().DebugString()));
    OP_REQUIRES(context, factors.NumElements() == images,
                tensorflow::errors::InvalidArgument("expected a factor for each of ", images,
                                                    " images, received ", factors.NumElements()));
    Tensor* y = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, branch.shape(), &y));
    const int64_t elements = branch.NumElements();
    if (elements == 0) return;
    const int64_t workers = ThreadsFor(elements, context), pieces = PiecesFor(workers);
    Share(workers, pieces, [&](int64_t piece) {
      auto [first, end] = PartOf(elements, piece, pieces);
      while (first < end) {  // the image that `first` belongs to
        const int64_t image = first * images / elements;
        const int64_t last = std::min(end, (image + 1) * (elements / images));
        Add(Values(branch), Values(factors)[image], Values(skip), first, last, Values(y));
        first = last;
      }
    });
  }

 private:
  static void Add(const float* branch, float factor, const float* skip, int64_t first, int64_t end,
                  float* y) {
    for (int64_t i = first; i < end; ++i) {
      y[i] = has_skip ? factor * branch[i] + skip[i] : factor * branch[i];
    }
  }
};

}  // namespace residual
}  // namespace effnetv2_tf

#endif  // EFFNETV2_TF_KERNELS_RESIDUAL_H_
