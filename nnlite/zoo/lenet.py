"""LeNet-5, as it is taught today."""

from __future__ import annotations

from nnlite import functional as F
from nnlite import nn
from nnlite.tensors import Tensor
from nnlite.zoo.weights import Weights, with_weights


class LeNet(nn.Module):
    """Digits [N,1,28,28] to logits [N,num_classes].

    Layers and sizes are LeNet-5's; mean pooling has no coefficients, every map of C3 sees all of S2, and the
    output is linear rather than radial. Source: LeCun et al. 1998, doi:10.1109/5.726791.
    """

    def __init__(self, num_classes: int = 10) -> None:
        self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.pool = nn.AvgPool2d(2)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the digits."""
        x = self.pool(F.tanh(self.conv1(x)))  # [N,6,14,14]
        x = self.pool(F.tanh(self.conv2(x)))  # [N,16,5,5]
        x = F.tanh(self.fc2(F.tanh(self.fc1(F.flatten(x, 1)))))
        return self.fc3(x)


def lenet(weights: Weights = None, num_classes: int = 10) -> LeNet:
    """LeNet-5 (61,706 parameters, 0.4 M multiply-accumulates); see :class:`LeNet`."""
    return with_weights(LeNet(num_classes), weights, heads=("fc3",))
