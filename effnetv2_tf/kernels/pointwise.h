// 1x1 convolutions, which are products of matrices, and both their gradients: float32 on CPUs,
// channels last. As fast as TensorFlow's products on one thread; on more of them one operation wakes
// the others once, where TensorFlow's gradients are two that wait for each other's threads.

#ifndef EFFNETV2_TF_KERNELS_POINTWISE_H_
#define EFFNETV2_TF_KERNELS_POINTWISE_H_

#include "finish.h"
#include "memory.h"
#include "products.h"
#include "rows.h"

namespace effnetv2_tf {
namespace pointwise {

constexpr int64_t kBlock = 256;  // rows that are added up before sums are stored

// A product's result in pieces: some rows, whole multiples of kRows but for the last ones, of the
// columns of one panel.
class Pieces {
 public:
  Pieces(int64_t rows, const Panels& panels, int64_t workers)
      : parts(std::clamp<int64_t>((PiecesFor(workers) + panels.count() - 1) / panels.count(), 1,
                                  std::max<int64_t>(1, rows / kLeastRows))),
        rows_(rows),
        panels_(panels) {}

  int64_t count() const { return parts * panels_.count(); }

  // Calls work(part, (first row, end of rows), panel).
  template <class Work>
  void Find(int64_t piece, Work work) const {
    const int64_t part = piece / panels_.count();
    const auto [first, end] = PartOf((rows_ + kRows - 1) / kRows, part, parts);
    work(part, std::pair(first * kRows, std::min(end * kRows, rows_)), piece % panels_.count());
  }

  const int64_t parts;  // of the rows

 private:
  static constexpr int64_t kLeastRows = 64;  // that are worth a panel of their own

  const int64_t rows_;
  const Panels panels_;
};

// Some columns of rows of `step` elements, in the order of a product: a panel.
inline void Pack(const float* from, int64_t rows, int64_t step, const Panel& panel, float* to) {
  for (int64_t i = 0; i < rows; ++i, from += step) {
    panel.ForEachVector([&](int64_t column, auto part) {
      Store(part.Load(from + column), to);
      to += kWidth;
    });
  }
}

// All columns, panel after panel.
inline void PackAll(const float* from, int64_t rows, const Panels& panels, float* to) {
  panels.ForEach([&](const Panel& panel) {
    Pack(from, rows, panels.columns, panel, to + rows * panel.column);
  });
}

// Columns as rows: element j of row i and element i of row j change places.
inline void Transpose(Vector (&rows)[kWidth]) {
#ifdef __clang__
  for (int64_t i = 0; i < kWidth; ++i) {
    for (int64_t j = 0; j < i; ++j) {
      const float element = rows[i][j];
      rows[i][j] = rows[j][i];
      rows[j][i] = element;
    }
  }
#else
  // Of a place's bits, those of the row before those of the column, a pass turns all one further.
  typedef int32_t Lanes __attribute__((vector_size(sizeof(Vector))));
  Lanes low, high;
  for (int32_t i = 0; i < kWidth; ++i) {
    low[i] = i % 2 * kWidth + i / 2;
    high[i] = low[i] + kWidth / 2;
  }
  Vector turned[kWidth];
#pragma GCC unroll 4
  for (int64_t pass = 1; pass < kWidth; pass *= 2) {
#pragma GCC unroll 8
    for (int64_t i = 0; i < kWidth / 2; ++i) {
      turned[2 * i] = __builtin_shuffle(rows[i], rows[i + kWidth / 2], low);
      turned[2 * i + 1] = __builtin_shuffle(rows[i], rows[i + kWidth / 2], high);
    }
#pragma GCC unroll 16
    for (int64_t i = 0; i < kWidth; ++i) rows[i] = turned[i];
  }
#endif
}

// The same of the matrix turned round, whose columns are rows of `rows` elements.
inline void PackTransposed(const float* from, int64_t rows, const Panel& panel, float* to) {
  for (int64_t v = 0; v < panel.vectors; ++v) {
    const int64_t columns = std::min(kWidth, panel.columns - v * kWidth);
    const float* column = from + (panel.column + v * kWidth) * rows;
    for (int64_t first = 0; first < rows; first += kWidth) {
      const PartOfVector part{std::min(kWidth, rows - first)};
      Vector square[kWidth] = {};
      if (columns == kWidth && part.size == kWidth) {
#pragma GCC unroll 16
        for (int64_t i = 0; i < kWidth; ++i) square[i] = Load<Vector>(column + i * rows + first);
      } else {
        for (int64_t i = 0; i < columns; ++i) square[i] = part.Load(column + i * rows + first);
      }
      Transpose(square);
      float* at = to + (first * panel.vectors + v) * kWidth;
      for (int64_t i = 0; i < part.size; ++i) Store(square[i], at + i * panel.vectors * kWidth);
    }
  }
}

// Some rows of left (rows, inner) * a panel, into the panel's columns of rows of `columns` elements.
template <class Finish>
void MultiplyRows(const float* left, int64_t inner, std::pair<int64_t, int64_t> rows,
                  const float* right, const Panel& panel, int64_t columns, float* to,
                  const Finish& finish) {
  const int64_t width = panel.vectors * kWidth;
  std::vector<float> last;  // rows, filled up to as many as are multiplied at a time
  float tile[kRows * kWidest * kWidth];
  for (int64_t row = rows.first; row < rows.second; row += kRows) {
    const float* from = left + row * inner;
    float* result = to + row * columns + panel.column;
    const int64_t count = std::min(kRows, rows.second - row);
    if (count < kRows) {
      last.assign(kRows * inner, 0.0f);
      std::copy(from, from + count * inner, last.begin());
      from = last.data();
    }
    const bool is_whole = count == kRows && panel.columns == width;
    Multiply<false>({from, inner, 1, inner}, right, panel.vectors, is_whole ? result : tile,
                    is_whole ? columns : width);
    for (int64_t i = 0; i < (is_whole ? 0 : count); ++i) {
      std::copy_n(tile + i * width, panel.columns, result + i * columns);
    }
    finish(result, columns, count, panel.column, panel.columns);
  }
}

// A piece of left (rows, inner) * a matrix (inner, columns), whose panels pack(panel, to) makes.
template <class PackPanel>
void MultiplyPiece(const Pieces& pieces, int64_t piece, const float* left, int64_t inner,
                   const Panels& panels, PackPanel pack, float* to) {
  pieces.Find(piece, [&](int64_t, std::pair<int64_t, int64_t> rows, int64_t index) {
    const Panel panel = panels[index];
    const auto right = Uninitialized(inner * panel.vectors * kWidth);
    pack(panel, right.get());
    MultiplyRows(left, inner, rows, right.get(), panel, panels.columns, to, Unfinished{});
  });
}

// The gradient of a kernel: images (rows, channels) transposed * slopes (rows, columns), added up
// over parts of the rows.
class KernelGradient {
 public:
  KernelGradient(const float* images, int64_t channels, const float* slopes, const Panels& panels,
                 const Pieces& pieces)
      : images_(images),
        channels_(channels),
        height_(RoundUp(channels, kRows)),
        slopes_(slopes),
        panels_(panels),
        pieces_(pieces),
        need_sums_(pieces.parts > 1 || channels != height_ || panels.columns != panels.width()),
        missing_(panels.count()) {
    for (auto& parts : missing_) parts = pieces.parts;
  }

  // Elements of the sums.
  int64_t size() const { return need_sums_ ? pieces_.parts * part_size() : 0; }

  // Adds up a piece, in its place or, where it is one part of several or is filled up, in `sums`: who
  // adds up a panel's last part finishes the panel.
  void Compute(int64_t piece, float* sums, float* to) {
    pieces_.Find(piece, [&](int64_t part, std::pair<int64_t, int64_t> rows, int64_t index) {
      const Panel panel = panels_[index];
      if (!need_sums_) {
        Sum(rows, panel, to + panel.column, panels_.columns);
        return;
      }
      float* first = sums + panel.column * height_;
      Sum(rows, panel, first + part * part_size(), panel.vectors * kWidth);
      if (--missing_[index] == 0) Finish(first, panel, to);
    });
  }

 private:
  int64_t part_size() const { return height_ * panels_.width(); }

  // Into rows of sums that lie `step` elements apart.
  void Sum(std::pair<int64_t, int64_t> rows, const Panel& panel, float* sums,
           int64_t step) const {
    const int64_t columns = panels_.columns;
    const auto right = Uninitialized(kBlock * panel.vectors * kWidth);
    for (int64_t first = rows.first; first < rows.second; first += kBlock) {
      const int64_t count = std::min(kBlock, rows.second - first);
      Pack(slopes_ + first * columns, count, columns, panel, right.get());
      const auto multiply = first > rows.first ? Multiply<true> : Multiply<false>;
      for (int64_t c = 0; c < height_; c += kRows) {
        float last[kBlock * kRows];  // channels, filled up to as many as are multiplied at a time
        const float* from = images_ + first * channels_ + c;
        int64_t distance = channels_;
        if (c + kRows > channels_) {
          for (int64_t i = 0; i < count; ++i) {
            for (int64_t k = 0; k < kRows; ++k) {
              last[i * kRows + k] = c + k < channels_ ? from[i * channels_ + k] : 0.0f;
            }
          }
          from = last;
          distance = kRows;
        }
        multiply({from, 1, distance, count}, right.get(), panel.vectors, sums + c * step, step);
      }
    }
  }

  void Finish(const float* sums, const Panel& panel, float* to) const {
    for (int64_t c = 0; c < channels_; ++c) {
      panel.ForEachVector([&](int64_t column, auto part) {
        Vector sum{};
        for (int64_t i = 0; i < pieces_.parts; ++i) sum += Load<Vector>(sums + i * part_size());
        part.Store(sum, to + c * panels_.columns + column);
        sums += kWidth;
      });
    }
  }

  const float* const images_;
  const int64_t channels_, height_;
  const float* const slopes_;
  const Panels panels_;
  const Pieces pieces_;
  const bool need_sums_;
  std::vector<std::atomic<int64_t>> missing_;  // parts of each panel
};

// What both operations have in common: images of any shape, the channels last, and a kernel.
struct Sizes {
  Sizes(const Tensor& x, const Tensor& kernel)
      : inputs(kernel.dim_size(2)),
        outputs(kernel.dim_size(3)),
        rows(RowsOf(x)) {}

  static absl::Status Check(const Tensor& x, const Tensor& kernel) {
    if (kernel.dims() != 4 || kernel.dim_size(0) != 1 || kernel.dim_size(1) != 1) {
      return tensorflow::errors::InvalidArgument(
          "expected a kernel of 1x1, received a tensor shaped ", kernel.shape().DebugString());
    }
    const int64_t channels = kernel.dim_size(2);
    if (x.dims() > 0 && x.dim_size(x.dims() - 1) == channels) return absl::OkStatus();
    return tensorflow::errors::InvalidArgument("expected ", channels,
                                               " channels, received a tensor shaped ",
                                               x.shape().DebugString());
  }

  int64_t Workers(int64_t products, OpKernelContext* context) const {
    return ThreadsFor(products * rows * inputs * outputs / 64, context);
  }

  // The shape of images with as many channels as the kernel gives.
  TensorShape Result(const Tensor& x) const {
    TensorShape shape = x.shape();
    shape.set_dim(shape.dims() - 1, outputs);
    return shape;
  }

  const int64_t inputs, outputs, rows;

 private:
  static int64_t RowsOf(const Tensor& x) {
    int64_t rows = 1;
    for (int axis = 0; axis + 1 < x.dims(); ++axis) rows *= x.dim_size(axis);
    return rows;
  }
};

class PointwiseConv : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* context) override {
    const Tensor &x = context->input(0), &kernel = context->input(1);
    OP_REQUIRES_OK(context, Sizes::Check(x, kernel));
    const Sizes sizes(x, kernel);
    Tensor* y = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, sizes.Result(x), &y));
    if (y->NumElements() == 0) return;
    const int64_t workers = sizes.Workers(1, context);
    const Panels panels(sizes.outputs);
    const Pieces pieces(sizes.rows, panels, workers);
    const auto pack = [&](const Panel& panel, float* to) {
      Pack(Values(kernel), sizes.inputs, sizes.outputs, panel, to);
    };
    Share(workers, pieces.count(), [&](int64_t piece) {
      MultiplyPiece(pieces, piece, Values(x), sizes.inputs, panels, pack, Values(y));
    });
  }
};

class PointwiseConvGrad : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* context) override {
    const Tensor &dy = context->input(0), &x = context->input(1), &kernel = context->input(2);
    OP_REQUIRES_OK(context, Sizes::Check(x, kernel));
    const Sizes sizes(x, kernel);
    OP_REQUIRES_OK(context, CheckShape(dy, sizes.Result(x)));
    Tensor *dx = nullptr, *dkernel = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, x.shape(), &dx));
    OP_REQUIRES_OK(context, context->allocate_output(1, kernel.shape(), &dkernel));
    if (x.NumElements() == 0 || dy.NumElements() == 0) {
      std::fill_n(Values(dx), dx->NumElements(), 0.0f);
      std::fill_n(Values(dkernel), dkernel->NumElements(), 0.0f);
      return;
    }
    const int64_t workers = sizes.Workers(2, context);
    const Panels inputs(sizes.inputs), outputs(sizes.outputs);
    const Pieces pieces(sizes.rows, inputs, workers), sums(sizes.rows, outputs, workers);
    KernelGradient gradient(Values(x), sizes.inputs, Values(dy), outputs, sums);
    Tensor added;
    OP_REQUIRES_OK(context, Allocate(context, gradient.size(), &added));
    const auto pack = [&](const Panel& panel, float* to) {
      PackTransposed(Values(kernel), sizes.outputs, panel, to);
    };
    Share(workers, sums.count() + pieces.count(), [&](int64_t piece) {
      if (piece < sums.count()) {
        gradient.Compute(piece, Values(&added), Values(dkernel));
      } else {
        MultiplyPiece(pieces, piece - sums.count(), Values(dy), sizes.outputs, inputs, pack,
                      Values(dx));
      }
    });
  }
};

}  // namespace pointwise
}  // namespace effnetv2_tf

#endif  // EFFNETV2_TF_KERNELS_POINTWISE_H_
