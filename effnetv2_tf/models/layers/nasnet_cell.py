"""NASNet's cell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args

import tensorflow as tf

from effnetv2_tf import keras_compat
from effnetv2_tf.models.genotypes import INPUT_STATES, Cell
from effnetv2_tf.models.layers.cell_operations import CellOperations
from effnetv2_tf.models.layers.factorized_reduction import FactorizedReduction
from effnetv2_tf.models.layers.layer_chain import LayerChain
from effnetv2_tf.models.layers.stochastic_depth import StochasticDepth

Shape = tuple[Any, ...]
PreviousSize = Literal["same", "double", "unaligned"]


@keras_compat.register_serializable("effnetv2_tf")
class NASNetCell(keras_compat.Layer):
    """One cell of a genotype (Zoph et al., arXiv 1707.07012, sections 3.1 and appendix A.4).

    The first input is projected to the cell's width, the second brought to its size and width.
    Blocks combine states; the cell's outputs are concatenated. With stride 2 the operations on
    the two inputs have it. In training each operation's result but the identity's is dropped
    for a sample, on its own, with the cell's drop-path rate (appendix A.7).

    Args:
      cell: of the genotype, or its plain values.
      filters: width of the cell.
      stride: 1 for a normal cell, 2 for a reduction cell.
      input_filters: channels of the first input.
      previous_filters: channels of the second.
      previous_size: how the second input's height and width compare with the first's: `"same"`,
        `"double"` (rounded up or down), or `"unaligned"` for the same and left as it is, as in
        the first cell of a network.
      drop_path_rate: probability of dropping an operation's result in training.
      batch_norm_momentum: share of the old moving statistics kept at each step.
      batch_norm_epsilon: added to the variance.
      synchronized: whether replicas share batch statistics.

    Input: a list of (batch, height, width, input_filters) and the second; output:
    (batch, ceil(height / stride), ceil(width / stride), channels of all outputs).
    """

    def __init__(
        self,
        cell: Cell | Mapping[str, Any],
        filters: int,
        stride: int,
        input_filters: int,
        previous_filters: int,
        previous_size: PreviousSize = "same",
        drop_path_rate: float = 0.0,
        batch_norm_momentum: float = 0.9997,
        batch_norm_epsilon: float = 1e-3,
        synchronized: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if stride not in (1, 2):
            raise ValueError(f"NASNetCell: `stride` must be 1 or 2. Received: {stride!r}.")
        if previous_size not in get_args(PreviousSize):
            raise ValueError(
                f"NASNetCell: `previous_size` must be one of {get_args(PreviousSize)}. "
                f"Received: {previous_size!r}."
            )
        self.cell = cell if isinstance(cell, Cell) else Cell.from_values(cell)
        self.filters = filters
        self.stride = stride
        self.input_filters = input_filters
        self.previous_filters = previous_filters
        self.previous_size = previous_size
        self.batch_norm_momentum = batch_norm_momentum
        self.batch_norm_epsilon = batch_norm_epsilon
        self.synchronized = synchronized

        self._factory = CellOperations(
            filters, batch_norm_momentum, batch_norm_epsilon, synchronized, self.dtype_policy
        )
        self.drop_path = StochasticDepth(drop_path_rate, dtype=self.dtype_policy, name="drop_path")
        self.project = LayerChain(
            self._factory.projection(), dtype=self.dtype_policy, name="project"
        )
        self.align = self._alignment()
        # Channels of the states that blocks and outputs see; all but state 1 have the width.
        self._widths = [filters] * (INPUT_STATES + len(self.cell.blocks))
        if self.align is None:
            self._widths[1] = previous_filters
        self.branches = [self._operation(i, side) for i, side in self._operand_places()]
        self.output_fits = [self._output_fit(state) for state in self.cell.output_states]

    def _chain(self, layers: list, name: str) -> LayerChain | None:
        return LayerChain(layers, dtype=self.dtype_policy, name=name) if layers else None

    def _reduction(self, name: str) -> FactorizedReduction:
        return FactorizedReduction(
            self.filters,
            self.batch_norm_momentum,
            self.batch_norm_epsilon,
            self.synchronized,
            dtype=self.dtype_policy,
            name=name,
        )

    def _alignment(self) -> FactorizedReduction | LayerChain | None:
        """What brings the second input to the first one's size and the cell's width."""
        if self.previous_size == "double":
            return self._reduction("align")
        if self.previous_size == "unaligned" or self.previous_filters == self.filters:
            return None
        return self._chain(self._factory.projection(), "align")

    def _operand_places(self) -> Iterator[tuple[int, int]]:
        """Block and side (0 left, 1 right) of every operation."""
        return ((i, side) for i in range(len(self.cell.blocks)) for side in (0, 1))

    def _operation(self, block: int, side: int) -> LayerChain | None:
        state, operation = self.cell.blocks[block].operands[side]
        stride = self.stride if state < INPUT_STATES else 1
        layers = self._factory.layers(operation, self._widths[state], stride)
        return self._chain(layers, f"block{block + 1}_{('left', 'right')[side]}")

    def _output_fit(self, state: int) -> FactorizedReduction | LayerChain | None:
        """What brings an input that is an output to the outputs' size and width."""
        if state < INPUT_STATES and self.stride == 2:
            return self._reduction(f"output{state}")
        if self._widths[state] != self.filters:
            return self._chain(self._factory.projection(), f"output{state}")
        return None

    @property
    def drop_path_rate(self) -> float:
        """The rate in force."""
        return self.drop_path.rate

    def set_drop_path_rate(self, rate: float) -> None:
        """Changes the probability of dropping an operation's result, for the next step on."""
        self.drop_path.rate = rate

    @property
    def output_filters(self) -> int:
        """Channels of the output."""
        return self.filters * len(self.cell.output_states)

    def parts(self, input_shape: Any) -> Iterator[tuple[Any, Shape]]:
        """The layers that hold weights with the shapes that they meet, in order of computation."""
        inputs, previous = (tuple(shape) for shape in input_shape)
        yield self.project, inputs
        if self.align is not None:
            yield self.align, previous
        batch, *sides, _ = inputs
        small = [None if side is None else -(-side // self.stride) for side in sides]
        shapes = [
            (batch, *(sides if state < INPUT_STATES else small), width)
            for state, width in enumerate(self._widths)
        ]
        states = [s for block in self.cell.blocks for s, _ in block.operands]
        for layer, state in zip(
            [*self.branches, *self.output_fits],
            [*states, *self.cell.output_states],
            strict=True,
        ):
            if layer is not None:
                yield layer, shapes[state]

    def build(self, input_shape: Any) -> None:
        received = tuple(shape[-1] for shape in input_shape)
        expected = (self.input_filters, self.previous_filters)
        if received != expected:
            raise ValueError(
                f"NASNetCell {self.name!r}: expected inputs with {expected} channels "
                f"(`input_filters`, `previous_filters`), received {received}."
            )
        for layer, shape in self.parts(input_shape):
            keras_compat.build_within(layer, shape)
        self.built = True

    def call(self, inputs: list[tf.Tensor], training: bool | None = None) -> tf.Tensor:
        current, previous = inputs
        previous = previous if self.align is None else self.align(previous)
        states = [self.project(current), previous]  # each (b, h, w, filters)
        branches = iter(self.branches)
        for block in self.cell.blocks:
            left, right = (
                self._result(name, next(branches), states[state], training)
                for state, name in block.operands
            )
            states.append(left + right)  # (b, h / stride, w / stride, filters)
        outputs = [
            states[state] if fit is None else fit(states[state])
            for state, fit in zip(self.cell.output_states, self.output_fits, strict=True)
        ]
        return tf.concat(outputs, axis=-1)  # (b, h / stride, w / stride, output_filters)

    def _result(
        self, name: str, operation: Any, state: tf.Tensor, training: bool | None
    ) -> tf.Tensor:
        result = state if operation is None else operation(state)
        # An identity that changes size or width is an operation of its own, but is not dropped.
        return result if name == "identity" else self.drop_path(result, training=training)

    def compute_output_shape(self, input_shape: Any) -> Any:
        batch, *sides, _ = input_shape[0]
        small = (None if side is None else -(-side // self.stride) for side in sides)
        return (batch, *small, self.output_filters)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "cell": self.cell.as_values(),
            "filters": self.filters,
            "stride": self.stride,
            "input_filters": self.input_filters,
            "previous_filters": self.previous_filters,
            "previous_size": self.previous_size,
            "drop_path_rate": self.drop_path_rate,
            "batch_norm_momentum": self.batch_norm_momentum,
            "batch_norm_epsilon": self.batch_norm_epsilon,
            "synchronized": self.synchronized,
        }
