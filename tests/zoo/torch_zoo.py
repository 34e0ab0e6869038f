"""Oracles: the zoo's networks written anew in PyTorch, from the papers and torchvision's published names."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Net(nn.Module):
    """Named parts and a function of them."""

    def __init__(self, run: Callable[..., Any], **parts: nn.Module | None) -> None:
        super().__init__()
        for name, part in parts.items():
            if part is not None:
                self.add_module(name, part)
        self.run = run

    def forward(self, x: Tensor) -> Any:
        return self.run(self, x)


def chain(*parts: nn.Module) -> nn.Sequential:
    return nn.Sequential(*parts)


def conv(i: int, o: int, k: Any, s: int = 1, p: Any = 0, groups: int = 1, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(i, o, k, s, p, groups=groups, bias=bias)


def pooled(x: Tensor) -> Tensor:
    return x.mean((2, 3))


# ------------------------------------------------------------------------------------------- ResNet


def basic(i: int, planes: int, s: int, **_: int) -> tuple[nn.Module, int]:
    def run(m: Any, x: Tensor) -> Tensor:
        y = m.bn2(m.conv2(F.relu(m.bn1(m.conv1(x)))))
        return F.relu(y + (m.downsample(x) if hasattr(m, "downsample") else x))

    side = chain(conv(i, planes, 1, s), nn.BatchNorm2d(planes)) if s > 1 or i != planes else None
    block = Net(
        run, conv1=conv(i, planes, 3, s, 1), bn1=nn.BatchNorm2d(planes),
        conv2=conv(planes, planes, 3, 1, 1), bn2=nn.BatchNorm2d(planes), downsample=side,
    )  # fmt: skip
    return block, planes


def bottleneck(i: int, planes: int, s: int, groups: int = 1, base: int = 64) -> tuple[nn.Module, int]:
    def run(m: Any, x: Tensor) -> Tensor:
        y = F.relu(m.bn2(m.conv2(F.relu(m.bn1(m.conv1(x))))))
        return F.relu(m.bn3(m.conv3(y)) + (m.downsample(x) if hasattr(m, "downsample") else x))

    w, o = int(planes * (base / 64.0)) * groups, 4 * planes
    side = chain(conv(i, o, 1, s), nn.BatchNorm2d(o)) if s > 1 or i != o else None
    block = Net(
        run, conv1=conv(i, w, 1), bn1=nn.BatchNorm2d(w), conv2=conv(w, w, 3, s, 1, groups),
        bn2=nn.BatchNorm2d(w), conv3=conv(w, o, 1), bn3=nn.BatchNorm2d(o), downsample=side,
    )  # fmt: skip
    return block, o


def resnet(
    block: Callable[..., tuple[nn.Module, int]], counts: list[int], classes: int, **options: int
) -> nn.Module:
    def run(m: Any, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(m.bn1(m.conv1(x))), 3, 2, 1)
        return m.fc(pooled(m.layer4(m.layer3(m.layer2(m.layer1(x))))))

    parts: dict[str, nn.Module] = {"conv1": conv(3, 64, 7, 2, 3), "bn1": nn.BatchNorm2d(64)}
    width = 64
    for stage, count in enumerate(counts):
        blocks = []
        for j in range(count):
            made, width = block(width, 64 * 2**stage, 2 if stage and not j else 1, **options)
            blocks.append(made)
        parts[f"layer{stage + 1}"] = chain(*blocks)
    return Net(run, **parts, fc=nn.Linear(width, classes))


# -------------------------------------------------------------------- VGG, AlexNet, SqueezeNet, LeNet


def vgg(plan: str, classes: int, norm: bool = False, hidden: int = 4096) -> nn.Module:
    layers: list[nn.Module] = []
    i = 3
    for item in plan.split():
        if item == "M":
            layers.append(nn.MaxPool2d(2))
        else:
            o = int(item)
            layers += [conv(i, o, 3, 1, 1, bias=True), *([nn.BatchNorm2d(o)] if norm else []), nn.ReLU()]
            i = o
    fc = nn.Linear
    head = chain(
        fc(25088, hidden),
        nn.ReLU(),
        nn.Dropout(),
        fc(hidden, hidden),
        nn.ReLU(),
        nn.Dropout(),
        fc(hidden, classes),
    )
    run = lambda m, x: m.classifier(F.adaptive_avg_pool2d(m.features(x), 7).flatten(1))  # noqa: E731
    return Net(run, features=chain(*layers), classifier=head)


A = "64 M 128 M 256 256 M 512 512 M 512 512 M"
D = "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M"


def alexnet(classes: int, hidden: int = 4096) -> nn.Module:
    relu, pool = nn.ReLU, lambda: nn.MaxPool2d(3, 2)
    c = lambda *a: conv(*a, bias=True)  # noqa: E731
    features = chain(
        c(3, 64, 11, 4, 2), relu(), pool(), c(64, 192, 5, 1, 2), relu(), pool(), c(192, 384, 3, 1, 1), relu(),
        c(384, 256, 3, 1, 1), relu(), c(256, 256, 3, 1, 1), relu(), pool(),
    )  # fmt: skip
    head = chain(
        nn.Dropout(), nn.Linear(9216, hidden), relu(), nn.Dropout(), nn.Linear(hidden, hidden), relu(),
        nn.Linear(hidden, classes),
    )  # fmt: skip
    run = lambda m, x: m.classifier(F.adaptive_avg_pool2d(m.features(x), 6).flatten(1))  # noqa: E731
    return Net(run, features=features, classifier=head)


def fire(i: int, s: int, e1: int, e3: int) -> nn.Module:
    def run(m: Any, x: Tensor) -> Tensor:
        x = m.squeeze(x).relu()
        return torch.cat([m.expand1x1(x).relu(), m.expand3x3(x).relu()], 1)

    c = lambda *a: conv(*a, bias=True)  # noqa: E731
    return Net(run, squeeze=c(i, s, 1), expand1x1=c(s, e1, 1), expand3x3=c(s, e3, 3, 1, 1))


def squeezenet(version: str, classes: int) -> nn.Module:
    plan = {
        "1_0": [
            (96, 7),
            "p",
            (16, 64),
            (16, 64),
            (32, 128),
            "p",
            (32, 128),
            (48, 192),
            (48, 192),
            (64, 256),
            "p",
            (64, 256),
        ],
        "1_1": [
            (64, 3),
            "p",
            (16, 64),
            (16, 64),
            "p",
            (32, 128),
            (32, 128),
            "p",
            (48, 192),
            (48, 192),
            (64, 256),
            (64, 256),
        ],
    }[version]
    (stem, k), *rest = plan
    layers: list[nn.Module] = [conv(3, stem, k, 2, bias=True), nn.ReLU()]
    i = stem
    for item in rest:
        if item == "p":
            layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
        else:
            layers.append(fire(i, item[0], item[1], item[1]))
            i = 2 * item[1]
    head = chain(nn.Dropout(), conv(512, classes, 1, bias=True), nn.ReLU())
    return Net(lambda m, x: pooled(m.classifier(m.features(x))), features=chain(*layers), classifier=head)


def lenet(classes: int) -> nn.Module:
    def run(m: Any, x: Tensor) -> Tensor:
        x = F.avg_pool2d(m.conv1(x).tanh(), 2)
        x = F.avg_pool2d(m.conv2(x).tanh(), 2).flatten(1)
        return m.fc3(m.fc2(m.fc1(x).tanh()).tanh())

    fc = nn.Linear
    return Net(
        run, conv1=conv(1, 6, 5, 1, 2, bias=True), conv2=conv(6, 16, 5, bias=True),
        fc1=fc(400, 120), fc2=fc(120, 84), fc3=fc(84, classes),
    )  # fmt: skip


# ----------------------------------------------------------------------------------------- DenseNet


def densenet(counts: list[int], growth: int, classes: int) -> nn.Module:
    def layer(m: Any, x: Tensor) -> Tensor:
        y = m.conv1(m.norm1(x).relu())
        return torch.cat([x, m.conv2(m.norm2(y).relu())], 1)

    bn = nn.BatchNorm2d
    features: OrderedDict[str, nn.Module] = OrderedDict(
        conv0=conv(3, 64, 7, 2, 3), norm0=bn(64), relu0=nn.ReLU(), pool0=nn.MaxPool2d(3, 2, 1)
    )
    c = 64
    for b, count in enumerate(counts, 1):
        made: OrderedDict[str, nn.Module] = OrderedDict()
        for j in range(1, count + 1):
            made[f"denselayer{j}"] = Net(
                layer,
                norm1=bn(c),
                conv1=conv(c, 4 * growth, 1),
                norm2=bn(4 * growth),
                conv2=conv(4 * growth, growth, 3, 1, 1),
            )
            c += growth
        features[f"denseblock{b}"] = nn.Sequential(made)
        if b < len(counts):
            features[f"transition{b}"] = nn.Sequential(
                OrderedDict(norm=bn(c), relu=nn.ReLU(), conv=conv(c, c // 2, 1), pool=nn.AvgPool2d(2))
            )
            c //= 2
    features["norm5"] = bn(c)
    run = lambda m, x: m.classifier(pooled(m.features(x).relu()))  # noqa: E731
    return Net(run, features=nn.Sequential(features), classifier=nn.Linear(c, classes))


# ---------------------------------------------------------------------------------------- mobile nets


def cna(i: int, o: int, k: int, s: int, act: Any, groups: int = 1, **norm: float) -> nn.Sequential:
    parts = [conv(i, o, k, s, k // 2, groups), nn.BatchNorm2d(o, **norm)]
    return chain(*parts, *([act()] if act else []))


def residual(name: str, body: nn.Module, fits: bool) -> nn.Module:
    def run(m: Any, x: Tensor) -> Tensor:
        y = getattr(m, name)(x)
        return x + y if fits else y

    return Net(run, **{name: body})


def classifier_of(features: list[nn.Module], head: nn.Module) -> nn.Module:
    return Net(lambda m, x: m.classifier(pooled(m.features(x))), features=chain(*features), classifier=head)


def mobilenet_v2(classes: int) -> nn.Module:
    act = nn.ReLU6
    layers: list[nn.Module] = [cna(3, 32, 3, 2, act)]
    i = 32
    for t, c, n, s in [
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ]:
        for j in range(n):
            step, h = (s if j == 0 else 1), i * t
            first = [cna(i, h, 1, 1, act)] if t > 1 else []
            body = chain(*first, cna(h, h, 3, step, act, h), conv(h, c, 1), nn.BatchNorm2d(c))
            layers.append(residual("conv", body, step == 1 and i == c))
            i = c
    layers.append(cna(320, 1280, 1, 1, act))
    return classifier_of(layers, chain(nn.Dropout(0.2), nn.Linear(1280, classes)))


def squeeze_excite(
    c: int, s: int, act: Callable[[Tensor], Tensor], gate: Callable[[Tensor], Tensor]
) -> nn.Module:
    run = lambda m, x: x * gate(m.fc2(act(m.fc1(x.mean((2, 3), keepdim=True)))))  # noqa: E731
    return Net(run, fc1=conv(c, s, 1, bias=True), fc2=conv(s, c, 1, bias=True))


LARGE = """3 16 16 0 R 1, 3 64 24 0 R 2, 3 72 24 0 R 1, 5 72 40 1 R 2, 5 120 40 1 R 1, 5 120 40 1 R 1,
3 240 80 0 H 2, 3 200 80 0 H 1, 3 184 80 0 H 1, 3 184 80 0 H 1, 3 480 112 1 H 1,
3 672 112 1 H 1, 5 672 160 1 H 2, 5 960 160 1 H 1, 5 960 160 1 H 1"""
SMALL = """3 16 16 1 R 2, 3 72 24 0 R 2, 3 88 24 0 R 1, 5 96 40 1 H 2, 5 240 40 1 H 1, 5 240 40 1 H 1,
5 120 48 1 H 1, 5 144 48 1 H 1, 5 288 96 1 H 2, 5 576 96 1 H 1, 5 576 96 1 H 1"""
SQUEEZED = {16: 8, 72: 24, 120: 32, 480: 120, 672: 168, 960: 240, 96: 24, 240: 64, 144: 40, 288: 72, 576: 144}


def mobilenet_v3(rows: str, last: int, classes: int) -> nn.Module:
    norm = {"eps": 0.001, "momentum": 0.01}
    layers: list[nn.Module] = [cna(3, 16, 3, 2, nn.Hardswish, **norm)]
    i = 16
    for row in rows.split(","):
        k, h, o, se, kind, s = (int(v) if v.isdigit() else v for v in row.split())
        act = {"R": nn.ReLU, "H": nn.Hardswish}[kind]
        body = [cna(i, h, 1, 1, act, **norm)] if h != i else []
        body.append(cna(h, h, k, s, act, h, **norm))
        if se:
            body.append(squeeze_excite(h, SQUEEZED[h], F.relu, F.hardsigmoid))
        body.append(cna(h, o, 1, 1, None, **norm))
        layers.append(residual("block", chain(*body), s == 1 and i == o))
        i = o
    layers.append(cna(i, 6 * i, 1, 1, nn.Hardswish, **norm))
    head = chain(nn.Linear(6 * i, last), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(last, classes))
    return classifier_of(layers, head)


def efficientnet_b0(classes: int) -> nn.Module:
    act = nn.SiLU
    layers: list[nn.Module] = [cna(3, 32, 3, 2, act)]
    i = 32
    for t, k, s, o, n in [
        (1, 3, 1, 16, 1),
        (6, 3, 2, 24, 2),
        (6, 5, 2, 40, 2),
        (6, 3, 2, 80, 3),
        (6, 5, 1, 112, 3),
        (6, 5, 2, 192, 4),
        (6, 3, 1, 320, 1),
    ]:
        stage = []
        for j in range(n):
            step, h = (1 if j else s), i * t
            body = [cna(i, h, 1, 1, act)] if t > 1 else []
            body += [
                cna(h, h, k, step, act, h),
                squeeze_excite(h, i // 4, F.silu, torch.sigmoid),
                cna(h, o, 1, 1, None),
            ]
            stage.append(residual("block", chain(*body), step == 1 and i == o))
            i = o
        layers.append(chain(*stage))
    layers.append(cna(320, 1280, 1, 1, act))
    return classifier_of(layers, chain(nn.Dropout(0.2), nn.Linear(1280, classes)))
