#!/usr/bin/env python3
"""Makes the files in fixtures/ that torch_file_test.cpp reads: what torch.save writes, in its kinds.

    tests/nn/import/torch_fixtures.py

Needs torch (the files here are of 2.13); the tests and nibble itself do not. Element i of a tensor that begins at b is
b + i / 4, in whatever order the tensor is stored.
"""
import argparse
import collections
import os
import sys

try:
    import torch
except ImportError as missing:
    sys.exit(f'{missing}: making the fixtures needs torch')

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'fixtures')


def counted(begin, *shape):
    return begin + torch.arange(torch.Size(shape).numel(), dtype=torch.float32).reshape(shape) / 4


def state(prefix=''):
    return collections.OrderedDict([
        (prefix + 'conv1.weight', counted(1, 2, 3, 2, 2)),
        (prefix + 'bn1.weight', counted(-2, 3)),
        (prefix + 'bn1.num_batches_tracked', torch.tensor(7)),
    ])


def types():
    return {
        'f64': counted(1, 3).double(), 'f16': counted(1, 3).half(), 'bf16': counted(1, 3).bfloat16(),
        'i32': torch.tensor([-1, 2], dtype=torch.int32), 'i16': torch.tensor([-3], dtype=torch.int16),
        'i8': torch.tensor([-4, 4], dtype=torch.int8), 'u8': torch.tensor([200], dtype=torch.uint8),
        'bool': torch.tensor([True, False]), 'empty': torch.zeros(0, 3),
    }


def views():
    whole = counted(1, 4, 3)
    return {
        'rows': whole[1:3], 'columns': whole[:, ::2], 'turned': whole.t(), 'scalar': whole[3, 2],
        'channels_last': counted(5, 2, 3, 2, 2).to(memory_format=torch.channels_last),
        'parameter': torch.nn.Parameter(whole[0]), 'tied': whole,
    }


def main():
    os.makedirs(FOLDER, exist_ok=True)
    checkpoint = {
        'epoch': 3, 'args': argparse.Namespace(lr=0.1, names=['a', ('b', None)]),
        'optimizer': {'state': {0: {'momentum_buffer': counted(9, 3)}}, 'param_groups': [{'lr': 0.1, 'params': [0]}]},
        'state_dict': state('module.'), 'scores': {1.5, 2.5},
    }
    several = {'state_dict_ema': state('ema.'), 'state_dict': state(), 'nets': {'teacher': state('t.'), 'lr': 0.1}}
    objects = {'several': several, 'other-key': {'epoch': 3, 'net': state()}, 'no-known-key': {'a': state(), 'b': state()},
               'state': state(), 'types': types(), 'views': views(), 'checkpoint': checkpoint,
               'whole': torch.nn.Linear(1, 1), 'nothing': {'epoch': 3, 'loss': 0.5}}
    for name, thing in objects.items():
        torch.save(thing, os.path.join(FOLDER, name + '.pth'))
        if name != 'whole':  # the old kind has the source of its classes in it
            torch.save(thing, os.path.join(FOLDER, name + '-old.pth'), _use_new_zipfile_serialization=False)


main()
