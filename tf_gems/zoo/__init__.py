"""Networks of the paper, without biases, with non-affine normalisation."""

from tf_gems.zoo.conv4 import conv4
from tf_gems.zoo.lenet import lenet_300_100
from tf_gems.zoo.resnet20 import resnet20

__all__ = ["conv4", "lenet_300_100", "resnet20"]
