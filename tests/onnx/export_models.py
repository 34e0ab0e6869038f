"""Small PyTorch models, each with what is typical of an architecture, to be exported by PyTorch itself."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


def conv_bn(cin, cout, k=3, s=1, g=1, act=nn.ReLU):
    layers = [nn.Conv2d(cin, cout, k, s, k // 2, groups=g, bias=False), nn.BatchNorm2d(cout)]
    return nn.Sequential(*layers, *([] if act is None else [act()]))


class Bottleneck(nn.Module):  # ResNet, and RegNet with groups
    def __init__(self, cin, mid, cout, stride=1, groups=1):
        super().__init__()
        self.body = nn.Sequential(
            conv_bn(cin, mid, 1), conv_bn(mid, mid, 3, stride, groups), conv_bn(mid, cout, 1, act=None)
        )
        self.skip = conv_bn(cin, cout, 1, stride, act=None) if stride > 1 or cin != cout else nn.Identity()

    def forward(self, x):
        return F.relu(self.body(x) + self.skip(x))


def classified(body, channels, classes=5):
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]
    return nn.Sequential(body, *head)


def resnet():
    stem = [nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    return classified(nn.Sequential(*stem, Bottleneck(8, 4, 16), Bottleneck(16, 8, 16, 2)), 16)


def regnet():
    return classified(nn.Sequential(Bottleneck(3, 8, 16, 2, 4), Bottleneck(16, 8, 16, 1, 4)), 16)


def vgg():
    body = [
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
    ]
    head = [
        nn.AdaptiveAvgPool2d((4, 4)),
        nn.Flatten(),
        nn.Linear(128, 16),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(16, 5),
    ]
    return nn.Sequential(*body, nn.MaxPool2d(2), *head)


class Inception(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = conv_bn(3, 4, 1)
        self.three = nn.Sequential(conv_bn(3, 4, 1), conv_bn(4, 6, 3))
        self.tall = nn.Sequential(
            nn.Conv2d(3, 4, (1, 7), padding=(0, 3)), nn.Conv2d(4, 4, (7, 1), padding=(3, 0))
        )
        self.pooled = conv_bn(3, 4, 1)

    def forward(self, x):
        pooled = F.avg_pool2d(x, 3, 1, 1)
        parts = [self.one(x), self.three(x), self.tall(x), self.pooled(pooled)]
        return torch.cat([*parts, F.max_pool2d(x, 3, 1, 1)], 1)


class DenseNet(nn.Module):
    def __init__(self):
        super().__init__()
        width = [4, 8, 12]
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(c) for c in width)
        self.convs = nn.ModuleList(nn.Conv2d(c, 4, 3, padding=1, bias=False) for c in width)

    def forward(self, x):
        features = [self.stem(x)]
        for norm, conv in zip(self.norms, self.convs, strict=True):
            features.append(conv(F.relu(norm(torch.cat(features, 1)))))
        return F.avg_pool2d(torch.cat(features, 1), 2, 2)


class Fire(nn.Module):  # SqueezeNet
    def __init__(self):
        super().__init__()
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.squeeze, self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 8, 1), nn.Conv2d(4, 8, 3, padding=1)

    def forward(self, x):
        y = F.relu(self.squeeze(self.pool(x)))
        return torch.cat([F.relu(self.a(y)), F.relu(self.b(y))], 1)


class Squeeze(nn.Module):  # squeeze and excitation
    def __init__(self, channels, gate):
        super().__init__()
        self.pool, self.gate = nn.AdaptiveAvgPool2d(1), gate
        self.down, self.up = nn.Conv2d(channels, 4, 1), nn.Conv2d(4, channels, 1)

    def forward(self, x):
        return x * self.gate(self.up(F.relu(self.down(self.pool(x)))))


class Inverted(nn.Module):  # MobileNet v2 and v3, EfficientNet
    def __init__(self, act, squeeze=None):
        super().__init__()
        self.stem = conv_bn(3, 8, 3, 2, act=act)
        layers = [conv_bn(8, 16, 1, act=act), conv_bn(16, 16, 3, 1, 16, act=act)]
        layers += [] if squeeze is None else [Squeeze(16, squeeze)]
        self.body = nn.Sequential(*layers, conv_bn(16, 8, 1, act=None))

    def forward(self, x):
        x = self.stem(x)
        return x + self.body(x)


class Shuffle(nn.Module):  # ShuffleNet v2
    def __init__(self):
        super().__init__()
        self.stem = conv_bn(3, 8)
        self.branch = nn.Sequential(conv_bn(4, 4, 1), conv_bn(4, 4, 3, 1, 4, act=None), conv_bn(4, 4, 1))

    def forward(self, x):
        a, b = self.stem(x).chunk(2, 1)
        y = torch.cat([a, self.branch(b)], 1)
        n, c, h, w = y.shape
        return y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class ConvNeXt(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.depthwise, self.norm = nn.Conv2d(8, 8, 7, padding=3, groups=8), nn.LayerNorm(8)
        self.up, self.down = nn.Linear(8, 32), nn.Linear(32, 8)
        self.scale = nn.Parameter(torch.full((8,), 0.5))

    def forward(self, x):
        x = self.stem(x)
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.scale * self.down(F.gelu(self.up(y)))
        return x + y.permute(0, 3, 1, 2)


class ViT(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, 16) * 0.5)
        self.position = nn.Parameter(torch.randn(1, 17, 16) * 0.5)
        self.first, self.second = nn.LayerNorm(16), nn.LayerNorm(16)
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.mlp = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        n, length, _ = x.shape
        q, k, v = self.qkv(self.first(x)).reshape(n, length, 3, 4, 4).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, length, 16)
        x = x + self.out(y)
        return (x + self.mlp(self.second(x)))[:, 0]


class Swin(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch, self.norm = nn.Conv2d(3, 16, 4, 4), nn.LayerNorm(16)
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.bias = nn.Parameter(torch.randn(4, 16, 16) * 0.2)

    def forward(self, x):
        x = self.patch(x).permute(0, 2, 3, 1)  # [N,8,8,C] in windows of 4 x 4, shifted by 2
        n, c = x.shape[0], 16
        y = torch.roll(self.norm(x), (-2, -2), (1, 2))
        y = y.view(n, 2, 4, 2, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)
        q, k, v = self.qkv(y).reshape(-1, 16, 3, 4, 4).permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q * 0.5 @ k.transpose(-2, -1) + self.bias).softmax(-1)
        y = self.out((weights @ v).transpose(1, 2).reshape(-1, 16, c))
        y = y.view(n, 2, 2, 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(n, 8, 8, c)
        return x + torch.roll(y, (2, 2), (1, 2))


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.low = conv_bn(3, 6), conv_bn(6, 8)
        self.up, self.mix = nn.ConvTranspose2d(8, 6, 2, 2), conv_bn(18, 6)
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, x):
        a = self.down(x)
        b = self.low(F.max_pool2d(a, 2))
        wide = F.interpolate(b[:, :6], scale_factor=2.0, mode="bilinear", align_corners=True)
        return self.head(self.mix(torch.cat([a, self.up(b), wide], 1)))


class FCN(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Sequential(conv_bn(3, 8, 3, 2), conv_bn(8, 8, 3, 2)), nn.Conv2d(8, 3, 1)

    def forward(self, x):
        y = self.head(self.body(x))
        return F.interpolate(y, size=x.shape[-2:], mode="bilinear", align_corners=False)


class ASPP(nn.Module):  # DeepLabv3
    def __init__(self):
        super().__init__()
        self.stem = conv_bn(3, 8, 3, 2)
        self.spread = nn.ModuleList(nn.Conv2d(8, 4, 3, padding=d, dilation=d, bias=False) for d in (1, 2, 4))
        self.pooled, self.head = nn.Conv2d(8, 4, 1), nn.Conv2d(16, 3, 1)

    def forward(self, x):
        x = self.stem(x)
        pooled = F.relu(self.pooled(F.adaptive_avg_pool2d(x, 1)))
        pooled = F.interpolate(pooled, size=x.shape[-2:], mode="bilinear", align_corners=False)
        return self.head(torch.cat([*(F.relu(conv(x)) for conv in self.spread), pooled], 1))


class SSD(nn.Module):
    def __init__(self):
        super().__init__()
        self.near, self.far = conv_bn(3, 8, 3, 2), conv_bn(8, 8, 3, 2)
        self.scale = nn.Parameter(torch.full((8,), 20.0))
        self.boxes, self.classes = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 6, 3, padding=1)

    def forward(self, x):
        near = self.near(x)
        far = self.far(near)
        near = F.normalize(near, dim=1) * self.scale.view(1, -1, 1, 1)  # conv4_3's L2 normalisation
        flat = [
            torch.cat([head(f).permute(0, 2, 3, 1).reshape(f.shape[0], -1, size) for f in (near, far)], 1)
            for head, size in ((self.boxes, 4), (self.classes, 3))
        ]
        return flat[0], flat[1].softmax(-1)


class RetinaNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.near, self.far = conv_bn(3, 8, 3, 2), conv_bn(8, 8, 3, 2)
        self.side, self.tower = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, padding=1)
        self.classes = nn.Conv2d(8, 6, 3, padding=1)

    def forward(self, x):
        near = self.near(x)
        far = self.far(near)
        near = self.side(near) + F.interpolate(far, size=near.shape[-2:], mode="nearest")
        scores = []
        for level in (near, far):
            y = self.classes(F.relu(self.tower(level)))
            n, _, h, w = y.shape
            scores.append(y.view(n, 2, 3, h, w).permute(0, 3, 4, 1, 2).reshape(n, -1, 3))
        return torch.sigmoid(torch.cat(scores, 1))


def dcgan():
    layers = [nn.ConvTranspose2d(6, 8, 4, 1, 0, bias=False), nn.BatchNorm2d(8), nn.ReLU()]
    layers += [nn.ConvTranspose2d(8, 6, 4, 2, 1, bias=False), nn.BatchNorm2d(6), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.ConvTranspose2d(6, 3, 3, 2, 1, output_padding=1), nn.Tanh())


class Modulated(nn.Module):  # StyleGAN2
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 3, 3, 3))
        self.affine = nn.Linear(5, 3)

    def forward(self, x, style):
        n = 2
        w = self.weight[None] * (self.affine(style) + 1)[:, None, :, None, None]
        w = w * torch.rsqrt(w.pow(2).sum((2, 3, 4), keepdim=True) + 1e-8)
        y = F.conv2d(x.reshape(1, n * 3, 16, 16), w.reshape(n * 6, 3, 3, 3), padding=1, groups=n)
        return F.leaky_relu(y.reshape(n, 6, 16, 16), 0.2) * 2**0.5


class SiamFC(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.scale = conv_bn(3, 6, 3, 2), nn.Parameter(torch.tensor([0.1, 0.2]))

    def forward(self, target, scene):
        n = 2
        z, x = self.body(target), self.body(scene)
        y = F.conv2d(x.reshape(1, n * 6, 16, 16), z.reshape(n * 6, 1, 4, 4), groups=n * 6)
        return y.reshape(n, 6, 13, 13).sum(1, keepdim=True) * self.scale[0] + self.scale[1]


class Tracker(nn.Module):  # a recurrent layer over frames
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(conv_bn(3, 4, 3, 2), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.lstm, self.head = nn.LSTM(16, 6, num_layers=2, batch_first=True), nn.Linear(6, 4)

    def forward(self, frames):
        n, length = 2, 3
        features = self.features(frames.reshape(n * length, 3, 12, 12)).reshape(n, length, 16)
        return self.head(self.lstm(features)[0])


PICTURE = ((2, 3, 32, 32),)
MODELS = {
    "resnet": (resnet, PICTURE), "regnet": (regnet, PICTURE), "vgg": (vgg, ((2, 3, 16, 16),)),
    "inception": (Inception, ((2, 3, 12, 12),)), "densenet": (DenseNet, ((2, 3, 12, 12),)),
    "squeezenet": (Fire, ((2, 3, 13, 13),)), "mobilenet_v2": (lambda: Inverted(nn.ReLU6), PICTURE),
    "mobilenet_v3": (lambda: Inverted(nn.Hardswish, nn.Hardsigmoid()), PICTURE),
    "efficientnet": (lambda: Inverted(nn.SiLU, nn.Sigmoid()), PICTURE), "shufflenet": (Shuffle, PICTURE),
    "convnext": (ConvNeXt, PICTURE), "vit": (ViT, PICTURE), "swin": (Swin, PICTURE),
    "unet": (UNet, PICTURE), "fcn": (FCN, PICTURE), "deeplab": (ASPP, PICTURE), "ssd": (SSD, PICTURE),
    "retinanet": (RetinaNet, PICTURE), "dcgan": (dcgan, ((2, 6, 1, 1),)),
    "stylegan2": (Modulated, ((2, 3, 16, 16), (2, 5))), "siamfc": (SiamFC, ((2, 3, 8, 8), (2, 3, 32, 32))),
    "tracker": (Tracker, ((2, 3, 3, 12, 12),)),
}  # fmt: skip
"""Name -> how it is made, and the shapes of its inputs."""


def made(name):
    """A model in evaluation mode with statistics that are not 0 and 1, and its inputs."""
    torch.manual_seed(0)
    make, shapes = MODELS[name]
    model = make()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.3, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
        if isinstance(module, (nn.BatchNorm2d, nn.LayerNorm)):  # equal ones would be shared in the file
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
    return model.eval(), tuple(torch.randn(shape) for shape in shapes)
