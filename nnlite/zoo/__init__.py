"""Well-known networks as plain modules, with torchvision's parameter names.

Each function takes ``weights`` (a .safetensors or .onnx file, or None for random initial values) and
``num_classes``: ``zoo.resnet50("resnet50.safetensors")``. docs/zoo.md says where such files come from.
"""

from __future__ import annotations

from nnlite.zoo.alexnet import AlexNet, alexnet
from nnlite.zoo.densenet import DenseNet, densenet121
from nnlite.zoo.efficientnet import EfficientNet, efficientnet_b0
from nnlite.zoo.googlenet import GoogLeNet, GoogLeNetOutputs, googlenet
from nnlite.zoo.inception import Inception3, InceptionOutputs, inception_v3
from nnlite.zoo.lenet import LeNet, lenet
from nnlite.zoo.mobilenet_v2 import MobileNetV2, mobilenet_v2
from nnlite.zoo.mobilenet_v3 import MobileNetV3, mobilenet_v3_large, mobilenet_v3_small
from nnlite.zoo.resnet import ResNet, resnet18, resnet34, resnet50, resnet101, resnext50_32x4d
from nnlite.zoo.squeezenet import SqueezeNet, squeezenet1_0, squeezenet1_1
from nnlite.zoo.vgg import VGG, vgg11, vgg11_bn, vgg16, vgg16_bn
from nnlite.zoo.weights import load_weights, read_weights

__all__ = [
    "VGG",
    "AlexNet",
    "DenseNet",
    "EfficientNet",
    "GoogLeNet",
    "GoogLeNetOutputs",
    "Inception3",
    "InceptionOutputs",
    "LeNet",
    "MobileNetV2",
    "MobileNetV3",
    "ResNet",
    "SqueezeNet",
    "alexnet",
    "densenet121",
    "efficientnet_b0",
    "googlenet",
    "inception_v3",
    "lenet",
    "load_weights",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "mobilenet_v3_small",
    "read_weights",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnext50_32x4d",
    "squeezenet1_0",
    "squeezenet1_1",
    "vgg11",
    "vgg11_bn",
    "vgg16",
    "vgg16_bn",
]
