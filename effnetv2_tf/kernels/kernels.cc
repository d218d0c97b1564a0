// The operations of this package's own: what they take and return, for TensorFlow. What they compute
// is in the headers; `operations.py` has the Python side. One source, as TensorFlow's headers are
// most of what takes a compiler its time.

#include "batch_norm.h"
#include "conv3x3.h"
#include "depthwise.h"
#include "inference.h"
#include "inference_depthwise.h"
#include "inference_projected.h"
#include "pointwise.h"
#include "residual.h"
#include "rms_prop.h"
#include "squeeze_excite.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/shape_inference.h"

namespace effnetv2_tf {
namespace {

using tensorflow::shape_inference::InferenceContext;
using tensorflow::shape_inference::ShapeHandle;

absl::Status ForwardShapes(InferenceContext* context) {
  context->set_output(0, context->input(0));
  const auto channels = context->NumElements(context->input(1));
  context->set_output(1, context->Matrix(Statistics::kRows, channels));
  return absl::OkStatus();
}

absl::Status BackwardShapes(InferenceContext* context) {
  for (int i = 0; i < 3; ++i) context->set_output(i, context->input(i == 0 ? 1 : 2));
  return absl::OkStatus();
}

absl::Status ExciteShapes(InferenceContext* context) {
  ShapeHandle x, expand;
  TF_RETURN_IF_ERROR(context->WithRank(context->input(0), 4, &x));
  TF_RETURN_IF_ERROR(context->WithRank(context->input(3), 4, &expand));
  context->set_output(0, x);
  tensorflow::shape_inference::DimensionHandle kept;
  const auto channels = context->Dim(expand, 3);
  TF_RETURN_IF_ERROR(context->Add(channels, channels, &kept));
  TF_RETURN_IF_ERROR(context->Add(kept, context->Dim(expand, 2), &kept));
  context->set_output(1, context->Matrix(context->Dim(x, 0), kept));
  return absl::OkStatus();
}

absl::Status ExciteGradShapes(InferenceContext* context) {
  ShapeHandle reduce, expand;
  TF_RETURN_IF_ERROR(context->WithRank(context->input(2), 4, &reduce));
  TF_RETURN_IF_ERROR(context->WithRank(context->input(3), 4, &expand));
  context->set_output(0, context->input(1));
  context->set_output(1, reduce);
  context->set_output(2, context->Vector(context->Dim(reduce, 3)));
  context->set_output(3, expand);
  context->set_output(4, context->Vector(context->Dim(expand, 3)));
  return absl::OkStatus();
}

absl::Status ConvolutionGradShapes(InferenceContext* context) {
  for (int i = 0; i < 2; ++i) context->set_output(i, context->input(i + 1));
  return absl::OkStatus();
}

// Images of a convolution with `stride` and "SAME" padding.
absl::Status StridedShape(InferenceContext* context, ShapeHandle* shape) {
  int64_t stride;
  TF_RETURN_IF_ERROR(context->GetAttr("stride", &stride));
  TF_RETURN_IF_ERROR(context->WithRank(context->input(0), 4, shape));
  for (int axis : {1, 2}) {
    tensorflow::shape_inference::DimensionHandle side;
    TF_RETURN_IF_ERROR(context->Add(context->Dim(*shape, axis), stride - 1, &side));
    TF_RETURN_IF_ERROR(context->Divide(side, stride, /*evenly_divisible=*/false, &side));
    TF_RETURN_IF_ERROR(context->ReplaceDim(*shape, axis, side, shape));
  }
  return absl::OkStatus();
}

absl::Status DepthwiseShape(InferenceContext* context) {
  ShapeHandle y;
  TF_RETURN_IF_ERROR(StridedShape(context, &y));
  context->set_output(0, y);
  return absl::OkStatus();
}

absl::Status ConvolutionShape(InferenceContext* context) {
  ShapeHandle kernel, y;
  TF_RETURN_IF_ERROR(StridedShape(context, &y));
  TF_RETURN_IF_ERROR(context->WithRank(context->input(1), 4, &kernel));
  TF_RETURN_IF_ERROR(context->ReplaceDim(y, 3, context->Dim(kernel, 3), &y));
  context->set_output(0, y);
  return absl::OkStatus();
}

// The first result: images with as many channels as the bias that is input `bias`.
absl::Status BiasedShape(InferenceContext* context, int bias) {
  ShapeHandle y;
  TF_RETURN_IF_ERROR(StridedShape(context, &y));
  const auto channels = context->NumElements(context->input(bias));
  TF_RETURN_IF_ERROR(context->ReplaceDim(y, 3, channels, &y));
  context->set_output(0, y);
  return absl::OkStatus();
}

absl::Status ProjectedShape(InferenceContext* context) { return BiasedShape(context, 4); }

absl::Status FirstShape(InferenceContext* context) {
  context->set_output(0, context->input(0));
  return absl::OkStatus();
}

absl::Status PointwiseShape(InferenceContext* context) {
  ShapeHandle x, kernel, y;
  TF_RETURN_IF_ERROR(context->WithRankAtLeast(context->input(0), 1, &x));
  TF_RETURN_IF_ERROR(context->WithRank(context->input(1), 4, &kernel));
  TF_RETURN_IF_ERROR(context->ReplaceDim(x, -1, context->Dim(kernel, 3), &y));
  context->set_output(0, y);
  return absl::OkStatus();
}

// Such images, and their means in parts.
absl::Status WithMeansShapes(InferenceContext* context, int bias) {
  TF_RETURN_IF_ERROR(BiasedShape(context, bias));
  const ShapeHandle y = context->output(0);
  context->set_output(1, context->MakeShape({context->Dim(y, 0), context->UnknownDim(),
                                             context->Dim(y, 3)}));
  return absl::OkStatus();
}

absl::Status DepthwiseInferenceShapes(InferenceContext* context) {
  return WithMeansShapes(context, 2);
}

absl::Status ExpandedInferenceShapes(InferenceContext* context) {
  return WithMeansShapes(context, 4);
}

absl::Status GatesShape(InferenceContext* context) {
  ShapeHandle means;
  TF_RETURN_IF_ERROR(context->WithRank(context->input(0), 3, &means));
  context->set_output(0, context->Matrix(context->Dim(means, 0), context->Dim(means, 2)));
  return absl::OkStatus();
}

}  // namespace

// `moving`: the moving mean and variance, to take over `share` of the batch's, or nothing.
#define REGISTER_FORWARD(name)       \
  REGISTER_OP(name)                  \
      .Input("x: float")             \
      .Input("gamma: float")         \
      .Input("beta: float")          \
      .Input("moving: N * resource") \
      .Output("y: float")            \
      .Output("statistics: float")   \
      .Attr("N: int >= 0")           \
      .Attr("epsilon: float")        \
      .Attr("share: float")          \
      .SetIsStateful()               \
      .SetShapeFn(ForwardShapes)

#define REGISTER_BACKWARD(name)   \
  REGISTER_OP(name)               \
      .Input("dy: float")         \
      .Input("x: float")          \
      .Input("gamma: float")      \
      .Input("beta: float")       \
      .Input("statistics: float") \
      .Output("dx: float")        \
      .Output("dgamma: float")    \
      .Output("dbeta: float")     \
      .Attr("epsilon: float")     \
      .SetShapeFn(BackwardShapes)

#define REGISTER_CPU_KERNEL(name, ...) \
  REGISTER_KERNEL_BUILDER(Name(name).Device(tensorflow::DEVICE_CPU), __VA_ARGS__)

REGISTER_FORWARD("Effnetv2BatchNorm");
REGISTER_FORWARD("Effnetv2BatchNormSilu");
REGISTER_BACKWARD("Effnetv2BatchNormGrad");
REGISTER_BACKWARD("Effnetv2BatchNormSiluGrad");

REGISTER_OP("Effnetv2SqueezeExcite")
    .Input("x: float")
    .Input("reduce_kernel: float")
    .Input("reduce_bias: float")
    .Input("expand_kernel: float")
    .Input("expand_bias: float")
    .Output("y: float")
    .Output("kept: float")
    .SetShapeFn(ExciteShapes);

REGISTER_OP("Effnetv2SqueezeExciteGrad")
    .Input("dy: float")
    .Input("x: float")
    .Input("reduce_kernel: float")
    .Input("expand_kernel: float")
    .Input("kept: float")
    .Output("dx: float")
    .Output("d_reduce_kernel: float")
    .Output("d_reduce_bias: float")
    .Output("d_expand_kernel: float")
    .Output("d_expand_bias: float")
    .SetShapeFn(ExciteGradShapes);

REGISTER_OP("Effnetv2Conv3x3")
    .Input("x: float")
    .Input("kernel: float")
    .Output("y: float")
    .Attr("stride: int")
    .SetShapeFn(ConvolutionShape);

REGISTER_OP("Effnetv2Conv3x3Grad")
    .Input("dy: float")
    .Input("x: float")
    .Input("kernel: float")
    .Output("dx: float")
    .Output("dkernel: float")
    .Attr("stride: int")
    .SetShapeFn(ConvolutionGradShapes);

// `kernel`: (side, side, channels, 1).
REGISTER_OP("Effnetv2DepthwiseConv")
    .Input("x: float")
    .Input("kernel: float")
    .Output("y: float")
    .Attr("stride: int")
    .SetShapeFn(DepthwiseShape);

REGISTER_OP("Effnetv2DepthwiseConvGrad")
    .Input("dy: float")
    .Input("x: float")
    .Input("kernel: float")
    .Output("dx: float")
    .Output("dkernel: float")
    .Attr("stride: int")
    .SetShapeFn(ConvolutionGradShapes);

// `x`: (..., channels).
REGISTER_OP("Effnetv2PointwiseConv")
    .Input("x: float")
    .Input("kernel: float")
    .Output("y: float")
    .SetShapeFn(PointwiseShape);

REGISTER_OP("Effnetv2PointwiseConvGrad")
    .Input("dy: float")
    .Input("x: float")
    .Input("kernel: float")
    .Output("dx: float")
    .Output("dkernel: float")
    .SetShapeFn(ConvolutionGradShapes);

// `factors`: one for each image, of any shape.
REGISTER_OP("Effnetv2Residual")
    .Input("branch: float")
    .Input("factors: float")
    .Input("skip: float")
    .Output("y: float")
    .SetShapeFn(FirstShape);

REGISTER_OP("Effnetv2ResidualGrad")
    .Input("dy: float")
    .Input("factors: float")
    .Output("dbranch: float")
    .SetShapeFn(FirstShape);

REGISTER_OP("Effnetv2RmsProp")
    .Attr("N: int >= 1")
    .Input("variables: N * resource")
    .Input("mean_squares: N * resource")
    .Input("momenta: N * resource")
    .Input("gradients: N * float")
    .Input("rate: float")
    .Attr("rho: float")
    .Attr("momentum: float")
    .Attr("epsilon: float")
    .SetIsStateful()
    .SetShapeFn(tensorflow::shape_inference::NoOutputs);

#define ACTIVATION "activation: {'linear', 'silu', 'relu6'}"

// `skip`: images to add, or nothing.
REGISTER_OP("Effnetv2InferenceConv3x3")
    .Input("x: float")
    .Input("kernel: float")
    .Input("bias: float")
    .Input("skip: N * float")
    .Output("y: float")
    .Attr("N: int >= 0")
    .Attr("stride: int")
    .Attr(ACTIVATION)
    .SetShapeFn(ConvolutionShape);

REGISTER_OP("Effnetv2InferenceNormalize")
    .Input("x: float")
    .Input("scale: float")
    .Input("offset: float")
    .Output("y: float")
    .SetShapeFn(FirstShape);

REGISTER_OP("Effnetv2InferenceProjectedConv3x3")
    .Input("x: float")
    .Input("kernel: float")
    .Input("bias: float")
    .Input("project_kernel: float")
    .Input("project_bias: float")
    .Input("skip: N * float")
    .Output("y: float")
    .Attr("N: int >= 0")
    .Attr("stride: int")
    .Attr(ACTIVATION)
    .SetShapeFn(ProjectedShape);

REGISTER_OP("Effnetv2InferenceDepthwiseConv")
    .Input("x: float")
    .Input("kernel: float")
    .Input("bias: float")
    .Output("y: float")
    .Output("means: float")
    .Attr("stride: int")
    .Attr(ACTIVATION)
    .SetShapeFn(DepthwiseInferenceShapes);

REGISTER_OP("Effnetv2InferenceExpandedDepthwiseConv")
    .Input("x: float")
    .Input("expand_kernel: float")
    .Input("expand_bias: float")
    .Input("kernel: float")
    .Input("bias: float")
    .Output("y: float")
    .Output("means: float")
    .Attr("stride: int")
    .Attr(ACTIVATION)
    .SetShapeFn(ExpandedInferenceShapes);

// `means`: (batch, parts, channels).
REGISTER_OP("Effnetv2InferenceGates")
    .Input("means: float")
    .Input("reduce_kernel: float")
    .Input("reduce_bias: float")
    .Input("expand_kernel: float")
    .Input("expand_bias: float")
    .Output("gates: float")
    .SetShapeFn(GatesShape);

// `gates`: of each image and channel, or nothing; `skip` as above.
REGISTER_OP("Effnetv2InferencePointwiseConv")
    .Input("x: float")
    .Input("kernel: float")
    .Input("bias: float")
    .Input("gates: N * float")
    .Input("skip: M * float")
    .Output("y: float")
    .Attr("N: int >= 0")
    .Attr("M: int >= 0")
    .Attr(ACTIVATION)
    .SetShapeFn(PointwiseShape);

REGISTER_CPU_KERNEL("Effnetv2BatchNorm", Forward<Identity>);
REGISTER_CPU_KERNEL("Effnetv2BatchNormSilu", Forward<Silu>);
REGISTER_CPU_KERNEL("Effnetv2BatchNormGrad", Backward<Identity>);
REGISTER_CPU_KERNEL("Effnetv2BatchNormSiluGrad", Backward<Silu>);
REGISTER_CPU_KERNEL("Effnetv2SqueezeExcite", SqueezeExcite);
REGISTER_CPU_KERNEL("Effnetv2SqueezeExciteGrad", SqueezeExciteGrad);
REGISTER_CPU_KERNEL("Effnetv2Conv3x3", winograd::Conv3x3);
REGISTER_CPU_KERNEL("Effnetv2Conv3x3Grad", winograd::Conv3x3Grad);
REGISTER_CPU_KERNEL("Effnetv2DepthwiseConv", depthwise::DepthwiseConv);
REGISTER_CPU_KERNEL("Effnetv2DepthwiseConvGrad", depthwise::DepthwiseConvGrad);
REGISTER_CPU_KERNEL("Effnetv2PointwiseConv", pointwise::PointwiseConv);
REGISTER_CPU_KERNEL("Effnetv2PointwiseConvGrad", pointwise::PointwiseConvGrad);
REGISTER_CPU_KERNEL("Effnetv2Residual", residual::Sum<true>);
REGISTER_CPU_KERNEL("Effnetv2ResidualGrad", residual::Sum<false>);
REGISTER_CPU_KERNEL("Effnetv2RmsProp", RmsProp);
REGISTER_CPU_KERNEL("Effnetv2InferenceConv3x3", inference::Conv3x3);
REGISTER_CPU_KERNEL("Effnetv2InferenceNormalize", inference::Normalize);
REGISTER_CPU_KERNEL("Effnetv2InferenceProjectedConv3x3", inference::ProjectedConv3x3);
REGISTER_CPU_KERNEL("Effnetv2InferenceDepthwiseConv", inference::DepthwiseConv);
REGISTER_CPU_KERNEL("Effnetv2InferenceExpandedDepthwiseConv", inference::ExpandedDepthwiseConv);
REGISTER_CPU_KERNEL("Effnetv2InferenceGates", inference::Gates);
REGISTER_CPU_KERNEL("Effnetv2InferencePointwiseConv", inference::PointwiseConv);

}  // namespace effnetv2_tf
