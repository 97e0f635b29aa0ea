import keras
import models
import numpy as np
import pytest
from keras import ops
from models import difference
from models import mine
from models import values

import tf_gems

NETWORKS = {
    "image": (
        models.image_network,
        models.image_data,
        "sparse_categorical_crossentropy",
    ),
    "text": (models.text_network, models.text_data, models.TEXT_LOSS),
    "towers": (models.two_towers, models.two_towers_data, "mse"),
}


def mask_by_hand(plain, sparse):
    """Multiplies the kernels of a copy by `1[p > 0.5] * alive`."""
    prunable = {id(w.weight): w for w in sparse.gem.prunable}
    for ours, theirs in zip(sparse.model.weights, plain.weights, strict=True):
        value = ops.convert_to_numpy(ours)
        if id(ours) in prunable:
            score = ops.convert_to_numpy(prunable[id(ours)].score)
            alive = ops.convert_to_numpy(prunable[id(ours)].alive)
            value = value * (score > 0.5) * alive
        theirs.assign(value)
    return plain


@pytest.fixture(scope="module", params=NETWORKS)
def mined(request, tmp_path_factory):
    """A network before and after mining, and its file."""
    build, data, loss = NETWORKS[request.param]
    keras.utils.set_random_seed(0)
    x, y = data()
    sparse = tf_gems.SparseModel(build(), seed=0)
    before = values(sparse.model)
    scores = values([w.score for w in sparse.gem.prunable])
    # Recurrent layers are slow to trace. The other networks are compiled.
    mine(sparse, x, y, loss, run_eagerly=request.param == "text")
    path = str(tmp_path_factory.mktemp("mined") / "mined.keras")
    sparse.save(path)
    return {
        "name": request.param,
        "sparse": sparse,
        "before": before,
        "scores": scores,
        "path": path,
        "data": (x, y),
        "loss": loss,
        "twin": build(),
    }


def test_output_matches_masked_network(mined):
    sparse, (x, _) = mined["sparse"], mined["data"]
    twin = mask_by_hand(mined["twin"], sparse)
    assert difference(sparse(x), twin(x)) == 0.0
    assert difference(sparse.predict(x, verbose=0), twin(x)) < 1e-6
    assert 0 < sparse.density <= sparse.ticket().density


def test_mining_trains_only_scores(mined):
    sparse = mined["sparse"]
    moved = {
        variable.path.rsplit("/", 1)[-1]
        for variable, before, after in zip(
            sparse.model.weights,
            mined["before"],
            values(sparse.model),
            strict=True,
        )
        if np.any(before != after)
    }
    normalized = mined["name"] != "text"
    assert moved == (
        {"moving_mean", "moving_variance"} if normalized else set()
    )
    after = values([w.score for w in sparse.gem.prunable])
    for prunable, old, new in zip(
        sparse.gem.prunable, mined["scores"], after, strict=True
    ):
        assert np.any(old != new), prunable.path
        assert new.min() >= 0 and new.max() <= 1 and new.dtype == np.float32
    kept = sum(
        np.sum(v) for v in values([w.alive for w in sparse.gem.prunable])
    )
    assert kept == round(0.4 * sparse.gem.size)


def test_saved_model_continues_mining_or_finetuning(mined, tmp_path, request):
    if mined["name"] != "towers":  # Tracing it ten times would be slow.
        request.getfixturevalue("eagerly")
    sparse, (x, y) = mined["sparse"], mined["data"]
    loaded = keras.models.load_model(mined["path"])
    expected = sparse.predict(x, verbose=0)
    assert difference(loaded.predict(x, verbose=0), expected) == 0.0
    assert loaded.phase == "mining"
    assert difference(values(loaded), values(sparse)) == 0.0
    scores = values([w.score for w in loaded.gem.prunable])
    loaded.fit(x, y, verbose=0)  # Compiled as before saving.
    assert (
        difference(scores, values([w.score for w in loaded.gem.prunable])) > 0
    )
    assert difference(values(loaded.model)[0], values(sparse.model)[0]) == 0.0

    # Predictions use the ticket, not a function traced during mining.
    loaded.start_finetuning()
    plain = tf_gems.strip(loaded)
    tuned = loaded.predict(x, verbose=0)
    assert difference(tuned, plain.predict(x, verbose=0)) == 0.0
    loaded.start_finetuning(tf_gems.methods.RandomPruning(0.3).find(sparse))
    plain = tf_gems.strip(loaded)
    other = loaded.predict(x, verbose=0)
    assert difference(other, plain.predict(x, verbose=0)) == 0.0
    assert difference(other, tuned) > 0
    with pytest.raises(ValueError, match="compile"):
        loaded.fit(x, y, verbose=0)
    with pytest.raises(ValueError, match="compile"):
        loaded.evaluate(x, y, verbose=0)

    loaded.compile("adam", mined["loss"])
    plain.compile("adam", mined["loss"])
    ours = loaded.evaluate(x, y, verbose=0, return_dict=True)
    theirs = plain.evaluate(x, y, verbose=0, return_dict=True)
    assert ours == theirs
    loaded(x)
    losses = sorted(map(float, loaded.losses))
    plain(x)
    assert losses == sorted(map(float, plain.losses))

    before = values(loaded.model)
    loaded.fit(x, y, epochs=2, verbose=0)
    for prunable in loaded.gem.prunable:
        weight = ops.convert_to_numpy(prunable.weight)
        alive = ops.convert_to_numpy(prunable.alive)
        assert np.all(weight[~alive] == 0.0)
    changed = {
        v.path
        for v, old, new in zip(
            loaded.model.weights, before, values(loaded.model), strict=True
        )
        if np.any(old != new)
    }
    trains = {v.path for v in loaded.model.trainable_variables}
    # The bias of keys has no gradient, since softmax is shift-invariant.
    assert {path for path in trains if "key/bias" not in path} <= changed
    assert not any("frozen" in path for path in changed)

    path = str(tmp_path / "tuned.keras")
    loaded.save(path)
    again = keras.models.load_model(path)
    assert again.phase == "finetuning" and again.compiled
    assert difference(again(x), loaded(x)) == 0.0
    assert difference(tf_gems.strip(again)(x), loaded(x)) == 0.0


def test_clones_and_weight_files_have_equal_outputs(mined, tmp_path):
    sparse, (x, _) = mined["sparse"], mined["data"]
    expected = sparse(x)
    clone = keras.models.clone_model(sparse)
    assert (
        difference([w.score for w in clone.gem.prunable], mined["scores"])
        == 0.0
    )  # The seed is part of the config.
    path = str(tmp_path / "mined.weights.h5")
    sparse.save_weights(path)
    clone.load_weights(path)
    assert difference(clone(x), expected) == 0.0
    lines = []
    sparse.summary(print_fn=lambda line, **_: lines.append(line))
    assert "GemLayer" in "\n".join(lines)


def test_several_call_arguments():
    generator = np.random.default_rng(0)
    query = generator.normal(size=(2, 4, 3)).astype("float32")
    memory = generator.normal(size=(2, 5, 3)).astype("float32")
    model, twin = models.Pair(), models.Pair()
    model(query, memory), twin(query, memory)
    sparse = tf_gems.SparseModel(model, seed=0)
    twin = mask_by_hand(twin, sparse)
    found = sparse(query, memory=memory, scale=3.0)
    assert difference(found, twin(query, memory, scale=3.0)) == 0.0
    sparse.start_finetuning(tf_gems.methods.RandomPruning(0.5).find(sparse))
    plain = tf_gems.strip(sparse)
    assert type(plain) is models.Pair
    assert difference(plain(query, memory), sparse(query, memory)) == 0.0


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
        lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1),
        lambda: keras.optimizers.Adam(
            0.01, use_ema=True, ema_overwrite_frequency=2, clipnorm=1.0
        ),
    ],
)
def test_pruned_weights_stay_zero_with_any_optimizer(optimizer):
    x, y = models.dense_data()
    sparse = tf_gems.SparseModel(models.dense_network(), seed=0)
    ticket = tf_gems.methods.RandomPruning(0.6).find(sparse)
    sparse.start_finetuning(ticket)
    before = values(sparse.model)
    sparse.compile(optimizer(), "mse", steps_per_execution=2)
    sparse.fit(x, y, batch_size=8, epochs=2, verbose=0)
    masks = list(ticket.masks.values())
    for prunable, mask in zip(sparse.gem.prunable, masks, strict=True):
        weight = ops.convert_to_numpy(prunable.weight)
        assert np.all(weight[~mask] == 0.0)
        assert np.all(weight[mask] != 0.0)
    for variable, old, new in zip(
        sparse.model.weights, before, values(sparse.model), strict=True
    ):
        assert np.any(old != new), variable.path
    assert difference(sparse(x), tf_gems.strip(sparse)(x)) == 0.0


def test_muon_trains_only_ticket():
    x, y = models.dense_data()
    sparse = tf_gems.SparseModel(models.dense_network(), seed=0)
    ticket = tf_gems.methods.RandomPruning(0.6).find(sparse)
    sparse.start_finetuning(ticket)
    # Its updates are orthogonal matrices without zeros.
    sparse.compile(keras.optimizers.Muon(0.01), "mse")
    sparse.fit(x, y, batch_size=8, verbose=0)
    plain = tf_gems.strip(sparse)
    assert difference(sparse(x), plain(x)) == 0.0
    for path, weight in zip(ticket.weights, plain.weights, strict=True):
        if path in ticket.masks:
            kernel = ops.convert_to_numpy(weight)
            assert np.all((kernel != 0.0) == ticket.masks[path])


@pytest.mark.parametrize(
    "policy, jit_compile",
    [
        ("float32", True),
        ("mixed_float16", "auto"),
        ("mixed_bfloat16", False),
    ],
)
def test_precision_and_compilation(policy, jit_compile):
    keras.config.set_dtype_policy(policy)
    x, y = models.dense_data()
    sparse = tf_gems.SparseModel(models.dense_network(), seed=0)
    before = values(sparse.model)
    scores = values([w.score for w in sparse.gem.prunable])
    history = mine(sparse, x, y, jit_compile=jit_compile)
    assert np.all(np.isfinite(history.history["loss"]))
    scaled = isinstance(sparse.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (policy == "mixed_float16")
    for prunable, old in zip(sparse.gem.prunable, scores, strict=True):
        assert prunable.score.dtype == "float32"
        assert difference(prunable.score, old) > 0
    kernel, bias = before[:2]
    assert difference(values(sparse.model)[:2], [kernel, bias]) == 0.0

    sparse.start_finetuning()
    sparse.compile("adam", "mse", jit_compile=jit_compile)
    sparse.fit(x, y, batch_size=16, epochs=2, verbose=0)
    plain = tf_gems.strip(sparse)
    assert plain.dtype_policy.name == policy
    assert difference(sparse(x), plain(x)) == 0.0
    assert difference(values(sparse.model)[:2], [kernel, bias]) > 0
    for prunable in sparse.gem.prunable:
        alive = ops.convert_to_numpy(prunable.alive)
        assert np.all(ops.convert_to_numpy(prunable.weight)[~alive] == 0.0)


def test_filtered_and_frozen_layers_are_unchanged(eagerly):
    model = models.dense_network()
    model.get_layer("first").trainable = False
    x, y = models.dense_data()
    sparse = tf_gems.SparseModel(model, seed=0)
    assert [w.path for w in sparse.gem.prunable] == ["dense/last/kernel"]
    mine(sparse, x, y)
    sparse.start_finetuning()
    before = values(model.get_layer("first"))
    sparse.compile("sgd", "mse")
    sparse.fit(x, y, verbose=0)
    assert difference(values(model.get_layer("first")), before) == 0.0
    plain = tf_gems.strip(sparse)
    assert not plain.get_layer("first").trainable
    assert plain.get_layer("last").trainable

    for filters in ("last", ["nothing", "last/"], lambda v: "last/k" in v.path):
        sparse = tf_gems.SparseModel(models.dense_network(), filters=filters)
        [prunable] = sparse.gem.prunable
        assert prunable.path.endswith("last/kernel")


def test_layers_may_be_frozen_after_wrapping(tmp_path, eagerly):
    x, y = models.dense_data()
    path = str(tmp_path / "model.keras")
    for frozen_first in (True, False):
        model = models.dense_network()
        first = model.get_layer("first")
        first.trainable = not frozen_first
        sparse = tf_gems.SparseModel(model, seed=0)
        paths = [w.path for w in sparse.gem.prunable]
        first.trainable = frozen_first
        sparse.start_finetuning(tf_gems.methods.RandomPruning(0.5).find(sparse))
        sparse.compile("sgd", "mse")
        before = values(first)
        sparse.fit(x, y, verbose=0)
        assert difference(values(first), before) == 0.0
        sparse.save(path)
        loaded = keras.models.load_model(path)
        # It prunes the original weights, not those that would be prunable now.
        assert len(loaded.gem.prunable) == len(paths)
        assert difference(loaded(x), sparse(x)) == 0.0
        trained = [len(m.trainable_variables) for m in (sparse, loaded)]
        assert trained[0] == trained[1]


def test_model_may_be_compiled_before_wrapping():
    network = models.dense_network()
    network.compile("sgd", "mse", metrics=["mae"])
    sparse = tf_gems.SparseModel(network)
    sparse.compile("sgd", "mse", metrics=["mse"])
    found = sparse.evaluate(*models.dense_data(), verbose=0, return_dict=True)
    # Evaluation includes the regularizer, but not the score penalty.
    assert set(found) == {"loss", "mse"} and found["loss"] >= found["mse"]


def test_initial_kernels_match_paper():
    sparse = tf_gems.SparseModel(
        models.image_network(), kernel_initializer="signed_constant", seed=0
    )
    for prunable in sparse.gem.prunable:
        shape = prunable.weight.shape
        # A depthwise kernel reads a single channel.
        depthwise = shape[-1] == 2 and shape[:2] == (3, 3)
        depthwise = "depthwise" in prunable.weight.path
        fan_in = np.prod(shape[:2] if depthwise else shape[:-1])
        magnitude = np.abs(ops.convert_to_numpy(prunable.weight))
        np.testing.assert_allclose(magnitude, np.sqrt(2 / fan_in), rtol=1e-6)


def test_invalid_models_are_refused():
    with pytest.raises(ValueError, match="must be built.*model='empty'"):
        tf_gems.SparseModel(
            keras.Sequential([keras.layers.Dense(3)], name="empty")
        )
    with pytest.raises(ValueError, match="rank 2 or more.*not trainable"):
        model = models.dense_network()
        model.trainable = False
        tf_gems.SparseModel(model)
    with pytest.raises(ValueError, match="must match a weight.*first/kernel"):
        tf_gems.SparseModel(models.dense_network(), filters="conv")
    with pytest.raises(ValueError, match="only be pruned once"):
        tf_gems.SparseModel(tf_gems.SparseModel(models.dense_network()))
    with pytest.raises(ValueError, match="Only Keras 3.*layer='resnet'"):
        tf_gems.SparseModel("resnet")
    with pytest.raises(ValueError, match="kernel_init.*mean 'signed_constant"):
        tf_gems.SparseModel(
            models.dense_network(), kernel_initializer="signed_constnt"
        )
    sparse = tf_gems.SparseModel(models.dense_network())
    with pytest.raises(RuntimeError, match="no ticket before mining.*`fit`"):
        sparse.start_finetuning()


def test_keras_2_model_is_refused():
    tf_keras = pytest.importorskip("tf_keras")
    model = tf_keras.Sequential([tf_keras.layers.Dense(2, input_shape=(3,))])
    with pytest.raises(ValueError, match="Keras 2 .`tf_keras`. object"):
        tf_gems.SparseModel(model)


def test_quantize_and_export_match_plain_model(tmp_path):
    x, y = models.dense_data()
    sparse = tf_gems.SparseModel(models.dense_network(), seed=0)
    mine(sparse, x, y, run_eagerly=True)
    with pytest.raises(ValueError, match="before they are quantized"):
        sparse.quantize("int8")
    expected = sparse.predict(x, verbose=0)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        sparse.export(str(tmp_path / "saved"), verbose=False)
        saved = tf.saved_model.load(str(tmp_path / "saved"))
        assert difference(saved.serve(x), expected) < 1e-6
        assert difference(sparse.predict(x, verbose=0), expected) == 0.0
    plain = tf_gems.strip(sparse)
    plain.quantize("int8")
    with pytest.raises(ValueError, match="quantization_mode='int8'"):
        tf_gems.SparseModel(plain)


def test_wrapped_layers_keep_weights(eagerly):
    x, y = models.dense_data()
    model = models.dense_network()
    sparse = tf_gems.SparseModel(model, seed=0)
    for part in (model, model.layers[0]):
        with pytest.raises(ValueError, match="before they are quantized"):
            part.quantize("int8")
    with pytest.raises(ValueError, match="`enable_lora` of 'first'"):
        model.layers[0].enable_lora(2)
    last = model.layers[-1]
    last._tracker.unlock()
    late = last.add_weight(shape=(2, 2), name="late")
    with pytest.raises(ValueError, match="'dense', to which .*late was added"):
        mine(sparse, x, y)
    late.trainable = False
    mine(sparse, x, y)
    sparse.start_finetuning()
    model.layers[0].enable_lora(2)  # LoRA freezes the sparse kernel.
    kernel = np.array(model.layers[0]._kernel)
    sparse.compile("sgd", "mse")
    sparse.fit(x, y, verbose=0)
    assert np.any(model.layers[0].lora_kernel_b)
    assert np.array_equal(model.layers[0]._kernel, kernel)
    expected = sparse.predict(x, verbose=0)
    plain = tf_gems.strip(sparse)
    assert difference(plain.predict(x, verbose=0), expected) < 1e-6
    plain.quantize("int8")
    assert plain.layers[0].quantization_mode == "int8"


def test_replaced_weight_is_refused():
    x, _ = models.dense_data()
    model = models.dense_network()
    sparse = tf_gems.SparseModel(model, seed=0)
    layer = model.layers[0]
    layer._untrack_variable(layer._kernel)
    with pytest.raises(ValueError, match="no longer has .*first/kernel"):
        sparse(x)


def test_pruning_again_keeps_nonzero_weights(eagerly):
    x, y = models.dense_data()
    model = models.dense_network()
    for sparsity in (0.6, 0.8):
        sparse = tf_gems.SparseModel(model, seed=0)
        mine(sparse, x, y, target_sparsity=sparsity)
        ticket = sparse.ticket()
        sparse.start_finetuning()
        assert tf_gems.strip(sparse) is model
    for path, mask in ticket.masks.items():
        assert not np.any(ticket.weights[path][mask] == 0)


def test_step_is_compiled_once():
    """Also holds for the first step of an optimizer without variables."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("on other backends, `fit` builds the optimizer")
    calls = []

    class Counted(keras.layers.Dense):
        def call(self, inputs):
            calls.append(inputs)
            return super().call(inputs)

    model = keras.Sequential([keras.Input((6,)), Counted(3)])
    sparse = tf_gems.SparseModel(model, seed=0)
    sparse.compile("adam", "mse")
    calls.clear()
    sparse.fit(*models.dense_data(), epochs=2, verbose=0)
    assert len(calls) == 1


def test_batch_with_zero_sample_weights_counts():
    x, y = models.dense_data()
    sparse = tf_gems.SparseModel(models.dense_network(), seed=0)
    sparse.compile("sgd", "mse")
    callback = tf_gems.GemMinerCallback(0.5, freeze_period=1)
    sparse.fit(
        x,
        y,
        batch_size=32,
        epochs=3,
        sample_weight=np.zeros(32),
        verbose=0,
        callbacks=[callback],
    )
