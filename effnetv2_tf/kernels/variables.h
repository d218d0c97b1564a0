// TensorFlow's variables, written to in place.

#ifndef EFFNETV2_TF_KERNELS_VARIABLES_H_
#define EFFNETV2_TF_KERNELS_VARIABLES_H_

#include "rows.h"
#include "tensorflow/core/framework/resource_mgr.h"
#include "tensorflow/core/framework/resource_var.h"

namespace effnetv2_tf {

// Variables that nobody else writes while this lives.
class LockedVariables {
 public:
  ~LockedVariables() {
    for (tensorflow::Var* variable : in_order_) variable->mu()->unlock();
  }

  // Locks the variables of `count` of the operation's inputs from `first` on.
  absl::Status Lock(OpKernelContext* context, int first, int count) {
    for (int i = first; i < first + count; ++i) {
      tensorflow::core::RefCountPtr<tensorflow::Var> variable;
      TF_RETURN_IF_ERROR(
          LookupResource(context, tensorflow::HandleFromInput(context, i), &variable));
      variables_.push_back(std::move(variable));
    }
    std::vector<tensorflow::Var*> wanted;
    for (const auto& variable : variables_) wanted.push_back(variable.get());
    // By address, as TensorFlow's operations, so that no two wait for each other.
    std::sort(wanted.begin(), wanted.end(),
              [](auto* a, auto* b) { return a->mu() < b->mu(); });
    if (std::adjacent_find(wanted.begin(), wanted.end()) != wanted.end()) {
      return tensorflow::errors::InvalidArgument("expected different variables");
    }
    for (tensorflow::Var* variable : wanted) {
      variable->mu()->lock();
      in_order_.push_back(variable);
    }
    return absl::OkStatus();
  }

  // The values of a variable, to be written to. Whoever has read it keeps what it was: where its
  // memory is in others' hands the variable gets a copy.
  absl::Status Write(OpKernelContext* context, int64_t index, const TensorShape& shape,
                     float** values) {
    Tensor* tensor = variables_[index]->tensor();
    if (tensor->dtype() != tensorflow::DT_FLOAT || tensor->shape() != shape) {
      return tensorflow::errors::InvalidArgument(
          "expected a variable of floats shaped ", shape.DebugString(), ", received ",
          tensorflow::DataTypeString(tensor->dtype()), " shaped ", tensor->shape().DebugString());
    }
    if (!tensor->RefCountIsOne()) {
      Tensor copy;
      TF_RETURN_IF_ERROR(context->allocate_temp(tensorflow::DT_FLOAT, shape, &copy));
      std::copy_n(Values(*tensor), shape.num_elements(), Values(&copy));
      *tensor = copy;
    }
    *values = Values(tensor);
    return absl::OkStatus();
  }

 private:
  std::vector<tensorflow::core::RefCountPtr<tensorflow::Var>> variables_;
  std::vector<tensorflow::Var*> in_order_;  // locked
};

}  // namespace effnetv2_tf

#endif  // EFFNETV2_TF_KERNELS_VARIABLES_H_
