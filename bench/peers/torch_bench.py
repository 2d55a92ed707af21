#!/usr/bin/env python3
"""PyTorch on the same step as `nibble bench`: ResNet-50 v1.5 on synthetic input, one JSON line a run.

    bench/peers/torch_bench.py train --precision bf16 --batch-size 64
    bench/peers/torch_bench.py infer --precision f32

train: forward, backward, SGD with momentum; f32, bf16 (autocast), or fake-quant (8-bit observers and fake quantizers of
torch.ao.quantization on every convolution: simulated quantization as PyTorch ships it). infer, with batch norm folded
into the convolutions as in ours: f32, bf16 (weights and images, no casts), or int8 (static post-training quantization,
oneDNN's kernels).
Exit code 77 when PyTorch is not installed.
"""

import warnings

import common
import resnet_torch


def to_int8(torch, model, images):
    """Calibrated on the images that are measured: speed does not depend on the bounds."""
    from torch.ao.quantization import get_default_qconfig_mapping, quantize_fx

    torch.backends.quantized.engine = "onednn"
    prepared = quantize_fx.prepare_fx(model, get_default_qconfig_mapping("onednn"), (images,))
    with torch.inference_mode():
        prepared(images)
    return quantize_fx.convert_fx(prepared)


def to_folded(model):
    """Batch norm in evaluation mode is part of the convolution before it."""
    from torch.fx.experimental.optimization import fuse

    return fuse(model)


def main():
    parser = common.arguments(__doc__.split("\n")[0], ("train", "infer"), batch=32)
    parser.add_argument("--precision", choices=("f32", "bf16", "fake-quant", "int8"), default="f32")
    args = parser.parse_args()
    if args.mode == "infer" and args.precision == "fake-quant":
        parser.error("fake-quant is measured in training only")
    if args.mode == "train" and args.precision == "int8":
        parser.error("int8 is measured in inference only; its training is fake-quant")
    torch = common.package("torch", "install PyTorch (Debian: python3-torch) to measure it")
    warnings.simplefilter("ignore", UserWarning)  # of observers, about their own defaults
    if args.threads > 0:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = resnet_torch.resnet50(torch, args.classes)
    if args.precision == "fake-quant":
        model.train()
        model.qconfig = torch.ao.quantization.get_default_qat_qconfig("fbgemm")
        model = torch.ao.quantization.prepare_qat(model)
    model = model.to(memory_format=torch.channels_last)
    images = torch.randn(args.batch_size, 3, args.image_size, args.image_size)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.arange(args.batch_size) % args.classes
    if args.mode == "train":
        autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.precision == "bf16")
        model.train()
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-4)
        loss = torch.nn.CrossEntropyLoss(label_smoothing=0.1)

        def step():
            optimizer.zero_grad()
            with autocast:
                value = loss(model(images), labels)
            value.backward()
            optimizer.step()
    else:
        model.eval()
        model = to_int8(torch, model, images) if args.precision == "int8" else to_folded(model)
        if args.precision == "bf16":
            model, images = model.to(torch.bfloat16), images.to(torch.bfloat16)

        def step():
            with torch.inference_mode():
                model(images)

    times = common.measure(step, args.repeats)
    common.report(times, phase=args.mode, precision=args.precision, threads=torch.get_num_threads(),
                  peer=f"torch {torch.__version__}", args=args)


main()
