"""ResNet-20 for CIFAR-10 in plain PyTorch, for comparison.

Equal to `tf_gems.zoo.resnet20`: no biases, normalization without scale and
offset, and shortcuts that subsample and pad with zeros.
"""

import importlib.metadata
import importlib.util
import time


def installed():
    """Returns whether PyTorch is installed."""
    return importlib.util.find_spec("torch") is not None


def version():
    """Returns PyTorch's version and device, or `None`."""
    if not installed():
        return None
    name = f"{importlib.metadata.version('torch')} on "
    import torch

    gpu = torch.cuda.is_available()
    return name + (torch.cuda.get_device_name() if gpu else "cpu")


def make_network():
    """Returns the network, a `torch.nn.Module`."""
    from torch import nn
    from torch.nn import functional

    def convolution_norm(inputs, outputs, stride=1):
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs, affine=False),
        )

    class Block(nn.Module):
        def __init__(self, inputs, outputs, stride):
            super().__init__()
            self.first = convolution_norm(inputs, outputs, stride)
            self.second = convolution_norm(outputs, outputs)
            self.stride, self.missing = stride, (outputs - inputs) // 2

        def forward(self, x):
            y = self.second(functional.relu(self.first(x)))
            x = x[:, :, :: self.stride, :: self.stride]
            x = functional.pad(x, (0, 0, 0, 0, self.missing, self.missing))
            return functional.relu(x + y)

    blocks, inputs = [], 16
    for stage, outputs in enumerate((16, 32, 64)):
        for index in range(3):
            stride = 2 if stage and not index else 1
            blocks.append(Block(inputs, outputs, stride))
            inputs = outputs
    return nn.Sequential(
        convolution_norm(3, 16),
        nn.ReLU(),
        *blocks,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10, bias=False),
    )


def train(images, labels, batch_size, epochs):
    """Trains the network. Returns the seconds of every epoch except the first.

    Args:
        images: Float32 array `(n, height, width, channels)`.
        labels: Integer array `(n,)`.
        batch_size: Positive integer.
        epochs: Positive integer, number of counted epochs.

    Returns:
        List of floats.
    """
    import torch
    from torch.nn import functional

    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    images = torch.tensor(images, device=device).permute(0, 3, 1, 2)
    images, labels = images.contiguous(), torch.tensor(labels, device=device)
    network = make_network().to(device)
    optimizer = torch.optim.SGD(network.parameters(), 0.1, 0.9)
    seconds = []
    for epoch in range(1 + epochs):
        begin = time.perf_counter()
        for places in torch.randperm(len(labels), device=device).split(
            batch_size
        ):
            batch = _crop_and_flip(images[places])
            loss = functional.cross_entropy(network(batch), labels[places])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        loss.item()  # Waits for the device.
        if epoch:
            seconds.append(time.perf_counter() - begin)
    return seconds


def _crop_and_flip(images):
    import torch
    from torch.nn import functional

    count, channels, height, width = images.shape
    device = images.device
    padded = functional.pad(images, (4, 4, 4, 4))
    corners = torch.randint(0, 9, (2, count, 1), device=device)
    rows = corners[0] + torch.arange(height, device=device)
    columns = corners[1] + torch.arange(width, device=device)
    flipped = torch.rand(count, 1, device=device) < 0.5
    columns = torch.where(flipped, columns.flip(1), columns)
    examples = torch.arange(count, device=device)[:, None, None]
    cropped = padded[examples, :, rows[:, :, None], columns[:, None, :]]
    return cropped.permute(0, 3, 1, 2)
