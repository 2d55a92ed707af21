#!/usr/bin/env python3
"""Links the images of the study (tiny-imagenet-50.txt) out of Tiny ImageNet as it is published.

    bench/results/tiny_imagenet_50.py tiny-imagenet-200 OUT

OUT becomes an ImageFolder of 22,483 and 2,498 symbolic links; plan.json of the studies has the digest of what it holds, so that
`nibble study run` refuses other images.
"""
import pathlib
import sys


def link(source, target):
    if not source.is_file():
        sys.exit(f"error: {source} is not there; give the folder of Tiny ImageNet as it is unpacked")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(source.resolve())


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    tiny, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    if out.exists():
        sys.exit(f"error: {out} exists; name a new folder")
    for line in pathlib.Path(__file__).with_name("tiny-imagenet-50.txt").read_text().splitlines():
        if line.startswith("#"):
            continue
        name, numbers = line.split(" without ")
        without, val = (part.split() for part in numbers.split(" val "))
        for number in sorted(set(range(500)) - set(map(int, without))):
            image = f"{name}_{number}.JPEG"
            link(tiny / "train" / name / "images" / image, out / "train" / name / image)
        for number in val:
            link(tiny / "val" / "images" / f"val_{number}.JPEG", out / "val" / name / f"val_{number}.JPEG")


main()
