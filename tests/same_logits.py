#!/usr/bin/env python3
"""Evaluates models in every way that must not matter and compares logits_sha256.

Each MODEL (a run folder or a checkpoint) is exported; the checkpoint and the exported file are evaluated on every
kernel level of this machine, with every number of threads and every batch size, and the checkpoint once a level by the
modules of training instead of the served executor. Without MODEL, one small ResNet-50 per
precision and granularity is trained on the data first. One line a model; exit 1 when any two hashes differ.

    tests/same_logits.py --program build/release/nibble --data DIR                      # train 8 models, 64 images
    tests/same_logits.py --program build/release/nibble --data DIR --limit 0 --threads 1 --batches 32 RUN/best
"""
import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time

FORMS = {
    'fold': ['--per-channel-by', 'fold'],
    'shift': ['--per-channel-by', 'shift'],
    'shift+fold': ['--per-channel-by', 'shift+fold'],
    'per_tensor': ['--granularity', 'per_tensor'],
}


def words(text):
    return text.split(',')


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--program', default='build/release/nibble')
    p.add_argument('--data', required=True, help='image folder')
    p.add_argument('--limit', type=int, default=64, help='images in path order, 0: the whole val set')
    p.add_argument('--levels', type=words, help='kernel levels (default: all that this machine runs)')
    p.add_argument('--threads', type=words, default=['1', '2', '3'])
    p.add_argument('--batches', type=words, default=['1', '7', '32'])
    p.add_argument('--precisions', type=words, default=['w4a4-fl8', 'w8a8'], help='of the models to train')
    p.add_argument('--forms', type=words, default=list(FORMS), help='of the models to train')
    p.add_argument('--work', help='folder for models and exported files (default: a temporary one)')
    p.add_argument('models', nargs='*', metavar='MODEL')
    return p.parse_args()


def run(args, words_, level=None):
    """Standard output of `nibble WORDS`; ends the script with the program's own sentence when it fails."""
    env = dict(os.environ, **({'NIBBLE_ISA': level} if level else {}))
    done = subprocess.run([args.program, *words_], env=env, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"nibble {' '.join(words_)}: exit {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def train(args, folder):
    """Small networks, quantized from step 8 of 24 on: enough for statistics that differ between channels."""
    models = []
    for precision, form in itertools.product(args.precisions, args.forms):
        out = os.path.join(folder, f'{precision}-{form}')
        models.append(out)
        if os.path.exists(os.path.join(out, 'latest')):
            continue
        run(args, ['train', '--data', args.data, '--out', out, '--precision', precision, *FORMS[form], '--arch',
                   'resnet50', '--width', '0.25', '--image-size', '64', '--batch-size', '32', '--shard', '16',
                   '--steps', '24', '--warmup-epochs', '0', '--calibrate-at', '8', '--quiet'])
    return models


def evaluate(args, model, level, threads, batch, *options):
    out = run(args, ['eval', model, '--data', args.data, '--limit', str(args.limit), '--threads', threads,
                     '--batch-size', batch, '--json', *options], level)
    return json.loads(out)


def compare(args, model, folder, levels):
    """True when every evaluation of the checkpoint and of its exported file gives one hash."""
    served = os.path.join(folder, 'exported.safetensors')
    run(args, ['export', model, '--out', served])
    began = time.time()
    hashes = {}
    images = 0
    for file, level, threads, batch in itertools.product([model, served], levels, args.threads, args.batches):
        result = evaluate(args, file, level, threads, batch)
        images = result['images']
        kind = 'exported' if file == served else 'checkpoint'
        hashes.setdefault(result['logits_sha256'], []).append(f'{kind}/{level}/{threads}/{batch}')
    for level in levels:
        digest = evaluate(args, model, level, args.threads[-1], args.batches[-1], '--by', 'modules')['logits_sha256']
        hashes.setdefault(digest, []).append(f'modules/{level}')
    runs = sum(len(v) for v in hashes.values())
    name = os.path.relpath(model, folder) if model.startswith(folder) else model
    print(f"{name:24} {next(iter(hashes))[:16]}  {len(hashes)} value(s) in {runs} evaluations of {images} images, "
          f"{time.time() - began:.0f} s", flush=True)
    if len(hashes) > 1:
        for digest, where in hashes.items():
            print(f'    {digest[:16]} {" ".join(where)}')
    return len(hashes) == 1


def main():
    args = arguments()
    levels = args.levels or json.loads(run(args, ['doctor', '--json']))['isa_runnable']
    with tempfile.TemporaryDirectory(prefix='nibble-same-logits-') as temporary:
        folder = args.work or temporary
        os.makedirs(folder, exist_ok=True)
        print(f"levels {','.join(levels)}  threads {','.join(args.threads)}  batch sizes {','.join(args.batches)}")
        equal = [compare(args, model, folder, levels) for model in args.models or train(args, folder)]
    sys.exit(0 if all(equal) else 1)


main()
