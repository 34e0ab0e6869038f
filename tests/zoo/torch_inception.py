"""Oracles: GoogLeNet and Inception-v3 written anew in PyTorch."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_zoo import Net, chain, conv, pooled


def unit(i: int, o: int, k: Any, s: int = 1, p: Any = 0) -> nn.Module:
    run = lambda m, x: m.bn(m.conv(x)).relu()  # noqa: E731
    return Net(run, conv=conv(i, o, k, s, p), bn=nn.BatchNorm2d(o, eps=0.001))


# --------------------------------------------------------------------------------------- GoogLeNet


def mixed(i: int, a: int, b: int, c: int, d: int, e: int, f: int) -> nn.Module:
    def run(m: Any, x: Tensor) -> Tensor:
        return torch.cat([m.branch1(x), m.branch2(x), m.branch3(x), m.branch4(x)], 1)

    return Net(
        run,
        branch1=unit(i, a, 1),
        branch2=chain(unit(i, b, 1), unit(b, c, 3, 1, 1)),
        branch3=chain(unit(i, d, 1), unit(d, e, 3, 1, 1)),
        branch4=chain(nn.MaxPool2d(3, 1, 1), unit(i, f, 1)),
    )


def google_aux(i: int, classes: int) -> nn.Module:
    def run(m: Any, x: Tensor) -> Tensor:
        x = m.fc1(m.conv(F.adaptive_avg_pool2d(x, 4)).flatten(1)).relu()
        return m.fc2(F.dropout(x, m.p, m.training))

    net = Net(run, conv=unit(i, 128, 1), fc1=nn.Linear(2048, 1024), fc2=nn.Linear(1024, classes))
    net.p = 0.7
    return net


GOOGLE = """3a 192 64 96 128 16 32 32, 3b 256 128 128 192 32 96 64, 4a 480 192 96 208 16 48 64,
4b 512 160 112 224 24 64 64, 4c 512 128 128 256 24 64 64,
4d 512 112 144 288 32 64 64, 4e 528 256 160 320 32 128 128,
5a 832 256 160 320 32 128 128, 5b 832 384 192 384 48 128 128"""


def googlenet(classes: int, aux: bool = True) -> nn.Module:
    def run(m: Any, x: Tensor) -> Any:
        pool = lambda x, k=3: F.max_pool2d(x, k, 2, ceil_mode=True)  # noqa: E731
        x = pool(m.conv3(m.conv2(pool(m.conv1(x)))))
        x = pool(m.inception3b(m.inception3a(x)))
        a = m.inception4a(x)
        d = m.inception4d(m.inception4c(m.inception4b(a)))
        x = m.inception5b(m.inception5a(pool(m.inception4e(d), 2)))
        logits = m.fc(m.dropout(pooled(x)))
        return (logits, m.aux2(d), m.aux1(a)) if m.training and aux else logits

    parts: dict[str, nn.Module] = {
        "conv1": unit(3, 64, 7, 2, 3),
        "conv2": unit(64, 64, 1),
        "conv3": unit(64, 192, 3, 1, 1),
    }
    for row in GOOGLE.split(","):
        name, *sizes = row.split()
        parts[f"inception{name}"] = mixed(*map(int, sizes))
    if aux:
        parts.update(aux1=google_aux(512, classes), aux2=google_aux(528, classes))
    return Net(run, **parts, dropout=nn.Dropout(0.2), fc=nn.Linear(1024, classes))


# ------------------------------------------------------------------------------------ Inception-v3


def branches(inputs: int, plan: str, pool: str) -> nn.Module:
    """Branches in the order of the output, "name:o,k,..." chained by dots; "|" ends a branch.

    A unit is name=outputs,height,width,stride; "+" instead of a dot forks the last two from one.
    """
    units: dict[str, nn.Module] = {}
    routes: list[list[Any]] = []
    for text in plan.split("|"):
        route: list[Any] = []
        i = inputs
        for step in text.split():
            fork = step.split("+")
            for item in fork:
                name, sizes = item.split("=")
                o, h, w, s = map(int, sizes.split(","))
                pads = (h // 2, w // 2) if s == 1 else (0, 0)
                units[name] = unit(i, o, (h, w), s, pads)
            route.append([item.split("=")[0] for item in fork])
            i = o
        routes.append(route)

    def run(m: Any, x: Tensor) -> Tensor:
        results = []
        for route in routes:
            y = x
            if route[0][0] == "branch_pool":
                y = F.avg_pool2d(x, 3, 1, 1)
            for names in route[:-1]:
                y = getattr(m, names[0])(y)
            results += [getattr(m, name)(y) for name in route[-1]]
        if pool == "max":
            results.append(F.max_pool2d(x, 3, 2))
        return torch.cat(results, 1)

    return Net(run, **units)


def block_a(i: int, p: int) -> nn.Module:
    plan = f"""branch1x1=64,1,1,1 | branch5x5_1=48,1,1,1 branch5x5_2=64,5,5,1 |
    branch3x3dbl_1=64,1,1,1 branch3x3dbl_2=96,3,3,1 branch3x3dbl_3=96,3,3,1 | branch_pool={p},1,1,1"""
    return branches(i, plan, "avg")


def block_b(i: int) -> nn.Module:
    plan = "branch3x3=384,3,3,2 | branch3x3dbl_1=64,1,1,1 branch3x3dbl_2=96,3,3,1 branch3x3dbl_3=96,3,3,2"
    return branches(i, plan, "max")


def block_c(i: int, c: int) -> nn.Module:
    plan = f"""branch1x1=192,1,1,1 | branch7x7_1={c},1,1,1 branch7x7_2={c},1,7,1 branch7x7_3=192,7,1,1 |
    branch7x7dbl_1={c},1,1,1 branch7x7dbl_2={c},7,1,1 branch7x7dbl_3={c},1,7,1 branch7x7dbl_4={c},7,1,1
    branch7x7dbl_5=192,1,7,1 | branch_pool=192,1,1,1"""
    return branches(i, plan, "avg")


def block_d(i: int) -> nn.Module:
    plan = """branch3x3_1=192,1,1,1 branch3x3_2=320,3,3,2 | branch7x7x3_1=192,1,1,1 branch7x7x3_2=192,1,7,1
    branch7x7x3_3=192,7,1,1 branch7x7x3_4=192,3,3,2"""
    return branches(i, plan, "max")


def block_e(i: int) -> nn.Module:
    plan = """branch1x1=320,1,1,1 | branch3x3_1=384,1,1,1 branch3x3_2a=384,1,3,1+branch3x3_2b=384,3,1,1 |
    branch3x3dbl_1=448,1,1,1 branch3x3dbl_2=384,3,3,1 branch3x3dbl_3a=384,1,3,1+branch3x3dbl_3b=384,3,1,1 |
    branch_pool=192,1,1,1"""
    return branches(i, plan, "avg")


def inception_v3(classes: int, aux: bool = True) -> nn.Module:
    def run(m: Any, x: Tensor) -> Any:
        x = m.Conv2d_2b_3x3(m.Conv2d_2a_3x3(m.Conv2d_1a_3x3(x)))
        x = F.max_pool2d(m.Conv2d_4a_3x3(m.Conv2d_3b_1x1(F.max_pool2d(x, 3, 2))), 3, 2)
        for name in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e"):
            x = getattr(m, f"Mixed_{name}")(x)
        side = m.AuxLogits(x) if aux and m.training else None
        logits = m.fc(m.dropout(pooled(m.Mixed_7c(m.Mixed_7b(m.Mixed_7a(x))))))
        return logits if side is None else (logits, side)

    def run_aux(m: Any, x: Tensor) -> Tensor:
        return m.fc(pooled(m.conv1(m.conv0(F.avg_pool2d(x, 5, 3)))))

    return Net(
        run,
        Conv2d_1a_3x3=unit(3, 32, 3, 2),
        Conv2d_2a_3x3=unit(32, 32, 3),
        Conv2d_2b_3x3=unit(32, 64, 3, 1, 1),
        Conv2d_3b_1x1=unit(64, 80, 1),
        Conv2d_4a_3x3=unit(80, 192, 3),
        Mixed_5b=block_a(192, 32),
        Mixed_5c=block_a(256, 64),
        Mixed_5d=block_a(288, 64),
        Mixed_6a=block_b(288),
        Mixed_6b=block_c(768, 128),
        Mixed_6c=block_c(768, 160),
        Mixed_6d=block_c(768, 160),
        Mixed_6e=block_c(768, 192),
        AuxLogits=Net(run_aux, conv0=unit(768, 128, 1), conv1=unit(128, 768, 5), fc=nn.Linear(768, classes))
        if aux
        else None,
        Mixed_7a=block_d(768),
        Mixed_7b=block_e(1280),
        Mixed_7c=block_e(2048),
        dropout=nn.Dropout(),
        fc=nn.Linear(2048, classes),
    )
