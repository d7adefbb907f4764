"""Networks: what goes in is what the pretrained base wants, what is frozen stays frozen."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest

from busi_pipeline.models.backbones import BACKBONES, CAFFE, TF, TORCH
from busi_pipeline.models.wrappers import average_with_pretuned
from busi_pipeline.models.batch_norm_folding import fold_batch_normalization
from busi_pipeline.models.network import (
    Network,
    _normalise,
    tta_horizontal_flip,
    build_network,
    count_operations,
)

HEAD = SimpleNamespace(
    pool_intermediate=True,
    dense_units=4,
    batch_normalization=True,
    batch_normalization_momentum=0.9,
    dropout=0.5,
)
CUTS = {
    "vgg16": ("block4_pool", "block5_conv1"),
    "resnet50": ("conv4_block6_out", "conv5_block1_1_conv"),
    "inception_v3": ("mixed5", None),
    "densenet121": ("pool4_pool", "conv5_block1_1_conv"),
}


@pytest.fixture(scope="module")
def resnet() -> Network:
    keras.utils.set_random_seed(0)
    return build_network("resnet50", 32, "conv2_block1_out", "conv2_block2_out", HEAD, 3, None)


@pytest.fixture
def pictures(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("preprocessing", "module"),
    [
        (CAFFE, keras.applications.vgg16),
        (CAFFE, keras.applications.resnet50),
        (TF, keras.applications.inception_v3),
        (TORCH, keras.applications.densenet),
    ],
)
def test_input_is_what_preprocess_input_makes(
    preprocessing: object, module: object, pictures: np.ndarray
) -> None:
    images = keras.Input((32, 32, 3), dtype="uint8")
    model = keras.Model(images, _normalise(images, preprocessing))
    expected = module.preprocess_input(pictures.astype(np.float32))  # a copy: it works in place
    np.testing.assert_allclose(model.predict(pictures, verbose=0), expected, atol=1e-3)


def test_probabilities_from_raw_images(resnet: Network, pictures: np.ndarray) -> None:
    probabilities = resnet.full.predict(pictures, verbose=0)
    assert probabilities.shape == (5, 3)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)


def test_the_pieces_make_up_the_whole(resnet: Network, pictures: np.ndarray) -> None:
    features = resnet.frozen.predict(pictures, verbose=0)
    whole = resnet.full.predict(pictures, verbose=0)
    np.testing.assert_allclose(resnet.trainable.predict(features, verbose=0), whole, atol=1e-5)
    pooled = resnet.tail.predict(features, verbose=0)
    np.testing.assert_allclose(resnet.head.predict(pooled, verbose=0), whole, atol=1e-5)


def test_the_head_sees_mean_and_spread_at_the_cut(resnet: Network, pictures: np.ndarray) -> None:
    features = resnet.frozen.predict(pictures, verbose=0)
    pooled = resnet.tail.predict(features, verbose=0)
    channels = features.shape[-1]
    np.testing.assert_allclose(pooled[:, :channels], features.mean(axis=(1, 2)), rtol=1e-4)
    spread = features.std(axis=(1, 2))
    np.testing.assert_allclose(pooled[:, channels : 2 * channels], spread, rtol=1e-3, atol=1e-3)
    last = resnet.trainable.get_layer("tail_and_pool").get_layer("tail")
    mean = last.predict(features, verbose=0).mean(axis=(1, 2))
    np.testing.assert_allclose(pooled[:, 2 * channels :], mean, rtol=1e-4, atol=1e-5)

    alone = SimpleNamespace(**(vars(HEAD) | {"pool_intermediate": False}))
    plain = build_network("resnet50", 32, "conv2_block1_out", "conv2_block2_out", alone, 3, None)
    assert plain.tail.output_shape == (None, mean.shape[1])


def test_training_leaves_trunk_and_statistics_alone(pictures: np.ndarray) -> None:
    keras.utils.set_random_seed(0)
    network = build_network("resnet50", 32, "conv2_block1_out", "conv2_block2_out", HEAD, 3, None)
    features = network.frozen.predict(pictures, verbose=0)
    trunk = [w.numpy().copy() for w in network.frozen.weights]
    layers = network.trainable.get_layer("tail_and_pool").get_layer("tail").layers
    statistics = [
        (layer, [w.numpy().copy() for w in layer.weights])
        for layer in layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    convolution = next(layer for layer in layers if isinstance(layer, keras.layers.Conv2D))
    before = convolution.kernel.numpy().copy()
    network.trainable.compile("sgd", "categorical_crossentropy")
    network.trainable.fit(features, np.eye(3)[[0, 1, 2, 0, 1]], epochs=2, verbose=0)
    assert statistics
    for layer, weights in statistics:
        for now, then in zip(layer.weights, weights, strict=True):
            np.testing.assert_array_equal(now.numpy(), then)
    for now, then in zip(network.frozen.weights, trunk, strict=True):
        np.testing.assert_array_equal(now.numpy(), then)
    assert not np.array_equal(convolution.kernel.numpy(), before)


def test_saved_model_loads_without_this_package(
    resnet: Network, pictures: np.ndarray, tmp_path: object
) -> None:
    path = f"{tmp_path}/model.keras"
    resnet.full.save(path)
    loaded = keras.saving.load_model(path, compile=False, safe_mode=True)
    assert not any("busi" in type(layer).__module__ for layer in loaded.layers)
    np.testing.assert_allclose(
        loaded.predict(pictures, verbose=0), resnet.full.predict(pictures, verbose=0), atol=1e-6
    )


def test_mirror_images_are_averaged(
    resnet: Network, pictures: np.ndarray, tmp_path: object
) -> None:
    path = f"{tmp_path}/model.keras"
    tta_horizontal_flip(resnet.full).save(path)
    loaded = keras.saving.load_model(path, compile=False)
    mirrored = pictures[:, :, ::-1]
    expected = (
        resnet.full.predict(pictures, verbose=0) + resnet.full.predict(mirrored, verbose=0)
    ) / 2
    for images in (pictures, mirrored):
        np.testing.assert_allclose(loaded.predict(images, verbose=0), expected, atol=1e-5)


def test_network_is_averaged_with_its_start(pictures: np.ndarray, tmp_path: object) -> None:
    keras.utils.set_random_seed(0)
    tuned, start = (
        build_network("resnet50", 32, "conv2_block1_out", "conv2_block2_out", HEAD, 3, None)
        for _ in range(2)
    )
    for network, towards in ((tuned, 0), (start, 2)):  # random weights alone may agree on a class
        *_, kernel, bias = network.trainable.trainable_variables
        kernel.assign(kernel / 100)
        bias.assign(np.eye(3)[towards])
    start.frozen.set_weights(tuned.frozen.get_weights())
    said = [network.full.predict(pictures, verbose=0) for network in (tuned, start)]
    assert np.abs(said[0] - said[1]).max() > 0.01
    path = f"{tmp_path}/model.keras"
    tta_horizontal_flip(average_with_pretuned(tuned, start)).save(path)
    loaded = keras.saving.load_model(path, compile=False, safe_mode=True)
    assert not any("busi" in type(layer).__module__ for layer in loaded.layers)
    mirrored = [network.full.predict(pictures[:, :, ::-1], verbose=0) for network in (tuned, start)]
    np.testing.assert_allclose(
        loaded.predict(pictures, verbose=0), np.mean([said, mirrored], axis=(0, 1)), atol=1e-5
    )
    assert (
        count_operations(tuned.full)
        < count_operations(average_with_pretuned(tuned, start))
        < (2 * count_operations(tuned.full))
    ), "the frozen part runs once"


@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_every_row_of_backbones_can_be_built_and_cut(name: str) -> None:
    row = BACKBONES[name]
    network = build_network(name, row.minimum_size, row.freeze_until, None, HEAD, 3, None)
    tail_layer = CUTS[name][1]
    tail = network.trainable.get_layer("tail_and_pool").get_layer("tail")
    trunk = network.frozen.get_layer("trunk")
    assert CUTS[name][0] in {layer.name for layer in trunk.layers}
    if tail_layer:
        assert tail_layer in {layer.name for layer in tail.layers}
    assert not trunk.trainable_weights
    assert tail.trainable_weights


@pytest.mark.parametrize(
    ("freeze_until", "message"),
    [("conv9", "freeze_until must be a layer"), ("conv2_block1_1_conv", "skips it")],
)
def test_impossible_cuts_are_named(freeze_until: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_network("resnet50", 32, freeze_until, None, HEAD, 3, None)


def test_operations_are_counted_as_published() -> None:
    """VGG16 without its top: 15.3 G multiplications and additions (Simonyan & Zisserman 2015)."""
    base = keras.applications.VGG16(include_top=False, weights=None, input_shape=(224, 224, 3))
    nested = keras.Sequential([keras.Input((224, 224, 3)), base])
    assert count_operations(nested) == pytest.approx(2 * 15.3e9, rel=0.01)


def disturb_statistics(model: keras.Model, rng: np.random.Generator) -> None:
    """Give every BatchNormalization statistics other than those it starts with."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights(
                [rng.uniform(0.5, 1.5, w.shape).astype(np.float32) for w in layer.get_weights()]
            )


@pytest.mark.parametrize(
    ("builder", "size", "left"),
    [("ResNet50", 32, 0), ("InceptionV3", 75, 0), ("DenseNet121", 32, 62), ("VGG16", 32, 0)],
)
def test_folding_changes_nothing_but_the_work(
    builder: str, size: int, left: int, rng: np.random.Generator
) -> None:
    keras.utils.set_random_seed(1)
    base = getattr(keras.applications, builder)(
        include_top=False, weights=None, input_shape=(size, size, 3)
    )
    disturb_statistics(base, rng)
    images = rng.normal(size=(2, size, size, 3)).astype(np.float32)
    expected = base.predict(images, verbose=0)
    folded = fold_batch_normalization(base)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(folded.predict(images, verbose=0), expected, atol=2e-4 * scale)
    np.testing.assert_array_equal(base.predict(images, verbose=0), expected)
    remaining = [y for y in folded.layers if isinstance(y, keras.layers.BatchNormalization)]
    assert len(remaining) == left
    assert count_operations(folded) == count_operations(base)


def test_what_something_else_reads_is_not_folded(rng: np.random.Generator) -> None:
    images = keras.Input((4, 4, 2))
    seen = keras.layers.Conv2D(3, 1, name="seen")(images)
    normal = keras.layers.BatchNormalization(name="of_seen")(seen)
    curved = keras.layers.Conv2D(3, 1, activation="relu", name="curved")(images)
    after = keras.layers.BatchNormalization(name="of_curved")(curved)
    model = keras.Model(images, keras.layers.Add()([seen, normal, after]))
    disturb_statistics(model, rng)
    folded = fold_batch_normalization(model)
    kept = {y.name for y in folded.layers if isinstance(y, keras.layers.BatchNormalization)}
    assert kept == {"of_seen", "of_curved"}
    values = rng.normal(size=(3, 4, 4, 2)).astype(np.float32)
    np.testing.assert_allclose(
        folded.predict(values, verbose=0), model.predict(values, verbose=0), atol=1e-5
    )
