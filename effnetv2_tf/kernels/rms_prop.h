// RMSProp with momentum, of all variables in one operation: float32 on CPUs. TensorFlow has one for
// each variable, of which a network has hundreds, most of them tiny.

#ifndef EFFNETV2_TF_KERNELS_RMS_PROP_H_
#define EFFNETV2_TF_KERNELS_RMS_PROP_H_

#include "rows.h"
#include "variables.h"

namespace effnetv2_tf {

class RmsProp : public OpKernel {
 public:
  explicit RmsProp(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("N", &count_));
    OP_REQUIRES_OK(context, context->GetAttr("rho", &rho_));
    OP_REQUIRES_OK(context, context->GetAttr("momentum", &momentum_));
    OP_REQUIRES_OK(context, context->GetAttr("epsilon", &epsilon_));
  }

  // Inputs: `count_` variables, their mean squares, their momenta, their gradients, the rate.
  void Compute(OpKernelContext* context) override {
    OP_REQUIRES_OK(context, CheckShape(context->input(4 * count_), {}));
    const float rate = context->input(4 * count_).scalar<float>()();
    LockedVariables variables;
    OP_REQUIRES_OK(context, variables.Lock(context, 0, 3 * count_));
    std::vector<Piece> pieces;
    for (int i = 0; i < count_; ++i) {
      const Tensor& gradient = context->input(3 * count_ + i);
      float* values[3];
      for (int k = 0; k < 3; ++k) {
        OP_REQUIRES_OK(context, variables.Write(context, k * count_ + i, gradient.shape(),
                                                &values[k]));
      }
      for (int64_t first = 0; first < gradient.NumElements(); first += kPiece) {
        pieces.push_back({Values(gradient) + first, values[0] + first, values[1] + first,
                          values[2] + first, std::min(kPiece, gradient.NumElements() - first)});
      }
    }
    const auto update = [&](int64_t i) { Update(pieces[i], rate); };
    Share(ThreadsFor(pieces.size() * kPiece, context), pieces.size(), update);
  }

 private:
  static constexpr int64_t kPiece = 16384;  // elements

  struct Piece {
    const float* gradient;
    float *variable, *mean_square, *momentum;
    int64_t size;
  };

  void Update(const Piece& piece, float rate) const {
    const float* __restrict gradient = piece.gradient;
    float* __restrict variable = piece.variable;
    float* __restrict mean_square = piece.mean_square;
    float* __restrict momentum = piece.momentum;
    for (int64_t i = 0; i < piece.size; ++i) {
      const float g = gradient[i];
      mean_square[i] += (g * g - mean_square[i]) * (1.0f - rho_);
      momentum[i] = momentum[i] * momentum_ + rate * g / std::sqrt(mean_square[i] + epsilon_);
      variable[i] -= momentum[i];
    }
  }

  int count_;
  float rho_, momentum_, epsilon_;
};

}  // namespace effnetv2_tf

#endif  // EFFNETV2_TF_KERNELS_RMS_PROP_H_
