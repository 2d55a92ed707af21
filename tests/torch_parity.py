#!/usr/bin/env python3
"""Compares nibble's bf16 network with torchvision's ResNet of the same weights: logits, gradients, steps.

Serving: weights are drawn here (batch norm's statistics, gammas and biases uneven, as training leaves them), saved as
safetensors under torchvision's names and served by `nibble quantize --precision bf16`, or, with --checkpoint, are
those of a run in bf16. Images are PNG of the size that evaluation resizes to, so that both see the same pixels.
nibble rounds weights and what passes between layers to bf16, so its logits are held against torchvision's in fp32,
and the yardstick is what torchvision itself is off by under autocast to bf16: exit 1 unless
nibble's root mean square error is below twice that, or where a likeliest class differs although its lead is more
than four times torchvision's largest error.

Training: three steps from given weights on 16 images of 64 px. They are their own mirror images and are cropped
whole, so that augmentation changes nothing, and each batch has them all. Held against torchvision's in fp32 are the
first step's loss and gradients (its momentum), batch norm's running statistics, and where the weights are after three
steps of SGD with Nesterov's momentum and weight decay; the yardstick is again torchvision under autocast to bf16.

    tests/torch_parity.py --program build/release/nibble                          # resnet50, random weights, 224 px
    tests/torch_parity.py --program build/release/nibble --arch resnet101
    tests/torch_parity.py --program build/release/nibble --checkpoint RUN/best    # logits of a run with --precision bf16

Needs torch and torchvision (Debian: python3-torchvision); nibble itself does not.
"""
import argparse
import copy
import json
import math
import os
import random
import struct
import subprocess
import sys
import tempfile
import zlib

try:
    import torch
    import torchvision
except ImportError as missing:
    sys.exit(f'{missing}: this comparison needs torch and torchvision (Debian: python3-torchvision)')

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--program', default='build/release/nibble')
    p.add_argument('--arch', default='resnet50', choices=['resnet50', 'resnet101', 'resnet152'])
    p.add_argument('--image-size', type=int, default=224)
    p.add_argument('--classes', type=int, default=1000)
    p.add_argument('--images', type=int, default=8)
    p.add_argument('--checkpoint', help='of width 1; it says what network it is')
    p.add_argument('--seed', type=int, default=1)
    p.add_argument('--verbose', action='store_true', help='also the figures of each parameter')
    return p.parse_args()


def nibble(args, *words):
    try:
        done = subprocess.run([args.program, *words], capture_output=True, text=True)
    except OSError as e:
        sys.exit(f'{args.program} cannot be run ({e}); build it, or name it with --program')
    if done.returncode != 0:
        sys.exit(f"nibble {' '.join(words)}: exit {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def uneven(model, x):
    """Random parameters under which activations neither die nor explode; logits of x have a spread of 2."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.2)
            torch.nn.init.normal_(module.bias, 0, 0.3)
            torch.nn.init.normal_(module.running_mean, 0, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.4, 1.6)
    torch.nn.init.normal_(model.fc.weight, 0, 0.05)
    torch.nn.init.zeros_(model.fc.bias)
    with torch.no_grad():
        scale = 2 / centred(model(x)).std()
        model.fc.weight.mul_(scale)
        torch.nn.init.normal_(model.fc.bias, 0, 0.2)


def save_safetensors(path, state):
    header, blobs, at = {}, [], 0
    for name, tensor in state.items():
        if not tensor.is_floating_point():  # num_batches_tracked
            continue
        blob = tensor.detach().to(torch.float32).contiguous().numpy().tobytes()
        header[name] = {'dtype': 'F32', 'shape': list(tensor.shape), 'data_offsets': [at, at + len(blob)]}
        blobs.append(blob)
        at += len(blob)
    text = json.dumps(header).encode()
    with open(path, 'wb') as f:
        f.write(struct.pack('<Q', len(text)) + text + b''.join(blobs))


def load_safetensors(path, momentum=False):
    with open(path, 'rb') as f:
        data = f.read()
    start = 8 + struct.unpack_from('<Q', data)[0]
    header = json.loads(data[8:start])
    metadata = header.pop('__metadata__', {})
    state = {}
    for name, t in header.items():
        if t['dtype'] == 'F32' and (momentum or not name.startswith('momentum.')):
            begin, end = t['data_offsets']
            state[name] = torch.frombuffer(bytearray(data[start + begin:start + end]), dtype=torch.float32).reshape(
                t['shape'])
    return state, metadata


def write_png(path, rows):
    """rows: bytes of RGB, one row an entry."""
    def chunk(kind, content):
        return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content))
    side = len(rows)
    body = zlib.compress(b''.join(b'\0' + row for row in rows), 1)
    with open(path, 'wb') as f:
        f.write(b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', side, side, 8, 2, 0, 0, 0)) +
                chunk(b'IDAT', body) + chunk(b'IEND', b''))


def draw_image(seed, side):
    """Smooth waves of three colours with some noise."""
    draw = random.Random(seed)
    waves = [(draw.uniform(10, 80), draw.uniform(-.15, .15), draw.uniform(-.15, .15), draw.uniform(0, 6)) for _ in range(3)]
    return [bytes(min(255, max(0, round(128 + waves[c][0] * math.sin(waves[c][1] * x + waves[c][2] * y + waves[c][3])
                                        + draw.gauss(0, 12))))
                  for x in range(side) for c in range(3)) for y in range(side)]


def normalised(x):
    return (x / 255 - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)


def centred(logits):
    return logits - logits.mean(dim=1, keepdim=True)


def nibble_logits(args, model, paths, classes):
    """From the probabilities that predict prints: logits but for a constant, taken out of both."""
    rows = []
    for line in nibble(args, 'predict', model, *paths, '--top', str(classes), '--json').splitlines():
        row = [0.0] * classes
        for guess in json.loads(line)['top']:
            if guess['p'] < 1e-30:
                sys.exit(f"probability {guess['p']} says too little of its logit; choose other weights")
            row[guess['index']] = math.log(guess['p'])
        rows.append(row)
    return centred(torch.tensor(rows, dtype=torch.float64))


def apart(value, exact):
    """Relative error (root of squares), and the slope of value over exact: its share, free of what only scatters."""
    return ((value - exact).norm() / exact.norm()).item(), ((value * exact).sum() / (exact * exact).sum()).item()


def median(values):
    return sorted(values)[len(values) // 2]


def torch_steps(model, x, labels, dtype, rates, momentum=0.9, decay=1e-4):
    """Loss and gradients of the first step, running statistics after it, weights after all."""
    model = copy.deepcopy(model).train()
    kernels = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    sgd = torch.optim.SGD([{'params': kernels, 'weight_decay': decay}, {'params': others, 'weight_decay': 0}], lr=1,
                          momentum=momentum, nesterov=True)
    first = None
    for rate in rates:
        for group in sgd.param_groups:
            group['lr'] = rate
        sgd.zero_grad()
        with torch.autocast('cpu', dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            logits = model(x)
        loss = torch.nn.functional.cross_entropy(logits.float(), labels, label_smoothing=0.1)
        loss.backward()
        if first is None:
            gradients = {n: p.grad.detach().clone() + (decay * p.detach() if p.dim() > 1 else 0)
                         for n, p in model.named_parameters()}
            statistics = {n: b.detach().clone() for n, b in model.named_buffers() if b.is_floating_point()}
            first = loss.item(), gradients, statistics
        sgd.step()
    return (*first, {n: p.detach().clone() for n, p in model.named_parameters()})


def check_training(args):
    side, images, classes, rate = 64, 16, 4, 0.001  # small: the third step still sees nearly the first weights
    with tempfile.TemporaryDirectory() as folder:
        pixels, labels = [], []
        for i in range(images):
            name = os.path.join(folder, 'data', 'train', f'class{i % classes}')
            os.makedirs(name, exist_ok=True)
            half = draw_image(500 + i + 40 * (i % classes), side)
            rows = [row[:3 * side // 2] for row in half]
            rows = [row + b''.join(row[3 * k:3 * k + 3] for k in reversed(range(side // 2))) for row in rows]
            write_png(os.path.join(name, f'{i:03}.png'), rows)
            pixels.append(torch.tensor(list(b''.join(rows)), dtype=torch.float32).reshape(side, side, 3))
            labels.append(i % classes)
        os.symlink('train', os.path.join(folder, 'data', 'val'))
        x = normalised(torch.stack(pixels).permute(0, 3, 1, 2))
        labels = torch.tensor(labels)
        model = getattr(torchvision.models, args.arch)(num_classes=classes)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.uniform_(module.weight, 0.5, 1)
                torch.nn.init.normal_(module.bias, 1, 0.2)  # most of ReLU's inputs positive: rounding then moves less
        weights, run = os.path.join(folder, 'weights.safetensors'), os.path.join(folder, 'run')
        save_safetensors(weights, model.state_dict())
        train = ['train', '--data', os.path.join(folder, 'data'), '--weights', weights, '--arch', args.arch,
                 '--precision', 'bf16', '--image-size', str(side), '--batch-size', str(images), '--shard', str(images),
                 '--min-crop', '1', '--schedule', 'step', '--warmup-epochs', '0', '--lr', str(rate), '--save-every', '1',
                 '--keep', '9', '--quiet']
        nibble(args, *train, '--out', run, '--steps', '9')
        loss = json.loads(nibble(args, *train, '--out', run + '-of-one-step', '--steps', '1', '--json'))['train_loss']
        first = load_safetensors(os.path.join(run, 'checkpoints', 'step-000001.safetensors'), momentum=True)[0]
        last = load_safetensors(os.path.join(run, 'checkpoints', 'step-000003.safetensors'))[0]
    rates = [rate] * 3  # the first third of nine steps
    exact = torch_steps(model, x, labels, torch.float32, rates)
    rough = torch_steps(model, x, labels, torch.bfloat16, rates)
    start = {n: p.detach() for n, p in model.named_parameters()}
    wrong = [] if abs(loss - exact[0]) < 0.005 * exact[0] + 2 * abs(rough[0] - exact[0]) else ['loss']
    print(f'{args.arch} {side} px, training on {images} images, nibble and torch in bf16 against torch in fp32:')
    print(f'  loss {loss:.4f}, {rough[0]:.4f} and {exact[0]:.4f}')
    for what, ours, theirs, fp32 in (
            ('gradients', {n: first['momentum.' + n] for n in exact[1]}, rough[1], exact[1]),
            ('running statistics', first, rough[2], exact[2]),
            ('way of three steps', *({n: w[n] - start[n] for n in start} for w in (last, rough[3], exact[3])))):
        both = [(n, apart(ours[n], fp32[n]), apart(theirs[n], fp32[n])) for n in fp32]
        (error, slope), (their_error, their_slope) = (
            [median([row[k][i] for row in both]) for i in (0, 1)] for k in (1, 2))
        largest, their_largest = (max(row[k][0] for row in both) for k in (1, 2))
        # Medians of 100 to 161 parameters move little: seen 0.94 to 1.05 of torch's error, slopes 0.005 apart. A momentum of
        # 0.8, no Nesterov, no label smoothing, decay of norms or a hundred times the decay are beyond one of these.
        if not (error < 1.1 * their_error + 0.001 and abs(slope - their_slope) < 0.02 and
                all(row[1][0] < 1.5 * their_largest + 0.01 for row in both)):  # a NaN is not below anything
            wrong.append(what)
        print(f'  {what}: error {error:.4f} and {their_error:.4f}, slope {slope:.4f} and {their_slope:.4f} '
              f'(medians of {len(both)} parameters), largest error {largest:.3f} and {their_largest:.3f}')
        if args.verbose:
            for row in both:
                print('    ', *row)
    return wrong


def check_logits(args):
    with tempfile.TemporaryDirectory() as folder:
        weights, served = os.path.join(folder, 'weights.safetensors'), os.path.join(folder, 'bf16.safetensors')
        if args.checkpoint:
            try:
                state, metadata = load_safetensors(args.checkpoint)
                network = json.loads(metadata['nibble.network'])
                fits = metadata['nibble.format'] == 'checkpoint' and network['precision'] == 'bf16' and (
                    network['width'] == 1 and not network['same_padding'] and hasattr(torchvision.models, network['arch']))
            except (OSError, KeyError, ValueError, struct.error) as e:
                sys.exit(f'{args.checkpoint} cannot be read as a checkpoint ({e}); give RUN/best of a run')
            if not fits:
                sys.exit(f'{args.checkpoint} is not a bf16 checkpoint of width 1 of a network that torchvision has; give one')
            args.arch, args.image_size, args.classes = network['arch'], network['image_size'], network['classes']
        side = math.floor(args.image_size / 0.875 + 0.5)
        paths, pixels = [], []
        for i in range(args.images):
            rows = draw_image(1000 * args.seed + i, side)
            paths.append(os.path.join(folder, f'{i:03}.png'))
            write_png(paths[-1], rows)
            pixels.append(torch.tensor(list(b''.join(rows)), dtype=torch.float32).reshape(side, side, 3))
        x = torch.stack(pixels).permute(0, 3, 1, 2)
        begin = round((side - args.image_size) / 2)  # halves to even, as evaluation crops
        x = normalised(x[:, :, begin:begin + args.image_size, begin:begin + args.image_size])
        model = getattr(torchvision.models, args.arch)(num_classes=args.classes).eval()
        if args.checkpoint:
            state.update({k: v for k, v in model.state_dict().items() if k.endswith('num_batches_tracked')})
            model.load_state_dict(state)
            weights = args.checkpoint
        else:
            uneven(model, x)
            save_safetensors(weights, model.state_dict())
        nibble(args, 'quantize', weights, '--precision', 'bf16', '--out', served,
               *([] if args.checkpoint else ['--arch', args.arch, '--image-size', str(args.image_size)]))
        with torch.no_grad():
            exact = centred(model(x).double())
            with torch.autocast('cpu', dtype=torch.bfloat16):
                in_bf16 = centred(model(x).double())
        ours = nibble_logits(args, served, paths, args.classes)

    def rms(errors):
        return errors.pow(2).mean().sqrt().item()

    spread, own, theirs = rms(exact), rms(ours - exact), rms(in_bf16 - exact)
    largest = (ours - exact).abs().max().item()
    lead = exact.topk(2, dim=1).values
    differs = exact.argmax(dim=1) != ours.argmax(dim=1)
    wrong = (differs & (lead[:, 0] - lead[:, 1] > 4 * (in_bf16 - exact).abs().max())).sum().item()
    print(f'{args.arch} {args.image_size} px, {args.images} images, {args.classes} classes: logits of spread {spread:.3f}; '
          f'off by (root mean square) nibble bf16 {own:.4f}, torch {torch.__version__} bf16 {theirs:.4f}; '
          f'largest error of nibble {largest:.4f}; likeliest class differs for {int(differs.sum())} images')
    return ['logits'] if not own < 2 * theirs or wrong else []


def main():
    args = arguments()
    torch.manual_seed(args.seed)
    wrong = check_logits(args)
    if not args.checkpoint:
        wrong += check_training(args)
    if wrong:
        sys.exit(f"nibble is further from torchvision than rounding to bf16 explains: {', '.join(wrong)}")


if __name__ == '__main__':
    main()
