"""The one-operation updates against Keras's own, and coupled L2 by hand."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from effnetv2_tf import SGD, AdamW, RMSProp
from effnetv2_tf.keras_compat import KERAS_3, restart_momentum, tf_variable, variable_path
from effnetv2_tf.models.layers import ProxyNorm
from effnetv2_tf.training.coupled_l2 import keras_optimizers, with_coupled_l2
from effnetv2_tf.training.learning_rates import WarmUpDecay

Variable = getattr(keras, "Variable", tf.Variable)  # Keras 2 has TensorFlow's
SHAPES = [(3, 3, 2, 4), (4,), (4, 5), ()]


def _variables():
    rng = np.random.default_rng(0)
    return [Variable(rng.normal(size=shape).astype("float32")) for shape in SHAPES]


def _run(optimizer, steps=5):
    """Values after every step on gradients that are the same for every optimizer."""
    variables = _variables()
    rng = np.random.default_rng(1)
    values = []

    @tf.function
    def step(gradients):
        optimizer.apply_gradients(zip(gradients, variables, strict=True))

    optimizer.build(variables)
    for _ in range(steps):
        step([tf.constant(rng.normal(size=shape), tf.float32) for shape in SHAPES])
        values.append([variable.numpy() for variable in variables])
    return values


def _assert_same(ours, theirs):
    for step, (a, b) in enumerate(zip(_run(ours), _run(theirs), strict=True)):
        for shape, x, y in zip(SHAPES, a, b, strict=True):
            np.testing.assert_allclose(x, y, rtol=2e-5, atol=1e-6, err_msg=f"{step} {shape}")


ACCUMULATED = {"gradient_accumulation_steps": 2}
ACCUMULATING = [(SGD, keras.optimizers.SGD), (AdamW, keras.optimizers.AdamW)]
SCHEDULE = WarmUpDecay(0.1, "exponential", [(9, 3, 256)], warmup_epochs=1, decay_epochs=0.3)
RATES = pytest.mark.parametrize("rate", [0.05, SCHEDULE], ids=["number", "schedule"])


@RATES
def test_rmsprop(rate):
    options = {"rho": 0.9, "momentum": 0.9, "epsilon": 1e-3}
    _assert_same(RMSProp(rate, **options), keras.optimizers.RMSprop(rate, **options))


@RATES
@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd(rate, nesterov):
    options = {"momentum": 0.9, "nesterov": nesterov}
    _assert_same(SGD(rate, **options), keras.optimizers.SGD(rate, **options))


@RATES
def test_adamw(rate):
    options = {"weight_decay": 0.01, "beta_1": 0.8, "beta_2": 0.95, "epsilon": 1e-5}
    _assert_same(AdamW(rate, **options), keras.optimizers.AdamW(rate, **options))


@pytest.mark.parametrize(
    ("ours", "theirs", "options"),
    [
        (RMSProp, keras.optimizers.RMSprop, {"momentum": 0.0}),
        (RMSProp, keras.optimizers.RMSprop, {"momentum": 0.9, "centered": True}),
        (SGD, keras.optimizers.SGD, {"momentum": 0.0}),
        (AdamW, keras.optimizers.AdamW, {"amsgrad": True}),
        (RMSProp, keras.optimizers.RMSprop, {"momentum": 0.9, "global_clipnorm": 0.5}),
        (RMSProp, keras.optimizers.RMSprop, {"momentum": 0.9, "weight_decay": 0.1}),
        (SGD, keras.optimizers.SGD, {"momentum": 0.9, "clipvalue": 0.1}),
        *((ours, theirs, ACCUMULATED) for ours, theirs in ACCUMULATING if KERAS_3),
    ],
)
def test_forms_for_which_there_is_no_operation_and_keras_options(ours, theirs, options):
    common = {"epsilon": 1e-3} if ours is RMSProp else {}
    if options is ACCUMULATED:
        common = {"momentum": 0.9} if ours is SGD else {}
    _assert_same(
        ours(learning_rate=0.05, **common, **options),
        theirs(learning_rate=0.05, **common, **options),
    )


def test_rmsprop_by_hand():
    """Epsilon is inside the root, l2 joins the gradient before the averages."""
    variable = Variable(np.full((1, 1), 2.0, "float32"))
    optimizer = RMSProp(0.5, rho=0.9, momentum=0.9, epsilon=1e-3, l2=0.1)
    optimizer.build([variable])
    weight, square, momentum = 2.0, 0.0, 0.0
    for gradient in (1.0, -0.5):
        optimizer.apply_gradients([(tf.constant([[gradient]]), variable)])
        g = gradient + 0.1 * weight
        square = 0.9 * square + 0.1 * g * g
        momentum = 0.9 * momentum + 0.5 * g / np.sqrt(square + 1e-3)
        weight -= momentum
        assert float(variable[0, 0]) == pytest.approx(weight, rel=1e-5)


def test_l2_acts_on_kernels_only():
    variables = _variables()
    before = [variable.numpy() for variable in variables]
    optimizer = SGD(0.1, momentum=0.0, l2=0.5)
    optimizer.apply_gradients([(tf.zeros(shape), v) for shape, v in zip(SHAPES, variables)])  # noqa: B905
    for shape, old, variable in zip(SHAPES, before, variables, strict=True):
        factor = 1 - 0.1 * 0.5 if len(shape) >= 2 else 1.0
        np.testing.assert_allclose(variable.numpy(), old * factor, rtol=1e-6)


def test_l2_of_norms_acts_on_the_proxys_parameters_only():
    """On beta~ and gamma~ of arXiv 2106.03743, not on gamma and beta."""
    inputs = keras.Input((4, 4, 6))
    model = keras.Model(inputs, ProxyNorm("silu", name="norm")(inputs))
    variables = model.trainable_variables
    for variable in variables:
        variable.assign(np.full(6, 2.0, "float32"))
    optimizer = SGD(0.1, momentum=0.0, l2=0.5)
    optimizer.apply_gradients([(tf.zeros(6), variable) for variable in variables])
    values = {variable_path(v).rpartition("/")[2]: v.numpy()[0] for v in variables}
    decayed = pytest.approx(2.0 * (1 - 0.1 * 0.5))
    assert values == {"gamma": 2.0, "beta": 2.0, "proxy_gamma": decayed, "proxy_beta": decayed}


@pytest.mark.skipif(
    not hasattr(keras.optimizers.Optimizer, "apply"), reason="Keras 2 optimizers have no apply"
)
def test_l2_acts_through_apply_too():
    """As custom loops and the loss scaling of mixed_float16 call it."""
    variable = Variable(np.full((2, 2), 2.0, "float32"))
    SGD(0.1, momentum=0.0, l2=0.5).apply([tf.zeros((2, 2))], [variable])
    np.testing.assert_allclose(variable.numpy(), 1.9, rtol=1e-6)
    scaled = keras.optimizers.LossScaleOptimizer(SGD(0.1, momentum=0.0, l2=0.5))
    scaled.apply([tf.zeros((2, 2))], [variable])
    np.testing.assert_allclose(variable.numpy(), 1.9 * 0.95, rtol=1e-6)


def test_l2_joins_before_clipping():
    variable = Variable(np.full((2, 2), 100.0, "float32"))
    optimizer = SGD(0.1, momentum=0.0, l2=0.5, global_clipnorm=1.0)
    optimizer.apply_gradients([(tf.zeros((2, 2)), variable)])
    np.testing.assert_allclose(variable.numpy(), 100 - 0.1 * 0.5, rtol=1e-6)


def test_a_variable_without_a_gradient_is_left_alone():
    used, unused = Variable(np.ones((2, 2), "float32")), Variable(np.ones((2, 2), "float32"))
    optimizer = SGD(0.1, momentum=0.0, l2=0.5)
    optimizer.build([used, unused])
    optimizer.apply_gradients([(tf.ones((2, 2)), used), (None, unused)])
    np.testing.assert_allclose(used.numpy(), 1 - 0.1 * 1.5, rtol=1e-6)
    np.testing.assert_array_equal(unused.numpy(), 1)


def test_a_sparse_gradient():
    slices = tf.IndexedSlices(tf.ones((1, 2)), tf.constant([1]), tf.constant([3, 2]))
    ours, theirs = (Variable(np.ones((3, 2), "float32")) for _ in range(2))
    RMSProp(0.1).apply_gradients([(slices, ours)])
    keras.optimizers.RMSprop(0.1, momentum=0.9, epsilon=1e-3).apply_gradients([(slices, theirs)])
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-5)


def test_any_keras_optimizer_with_l2():
    variable, plain = (Variable(np.full((2, 2), 2.0, "float32")) for _ in range(2))
    with_coupled_l2(keras.optimizers.Adam)(0.1, l2=0.5).apply_gradients(
        [(tf.ones((2, 2)), variable)]
    )
    keras.optimizers.Adam(0.1).apply_gradients([(tf.ones((2, 2)) + 0.5 * 2.0, plain)])
    np.testing.assert_allclose(variable.numpy(), plain.numpy(), rtol=1e-6)


@pytest.mark.parametrize(
    "optimizer",
    [
        RMSProp(0.3, rho=0.8, momentum=0.7, epsilon=1e-4, l2=1e-5),
        SGD(0.3, momentum=0.7, nesterov=True, l2=1e-5),
        AdamW(SCHEDULE, weight_decay=0.02, l2=1e-5),
        with_coupled_l2(keras.optimizers.Adam)(0.3, beta_1=0.8, l2=1e-5),
    ],
    ids=lambda optimizer: type(optimizer).__name__,
)
def test_config_round_trip(optimizer):
    again = type(optimizer).from_config(optimizer.get_config())
    assert again.get_config() == optimizer.get_config()
    assert again.l2 == 1e-5
    through_keras = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(through_keras) is type(optimizer)
    assert through_keras.get_config() == optimizer.get_config()


def test_a_saved_model_with_l2_loads_in_a_fresh_process(tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(with_coupled_l2(keras.optimizers.Nadam)(0.1, l2=0.5), "mse")
    model.fit(np.ones((4, 2)), np.ones(4), verbose=0)
    model.save(tmp_path / "model.keras")
    code = (
        "import effnetv2_tf; optimizer = effnetv2_tf.load_model('model.keras').optimizer; "
        "print(type(optimizer).__name__, optimizer.l2)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["NadamWithL2", "0.5"], done.stderr


def test_negative_l2():
    with pytest.raises(ValueError, match=r"RMSProp: `l2` must be >= 0\. Received: l2=-1"):
        RMSProp(l2=-1)


@pytest.mark.parametrize(
    ("optimizer_class", "name"),
    [
        (RMSProp, "rho"),
        (RMSProp, "momentum"),
        (SGD, "momentum"),
        (AdamW, "beta_1"),
        (AdamW, "beta_2"),
    ],
)
@pytest.mark.parametrize("value", [1.0, 9, -0.1, float("nan")])
def test_means_that_would_not_move_or_grow_without_end(optimizer_class, name, value):
    with pytest.raises(ValueError, match=rf"`{name}` must lie in \[0, 1\). Received: {name}="):
        optimizer_class(**{name: value})


def test_the_graph_is_small(without_kernels):
    """An update is one operation (and reading what it needs), not Keras's dozen."""

    def operations(optimizer):
        variables = [Variable(np.ones((3, 3), "float32")) for _ in range(10)]
        optimizer.build(variables)

        @tf.function
        def step(gradients):
            optimizer.apply_gradients(zip(gradients, variables, strict=True))

        graph = step.get_concrete_function([tf.ones((3, 3))] * 10).graph
        return [operation.type for operation in graph.get_operations()]

    ours, theirs = operations(RMSProp()), operations(keras.optimizers.RMSprop(momentum=0.9))
    assert ours.count("ResourceApplyRMSProp") == 10
    if KERAS_3:  # Keras 2 sums before the optimizer's own methods are asked
        assert ours.count("Identity") < 10, "gradients are summed over a single replica"
    assert len(ours) < len(theirs) / 1.5


@pytest.mark.parametrize("optimizer_class", [RMSProp, SGD, AdamW])
@pytest.mark.parametrize("momentum", [0.9, 0.0], ids=["one-op", "keras"])
def test_learning_rate_factors(optimizer_class, momentum):
    """A factor acts as another learning rate for the variables whose path begins so."""
    if momentum == 0.0 and (optimizer_class is AdamW or not KERAS_3):
        pytest.skip("AdamW has no momentum argument; factors need the one-op update with Keras 2")
    options = {} if optimizer_class is AdamW else {"momentum": momentum}
    if optimizer_class is AdamW:
        options["weight_decay"] = 0.0

    def moved(rate, factors):
        variables = [Variable(np.ones(2, "float32"), name=n) for n in ("stem", "stage1", "stage10")]
        optimizer = optimizer_class(rate, learning_rate_factors=factors, **options)
        optimizer.build(variables)
        for gradient in (0.5, -2.0, 1.0):
            gradients = [tf.fill([2], gradient)] * 3
            optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return [float(tf_variable(v).numpy()[0]) - 1.0 for v in variables]

    plain, slower = moved(0.1, None), moved(0.05, None)
    found = moved(0.1, {"stage1": 0.5, "stage10": 1.0})
    np.testing.assert_allclose(found, [plain[0], slower[1], plain[2]], rtol=1e-5)


def test_learning_rate_factors_are_in_the_configuration():
    again = RMSProp.from_config(RMSProp(0.1, learning_rate_factors={"stem": 0.5}).get_config())
    assert again.learning_rate_factors == {"stem": 0.5}


@pytest.mark.skipif(KERAS_3, reason="Keras 3 always adds the replicas' gradients up")
def test_l2_where_the_gradients_are_summed_already(two_cpus):
    two_cpus(
        """
        from effnetv2_tf import SGD
        for summed in (False, True):
            with strategy.scope():
                variable = tf.Variable(tf.ones([2, 2]))
                optimizer = SGD(1.0, l2=0.5)
                optimizer.build([variable])

            @tf.function
            def step():
                pairs = [(tf.zeros([2, 2]), variable)]
                strategy.run(lambda: optimizer.apply_gradients(
                    pairs, skip_gradients_aggregation=summed))

            step()
            np.testing.assert_allclose(variable.numpy(), 0.5)
        """
    )


@pytest.mark.parametrize(
    "options", ["l2=0.5", "clipvalue=0.25", "clipnorm=0.3", "l2=0.5, global_clipnorm=0.3"]
)
def test_replicas_make_the_step_of_one_device(two_cpus, options):
    """Their gradients add up, the penalty of a kernel counts once, and the sum is clipped."""
    two_cpus(
        f"""
        from effnetv2_tf import SGD

        def kernel_after_two_steps(strategy, shares):
            with strategy.scope():
                kernel = tf.Variable(tf.ones([2, 2]), name="kernel")
                optimizer = SGD(0.5, {options})
                optimizer.build([kernel])

            @tf.function
            def step(gradients):
                apply = lambda gradient: optimizer.apply_gradients([(gradient, kernel)])
                strategy.run(apply, args=(gradients,))

            gradients = strategy.experimental_distribute_values_from_function(
                lambda context: shares[context.replica_id_in_sync_group])
            for _ in range(2):
                step(gradients)
            return kernel.numpy()

        shares = tf.constant([[[0.5, -0.25], [0.0, 0.25]], [[0.25, -0.5], [0.5, -0.25]]])
        one_device = tf.distribute.OneDeviceStrategy("CPU:0")
        expected = kernel_after_two_steps(one_device, [tf.reduce_sum(shares, axis=0)])
        np.testing.assert_allclose(kernel_after_two_steps(strategy, shares), expected, rtol=1e-6)
        """
    )


def test_biases_of_rank_2_are_no_kernels():
    inputs = keras.Input((6, 8))
    model = keras.Model(inputs, keras.layers.MultiHeadAttention(2, 4)(inputs, inputs))
    model.set_weights([weight + 1 for weight in model.get_weights()])
    before = model.get_weights()
    zeros = [tf.zeros(variable.shape) for variable in model.trainable_variables]
    SGD(1.0, l2=0.1).apply_gradients(list(zip(zeros, model.trainable_variables, strict=True)))
    moved = [
        variable_path(variable).rpartition("/")[2]
        for variable, old in zip(model.trainable_variables, before, strict=True)
        if (tf_variable(variable).numpy() != old).any()
    ]
    assert moved == ["kernel"] * 4


def test_a_factor_of_no_variable_is_noted():
    optimizer = SGD(0.1, learning_rate_factors={"stag1": 0.0})
    with pytest.warns(UserWarning, match="no variable begins with 'stag1'"):
        optimizer.build([Variable(np.ones((2, 2), "float32"))])


@pytest.mark.parametrize(
    "optimizer",
    [
        RMSProp(0.1),
        RMSProp(0.1, centered=True),
        SGD(0.1),
        AdamW(0.1, weight_decay=0.0),
        *(
            made(0.1)
            for made in map(with_coupled_l2, keras_optimizers())
            if "Ftrl" not in str(made)
        ),
    ],
    ids=lambda optimizer: type(optimizer).__name__,
)
def test_without_momentum_only_gradients_move_weights(optimizer):
    """Ftrl is left out, whose weights are no sum of updates, but what its gradients' sums say."""
    variables = [Variable(np.ones((3, 4), "float32")) for _ in range(2)]
    optimizer.build(variables)
    gradients = [tf.ones((3, 4))] * 2
    for _ in range(3):
        optimizer.apply_gradients(list(zip(gradients, variables, strict=True)))
    for variable in variables:
        variable.assign(np.full((3, 4), 3.0, "float32"))
    restart_momentum(optimizer, variables)
    squares = [v.numpy() for v in getattr(optimizer, "_velocities", [])]
    assert all((square > 0).all() for square in squares)
    optimizer.weight_decay = None
    optimizer.apply_gradients([(0 * g, v) for g, v in zip(gradients, variables, strict=True)])
    for variable in variables:
        np.testing.assert_allclose(variable.numpy(), 3.0, rtol=1e-6)
