"""The table of backbones: one row a network, all that training has to know of it.

A new network is one row here; an experiment then names it in
`conf/base/parameters_experiments.yml`.
Input conventions are those of `keras.applications` (https://keras.io/api/applications/).
"""

from dataclasses import dataclass
from typing import Literal

from busi_pipeline.errors import BadInputError


@dataclass(frozen=True)
class Preprocessing:
    """How raw RGB in 0-255 becomes what the pretrained network was trained on.

    The network sees `pixel * scale + offset`, channel by channel, after the channels were put in
    `order`. Three-element tuples follow `order`.
    """

    order: Literal["rgb", "bgr"]
    scale: tuple[float, float, float]
    offset: tuple[float, float, float]


# "caffe": BGR minus the ImageNet mean. "tf": RGB in [-1, 1]. "torch": RGB, ImageNet mean and
# standard deviation. Names as in keras.applications.imagenet_utils.preprocess_input.
CAFFE = Preprocessing("bgr", (1.0, 1.0, 1.0), (-103.939, -116.779, -123.68))
TF = Preprocessing("rgb", (1 / 127.5,) * 3, (-1.0, -1.0, -1.0))
TORCH = Preprocessing(
    "rgb",
    (1 / (255 * 0.229), 1 / (255 * 0.224), 1 / (255 * 0.225)),
    (-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225),
)


@dataclass(frozen=True)
class Backbone:
    """One network of `keras.applications`.

    Attributes:
        builder: name of the function in `keras.applications`.
        image_size: height and width in pixels the ImageNet weights were trained at.
        minimum_size: smallest height and width the network can be built for.
        preprocessing: the input convention of its ImageNet weights.
        tail_after: name of the layer whose output feeds the tail that is fine-tuned; everything up
            to it stays frozen. It must be the only path from input to output (no skip around it).
        imagenet_file: how the name of Keras' download begins, in its folder of models.
    """

    builder: str
    image_size: int
    minimum_size: int
    preprocessing: Preprocessing
    tail_after: str
    imagenet_file: str


BACKBONES: dict[str, Backbone] = {
    "vgg16": Backbone(
        "VGG16", 224, 32, CAFFE, tail_after="block4_pool", imagenet_file="vgg16_weights"
    ),
    "resnet50": Backbone(
        "ResNet50", 224, 32, CAFFE, tail_after="conv4_block6_out", imagenet_file="resnet50_weights"
    ),
    "inception_v3": Backbone(
        "InceptionV3", 299, 75, TF, tail_after="mixed5", imagenet_file="inception_v3_weights"
    ),
    "densenet121": Backbone(
        "DenseNet121", 224, 32, TORCH, tail_after="pool4_pool", imagenet_file="densenet121_weights"
    ),
}


def get_backbone(name: str) -> Backbone:
    """Return the row `name`; raises BadInputError naming the rows there are."""
    if name not in BACKBONES:
        raise BadInputError(
            f"backbone must be one of {sorted(BACKBONES)}; got {name!r}. "
            "Backbones are rows of src/busi_pipeline/backbones.py."
        )
    return BACKBONES[name]
