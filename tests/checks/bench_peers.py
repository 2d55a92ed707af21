"""bench/peers: one clear sentence where a package is absent, and lines that bench/compare sets beside nibble's."""

import json
import pathlib
import subprocess
import sys
import tempfile

PEERS, COMPARE = pathlib.Path(sys.argv[1]), sys.argv[2]
problems = []


def check(fact, what):
    if not fact:
        problems.append(what)


def python(*arguments):
    # -S: no installed packages, on any machine
    return subprocess.run([sys.executable, "-B", "-S", *map(str, arguments)], capture_output=True, text=True)


for script, package in (("torch_bench.py", "torch"), ("onnxruntime_bench.py", "onnxruntime"),
                        ("openvino_bench.py", "openvino")):
    absent = python(PEERS / script, "infer")
    check(absent.returncode == 77, f"{script} exits {absent.returncode} without {package}, not 77")
    check(absent.stdout == "", f"{script} prints a result without {package}")
    check(absent.stderr.startswith(f"skipped: the Python package {package} ") and absent.stderr.count("\n") == 1,
          f"{script} says without {package}: {absent.stderr}")
    check(python(PEERS / script, "walk").returncode == 2, f"{script} accepts an unknown mode")

REPORT = """
import argparse, common
args = argparse.Namespace(names=("infer", "w8a8"), batch_size=8, image_size=64, classes=10)
common.report([0.2, 0.1, 0.4], phase="infer", precision="int8", threads=2, peer="peer 1", args=args)
"""
line = subprocess.run([sys.executable, "-B", "-S", "-c", REPORT], cwd=PEERS, capture_output=True, text=True).stdout
peer = json.loads(line)
check(peer["images_per_second"] == 40 and peer["best_ms_per_step"] == 100, f"times become {line}")
ours = {"phase": "infer", "images_per_second": 80.0, "ms_per_step": 100.0, "batch": 8, "image_size": 64,
        "arch": "resnet50", "width": 1.0, "precision": "w8a8", "classes": 10, "isa": "avx2", "threads": 2}
with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    (folder / "peer").write_text(line, encoding="utf-8")
    (folder / "ours").write_text(json.dumps(ours), encoding="utf-8")
    found = subprocess.run([sys.executable, "-B", COMPARE, folder / "peer", folder / "ours", "--json"],
                           capture_output=True, text=True)
    (folder / "ours").write_text(json.dumps(ours | {"classes": 1000}), encoding="utf-8")
    other = subprocess.run([sys.executable, "-B", COMPARE, folder / "peer", folder / "ours"], capture_output=True)
check(found.returncode == 0, f"bench/compare refuses a peer's line: {found.stderr}")
check(other.returncode != 0, "a peer's line of 10 classes is paired with one of 1000")
check(found.returncode != 0 or abs(json.loads(found.stdout)["geometric_mean"] - 2) < 1e-9, f"wrong ratio: {found.stdout}")

for problem in problems:
    print(problem)
print(f"bench_peers: {len(problems)} problems")
sys.exit(1 if problems else 0)
