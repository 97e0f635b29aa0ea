"""Networks of the paper, without biases and with non-affine normalization.

`mobilenet_v1` and `mobilenet_v2_sparse_ready` are not from the paper. They are
designed so that their zeros save time, see `tf_gems.export.xnnpack`.
"""

from tf_gems.zoo.conv4 import conv4
from tf_gems.zoo.lenet import lenet_300_100
from tf_gems.zoo.mobilenet_v1 import mobilenet_v1
from tf_gems.zoo.mobilenet_v2 import mobilenet_v2
from tf_gems.zoo.mobilenet_v2 import mobilenet_v2_sparse_ready
from tf_gems.zoo.resnet_cifar import resnet20
from tf_gems.zoo.resnet_cifar import resnet32
from tf_gems.zoo.resnet_imagenet import resnet18
from tf_gems.zoo.resnet_imagenet import resnet50
from tf_gems.zoo.vgg16 import vgg16
from tf_gems.zoo.wide_resnet import wide_resnet28_2

__all__ = [
    "conv4",
    "lenet_300_100",
    "mobilenet_v1",
    "mobilenet_v2",
    "mobilenet_v2_sparse_ready",
    "resnet18",
    "resnet20",
    "resnet32",
    "resnet50",
    "vgg16",
    "wide_resnet28_2",
]
