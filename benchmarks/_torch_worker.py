"""Worker: timm's networks and torchvision's input pipeline, in a Python that has them.

Nothing of this package is needed here.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from _worker import serve

# Symmetric padding in place of TensorFlow's: the same multiply-adds without copies for padding.
_NETWORKS = {"B0": "tf_efficientnetv2_b0", "S": "tf_efficientnetv2_s"}
_CLASSES = 1000
_ENDLESS = 10**9
_state: dict[str, Any] = {}


def first_step(model: str, image_size: int, batch_size: int, compiled: bool) -> None:
    """Builds a network, channels last, in training mode, and makes one step."""
    import torch

    torch.set_num_threads(_cores())
    network = make_network(model, drop_rate=0.2, drop_path_rate=0.2).train()
    network = network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.RMSprop(  # foreach: faster here than the default
        network.parameters(), lr=0.01, alpha=0.9, eps=1e-3, momentum=0.9, foreach=True
    )
    images = torch.rand(batch_size, 3, image_size, image_size)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, _CLASSES, (batch_size,))
    loss = torch.nn.CrossEntropyLoss()
    forward = torch.compile(network) if compiled else network

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss(forward(images), labels).backward()
        optimizer.step()

    _state["step"] = step
    step()


def steps(count: int) -> float:
    """Makes further steps; returns their seconds."""
    began = time.perf_counter()
    for _ in range(count):
        _state["step"]()
    return time.perf_counter() - began


def open_images(folder: str, image_size: int, magnitude: int, batch_size: int) -> None:
    """Makes torchvision's pipeline over the folder's JPEG files, with two worker processes."""
    import torch
    from PIL import Image
    from torchvision.transforms import v2

    torch.set_num_threads(1)
    transform = v2.Compose(
        [
            v2.RandomResizedCrop(image_size),
            v2.RandomHorizontalFlip(),
            v2.RandAugment(num_ops=2, magnitude=magnitude),
            v2.PILToTensor(),
        ]
    )
    files = sorted(map(str, Path(folder).glob("*/*.jpg")))

    class Images(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return _ENDLESS

        def __getitem__(self, index: int) -> Any:
            with Image.open(files[index % len(files)]) as image:
                return transform(image.convert("RGB"))

    _state["loader"] = torch.utils.data.DataLoader(
        Images(), batch_size, num_workers=2, sampler=range(_ENDLESS)
    )


def read_images(seconds: float, warm_up: float) -> float:
    """Images per second of whole batches, after some to warm up."""
    from _input_rate import images_per_second

    return images_per_second(iter(_state["loader"]), seconds, warm_up)


def export_onnx(model: str, image_size: int, path: str) -> None:
    """Writes a network as timm's users do, for one image of that size."""
    import torch

    network = make_network(model, exportable=True).eval()
    with torch.no_grad():  # as in inference.py's `with_biases`
        for name, values in network.state_dict().items():
            if name.endswith((".bias", ".running_mean")):
                values.normal_(0, 0.1)
    image = torch.rand(1, 3, image_size, image_size)
    torch.onnx.export(
        network,
        (image,),
        path,
        input_names=["image"],
        output_names=["logits"],
        dynamo=True,
        external_data=False,
    )


def versions() -> dict[str, str]:
    """Of what takes part here."""
    import timm
    import torch
    import torchvision

    found = {"torch": torch, "torchvision": torchvision, "timm": timm}
    return {name: module.__version__ for name, module in found.items()}


def make_network(model: str, **arguments: Any) -> Any:
    """A timm network with random weights."""
    import timm

    return timm.create_model(_NETWORKS[model], num_classes=_CLASSES, pad_type="", **arguments)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    serve(
        {
            "first_step": first_step,
            "steps": steps,
            "open_images": open_images,
            "read_images": read_images,
            "export_onnx": export_onnx,
            "versions": versions,
        }
    )
