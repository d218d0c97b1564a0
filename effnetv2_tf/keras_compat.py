"""The only place that knows that Keras 2.15 and Keras 3 differ.

The package runs on TensorFlow 2.15 with Keras 2.15 and on the newest TensorFlow with
Keras 3. Everything else uses calls that both have; what must differ is gathered here, so
that dropping the old stack one day means editing one file.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

KERAS_3 = int(keras.__version__.split(".")[0]) >= 3

# How the base class of optimizers works: whether `apply_gradients` goes through `apply`, whether
# gradients are clipped before those of all replicas are added up, and whether `update_step` is
# given the learning rate.
OPTIMIZERS_APPLY = OPTIMIZERS_CLIP_FIRST = UPDATE_STEP_TAKES_RATE = KERAS_3

# Whether a saved model's SavedModel has what its layers compute in training, too.
SAVES_TRAINING_STEPS = not KERAS_3


def register_serializable(package: str) -> Callable[[type], type]:
    """`keras.saving.register_keras_serializable`, as a decorator of classes.

    Keras's older format (`.h5`) also names classes without their package; names that Keras has
    for its own stay Keras's.
    """
    register = keras.saving.register_keras_serializable(package)

    def register_both(made: type) -> type:
        if not any(hasattr(room, made.__name__) for room in (keras.layers, keras.optimizers)):
            keras.saving.get_custom_objects().setdefault(made.__name__, made)
        return register(made)

    return register_both


def has_accelerator() -> bool:
    """Whether this process has a GPU or a TPU."""
    return any(tf.config.list_physical_devices(kind) for kind in ("GPU", "TPU"))


def is_traced_for_xla() -> bool:
    """Whether what is being traced is for XLA, as in `tf.function(..., jit_compile=True)`."""
    from tensorflow.python.ops import control_flow_util  # has no public name

    graph = tf.compat.v1.get_default_graph()
    return bool(control_flow_util.GraphOrParentsInXlaContext(graph))


def xla_is_worthwhile() -> bool:
    """Whether this process has a device on which XLA pays off.

    On CPUs the compiled training step measured several times slower than the plain
    executor, and compilation took minutes.
    """
    return has_accelerator()


class Layer(keras.layers.Layer):  # type: ignore[misc]
    """Base of this package's layers.

    Keras 3 compiles a model with XLA when `compile(jit_compile="auto")` finds that every
    layer supports it. Here that answer depends on the device, see `xla_is_worthwhile`.

    Which of the layers within this one are frozen, or are not within a frozen one, is part of its
    configuration, so that it survives saving, loading and cloning.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_jit = xla_is_worthwhile()

    def get_config(self) -> dict:
        """The layer's, with the paths of those within whose `trainable` is another."""
        config, within = super().get_config(), list(_layers_within(self))
        other = [path for path, inner in within if inner.trainable != self.trainable]
        return {**config, "frozen" if self.trainable else "thawed": other} if other else config

    @classmethod
    def from_config(cls, config: dict) -> Any:
        others = {*config.get("frozen", ()), *config.get("thawed", ())}
        layer = super().from_config(
            {k: v for k, v in config.items() if k not in ("frozen", "thawed")}
        )
        # The constructor makes them trainable, also within a layer that is not; Keras 3 looks at
        # the variables alone. Setting an outer one sets those within, which come after it.
        for path, inner in _layers_within(layer):
            trainable = layer.trainable != (path in others)
            if inner.trainable != trainable:
                inner.trainable = trainable
        return layer

    def build_from_config(self, config: dict) -> None:
        # Keras 2 names variables by the scope, which it enters where a layer is called alone.
        with contextlib.nullcontext() if KERAS_3 else tf.name_scope(self.name):
            super().build_from_config(config)

    def add_float32_weight(self, name: str, **kwargs: Any) -> Any:
        """`add_weight` for a variable that stays float32 under mixed precision."""
        precision = {"autocast": False} if KERAS_3 else {"experimental_autocast": False}
        return self.add_weight(name=name, dtype="float32", **precision, **kwargs)

    def add_statistic(self, name: str, **kwargs: Any) -> Any:
        """A float32, non-trainable weight that replicas update on their own.

        Under a distribution strategy the replicas' values are averaged when the variable
        is written.
        """
        aggregation = "mean" if KERAS_3 else tf.VariableAggregation.MEAN
        return self.add_float32_weight(name, trainable=False, aggregation=aggregation, **kwargs)


def _layers_within(layer: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The layers within a layer, at any depth, by path, e.g. `squeeze_excite/reduce`."""
    for inner in layer._flatten_layers(include_self=False, recursive=False):
        path = f"{prefix}{inner.name}"
        yield path, inner
        yield from _layers_within(inner, f"{path}/")


# Has its variables saved with a layer that holds it, and is no layer whose weights count.
Trackable: Any = tf.__internal__.tracking.AutoTrackable


class RandomSeeds(Trackable):  # type: ignore[misc]
    """A stream of stateless seeds whose position is a variable, so that it can be saved.

    Both stacks get the same generator: seed i of a stream is `(seed, i)`. The variable is
    no weight of a model: it does not count as a parameter.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        with tf.init_scope():
            self.position = tf.Variable(
                0,
                dtype=tf.int64,
                trainable=False,
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
                name="random_position",
            )

    def next(self) -> tf.Tensor:
        """Returns the next seed, an int64 tensor of shape (2,)."""
        position = tf.convert_to_tensor(self.position)
        self.position.assign_add(1)
        return tf.stack([_replica_seed(self.seed), position])


def _replica_seed(seed: int) -> tf.Tensor:
    """Keeps the replicas of a distribution strategy from drawing the same numbers."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return tf.constant(seed, tf.int64)
    replica = tf.cast(context.replica_id_in_sync_group, tf.int64)
    return seed + tf.bitwise.left_shift(replica, tf.constant(32, tf.int64))


def draw_seed(seed: int | None) -> int:
    """`seed`, or one from Python's generator, as Keras's own layers do."""
    return random.randint(1, 2**31 - 1) if seed is None else int(seed)


def tf_variable(variable: Any) -> tf.Variable:
    """The TensorFlow variable behind a Keras variable of either stack."""
    return variable.value if KERAS_3 and not isinstance(variable, tf.Variable) else variable


def is_symbolic(value: Any) -> bool:
    """Whether a value is a symbolic tensor, of `keras.Input` or a layer called on one."""
    try:
        return bool(keras.backend.is_keras_tensor(value))
    except ValueError:  # Keras 2, of what is no tensor at all
        return False


def variable_path(variable: Any) -> str:
    """The name of a model's variable with the layers it lies in, e.g. `block1a/project/kernel`.

    It is Keras 3's on both stacks.
    """
    path = getattr(variable, "path", None) or variable.name
    return str(path).removesuffix(":0").replace("/depthwise_kernel", "/kernel")


def variable_paths(variables: Iterable[Any]) -> list[str]:
    """A name for each; of those with the same path the second and later ones get a number.

    Layers of two networks within one model have the same names.
    """
    seen: dict[str, int] = {}
    names = []
    for path in map(variable_path, variables):
        seen[path] = seen.get(path, 0) + 1
        names.append(path if seen[path] == 1 else f"{path}#{seen[path]}")
    return names


def build_within(layer: Any, input_shape: Any) -> None:
    """Builds a layer inside another one's `build`.

    Keras 2 then needs to be told the layer's name, or the variables of all inner layers
    have the same names.
    """
    with contextlib.nullcontext() if KERAS_3 else tf.name_scope(layer.name):
        layer.build(input_shape)


def steps_per_execution(model: keras.Model) -> int:
    """Steps that one call of the compiled model's train function makes."""
    if KERAS_3:
        return int(model.steps_per_execution)
    return int(model._steps_per_execution.numpy())


def skip_symbolic_build(model: keras.Model) -> None:
    """Keeps `fit` and `evaluate` from drawing a batch to build a model that is built already.

    With several workers Keras 3 fails there: it takes the mean of a batch's structure over the
    replicas (keras issue 20585).
    """
    if KERAS_3:
        model._maybe_symbolic_build = _do_nothing


def _do_nothing(*args: Any, **kwargs: Any) -> None:
    pass


def optimizer_slot(optimizer: Any, slots: list, variable: Any) -> Any:
    """The entry of `slots` that belongs to `variable`."""
    if KERAS_3:
        return slots[optimizer._get_variable_index(variable)]
    return slots[optimizer._index_dict[optimizer._var_key(variable)]]


def build_optimizer(optimizer: Any, variables: list) -> None:
    """Creates an optimizer's variables; those of tensorflow-addons are of Keras's older kind."""
    if hasattr(optimizer, "build"):
        optimizer.build(variables)
    else:
        optimizer._create_all_weights(variables)


def optimizer_variables(optimizer: Any) -> list:
    """All variables of an optimizer, the step counter included, in a fixed order."""
    variables = optimizer.variables
    found = list(variables() if callable(variables) else variables)
    inner = getattr(optimizer, "_optimizer", None)  # those of tensorflow-addons leave it out
    if inner is not None:
        known = {id(variable) for variable in found}
        found += [v for v in optimizer_variables(inner) if id(v) not in known]
    return found


def named_optimizer_variables(optimizer: Any, weights: list) -> dict[str, Any]:
    """An optimizer's variables by names that both stacks give; the learning rate is left out.

    Args:
      optimizer: built for `weights`.
      weights: that it trains.

    Returns:
      `iterations`; the slots of each weight, e.g. `velocities/block1a/project/kernel`; numbers
      from `0000` on for whatever else it has (all slots of Keras's older optimizers).
    """
    paths = variable_paths(weights)
    named = {"iterations": step_counter(optimizer)}
    for attribute, value in sorted(vars(optimizer).items()):
        if _are_slots(value, weights):
            slot = attribute.strip("_")
            named |= {f"{slot}/{path}": v for path, v in zip(paths, value, strict=True)}
    rates = [getattr(optimizer, f"{name}learning_rate", None) for name in ("_current_", "_")]
    left_out = [*named.values(), *(rate for rate in rates if hasattr(rate, "assign"))]
    known = {id(tf_variable(variable)) for variable in left_out}
    others = [v for v in optimizer_variables(optimizer) if id(tf_variable(v)) not in known]
    return named | {f"{index:04d}": variable for index, variable in enumerate(others)}


def _are_slots(value: Any, weights: list) -> bool:
    """Whether `value` holds one variable for each of `weights`, other than the weight itself."""
    if not isinstance(value, (list, tuple)) or len(value) != len(weights):
        return False
    return all(
        hasattr(slot, "assign") and slot is not weight and tuple(slot.shape) == tuple(weight.shape)
        for slot, weight in zip(value, weights, strict=True)
    )


# What optimizers of all kinds call their running means of gradients.
_MOMENTA = ("m", "momentum", "momentums")


def restart_momentum(optimizer: Any, weights: list) -> None:
    """Has an optimizer go on from the weights as they are, which others than it have set.

    Running means of gradients become zero; those of squared gradients stay. Copies that it keeps
    of the weights, as Lookahead of tensorflow-addons, become the weights.

    Args:
      optimizer: built.
      weights: all that it trains, others may be among them.
    """
    inner = getattr(optimizer, "_optimizer", None)  # of one of tensorflow-addons that wraps another
    if inner is not None:
        restart_momentum(inner, weights)
    schedule_free: Any = getattr(keras.optimizers, "ScheduleFreeAdamW", ())
    if isinstance(optimizer, schedule_free):
        # Its "momentums" are weights, of which those of the model are a mean.
        for z, weight in zip(optimizer._momentums, optimizer._trainable_variables, strict=True):
            tf_variable(z).assign(tf_variable(weight))
        return
    for attribute, value in vars(optimizer).items():
        if attribute.strip("_") in _MOMENTA and isinstance(value, (list, tuple)):
            _set_to_zero(tf_variable(slot) for slot in value if slot is not None)
    for slots in getattr(optimizer, "_slots", {}).values():  # of Keras's older optimizers
        _set_to_zero(slot for name, slot in slots.items() if name in _MOMENTA)
    if "slow" in getattr(optimizer, "_slot_names", ()):
        for weight in weights:
            with contextlib.suppress(KeyError):  # of a weight that it does not train
                optimizer.get_slot(weight, "slow").assign(tf.identity(weight))


def _set_to_zero(variables: Iterable[Any]) -> None:
    for variable in variables:
        variable.assign(tf.zeros(variable.shape, variable.dtype))


def step_counter(optimizer: Any) -> Any:
    """The variable that counts an optimizer's steps, those that only add to gradients included.

    Where Keras 3 accumulates gradients over steps, `iterations` is a number that counts updates.
    """
    counter = optimizer.iterations
    if hasattr(counter, "assign"):
        return counter
    return getattr(optimizer, "inner_optimizer", optimizer)._iterations


def updates_counted(optimizer: Any) -> Any:
    """The number of updates as a tensor: steps, over those whose gradients make one update."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    steps = tf.cast(tf_variable(step_counter(optimizer)), tf.int64)
    return steps // (getattr(inner, "gradient_accumulation_steps", None) or 1)


def steps_made(optimizer: Any) -> int:
    """The optimizer's step counter, also when a strategy mirrors it."""
    return int(tf_variable(step_counter(optimizer)).numpy())


def set_float_precision(name: str) -> None:
    """Sets Keras's default policy: `float32` or `mixed_bfloat16`."""
    keras.mixed_precision.set_global_policy(name)


def flatten_layers(model: keras.layers.Layer) -> list:
    """All layers within a model or a layer, each followed by those within it, itself left out.

    In the order of the network also for a network within a model, which Keras's own recursion
    takes from its end.
    """
    found = {id(layer): layer for _, layer in _layers_within(model)}  # a shared layer once
    return list(found.values())


def layers_by_network(model: keras.Model) -> list[list]:
    """All layers within a model, as `flatten_layers`, by the innermost model that they lie in."""
    found = {id(layer): (path, layer) for path, layer in _layers_within(model)}  # each once
    networks = [path for path, layer in found.values() if isinstance(layer, keras.Model)]
    groups: dict[str, list] = {}
    for path, layer in found.values():
        around = [network for network in networks if path.startswith(f"{network}/")]
        groups.setdefault(max(around, key=len, default=""), []).append(layer)
    return list(groups.values())


def can_drop(dropout: keras.layers.Dropout) -> bool:
    """Whether a Keras `Dropout` may get a rate: Keras 3 gives one of 0 no random numbers."""
    return not KERAS_3 or hasattr(dropout, "seed_generator")


def learning_rate_value(optimizer: Any) -> Any:
    """The learning rate of the optimizer's next step, also if it follows a schedule."""
    # Keras's current optimizers keep a schedule here, its older ones in the public attribute.
    rate = getattr(optimizer, "_learning_rate", None)
    if rate is None:
        rate = optimizer.learning_rate
    if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        # Keras 3 looks the step up, also where several make one update.
        return rate(tf.convert_to_tensor(tf_variable(step_counter(optimizer))))
    return tf.convert_to_tensor(optimizer.learning_rate)


def build_metrics(model: keras.Model, outputs: tf.Tensor) -> None:
    """Creates the variables of a compiled model's metrics, as the first step else does.

    `outputs` have the type of the model's single output, and of the labels.
    """
    if KERAS_3:
        model._compile_metrics.build(outputs, outputs)
    else:
        model.compiled_loss.build(outputs)
        model.compiled_metrics.build(outputs, outputs)


def build_unbuilt_metrics(model: keras.Model, element_spec: Any) -> None:
    """Creates the variables of a compiled model's metrics, if they have none yet.

    `fit` of Keras 3 fails at the end of an epoch in which no step was made without them.

    Args:
      model: compiled.
      element_spec: of batches as `fit` takes them.
    """
    if KERAS_3:
        model._symbolic_build(data_batch=element_spec)


def metrics_counted(model: keras.Model) -> dict[str, Any]:
    """The values of a compiled model's metrics; empty if they have counted nothing yet."""
    sums = named_metric_variables(model).values()
    return model.get_metrics_result() if any(np.any(v.numpy()) for v in sums) else {}


def named_metric_variables(model: keras.Model) -> dict[str, Any]:
    """The variables of a compiled model's metrics by name, e.g. `accuracy/0`."""
    metrics = model.metrics
    if KERAS_3:  # the compiled ones are one metric there
        metrics = [inner for metric in metrics for inner in getattr(metric, "metrics", [metric])]
    return {
        f"{metric.name}/{index}": variable
        for metric in metrics
        for index, variable in enumerate(metric.variables)
    }


def random_state_variables(model: keras.Model) -> list:
    """The positions of a model's random streams: ours and, in Keras 3, Keras's own."""
    ours = [
        layer.random_seeds.position
        for layer in flatten_layers(model)
        if isinstance(getattr(layer, "random_seeds", None), RandomSeeds)
    ]
    weights = {id(weight) for weight in model.weights}
    return ours + [v for v in model.variables if id(v) not in weights and not v.trainable]
