"""ResNet-50 v1.5 in plain PyTorch modules, so that torchvision is not needed."""


def resnet50(torch, classes):
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self, inputs, planes, stride):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(inputs, planes, 1, bias=False), nn.BatchNorm2d(planes)
            self.conv2, self.bn2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False), nn.BatchNorm2d(planes)
            self.conv3, self.bn3 = nn.Conv2d(planes, 4 * planes, 1, bias=False), nn.BatchNorm2d(4 * planes)
            self.relu1, self.relu2, self.relu3 = nn.ReLU(), nn.ReLU(), nn.ReLU()
            self.add = torch.nn.quantized.FloatFunctional()
            self.downsample = None
            if stride != 1 or inputs != 4 * planes:
                self.downsample = nn.Sequential(nn.Conv2d(inputs, 4 * planes, 1, stride, bias=False),
                                                nn.BatchNorm2d(4 * planes))

        def forward(self, x):
            side = x if self.downsample is None else self.downsample(x)
            y = self.relu1(self.bn1(self.conv1(x)))
            y = self.relu2(self.bn2(self.conv2(y)))
            return self.relu3(self.add.add(self.bn3(self.conv3(y)), side))

    class ResNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.bn1, self.relu = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()
            self.pool = nn.MaxPool2d(3, 2, 1)
            blocks, inputs = [], 64
            for planes, count, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
                for i in range(count):
                    blocks.append(Block(inputs, planes, stride if i == 0 else 1))
                    inputs = 4 * planes
            self.blocks = nn.Sequential(*blocks)
            self.mean = nn.AdaptiveAvgPool2d(1)
            self.fc = nn.Linear(2048, classes)

        def forward(self, x):
            x = self.pool(self.relu(self.bn1(self.conv1(x))))
            return self.fc(torch.flatten(self.mean(self.blocks(x)), 1))

    return ResNet()
