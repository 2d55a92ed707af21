"""What the peers' scripts share: options, repeated timing, and the one-line JSON of `nibble bench --json`."""

import argparse
import importlib
import json
import os
import statistics
import sys
import time

EXIT_ABSENT = 77  # the package is not installed: nothing was measured, nothing is wrong


def package(name, how):
    """The module, or one clear sentence and exit code 77."""
    try:
        return importlib.import_module(name)
    except ImportError as problem:
        print(f"skipped: the Python package {name} is not there ({problem}); {how}", file=sys.stderr)
        sys.exit(EXIT_ABSENT)


def arguments(description, modes, batch, repeats=5):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("mode", choices=modes)
    parser.add_argument("--batch-size", type=int, default=batch, help=f"images per step or call (default {batch})")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=repeats, help="measured repeats, after one that is not counted")
    parser.add_argument("--as", nargs=2, metavar=("PHASE", "PRECISION"), dest="names",
                        help="report under these names, those of a line of nibble bench --json that it compares with")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)),
                        help="default: the cores this process may use, as nibble does; 0: the package's own choice")
    return parser


def measure(step, repeats):
    """Seconds of each of `repeats` steps, after one that is not counted."""
    step()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        step()
        times.append(time.perf_counter() - began)
    return times


def report(times, *, phase, precision, threads, peer, args):
    """One line with the keys of `nibble bench --json`, so that bench/compare sets both side by side; `peer` says who."""
    median = statistics.median(times)
    phase, precision = args.names or (phase, precision)
    print(json.dumps({
        "phase": phase,
        "images_per_second": args.batch_size / median,
        "ms_per_step": 1000 * median,
        "best_ms_per_step": 1000 * min(times),
        "batch": args.batch_size,
        "image_size": args.image_size,
        "arch": "resnet50",
        "width": 1.0,
        "precision": precision,
        "classes": args.classes,
        "threads": threads,
        "peer": peer,
    }))
