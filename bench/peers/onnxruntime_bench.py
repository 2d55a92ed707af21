#!/usr/bin/env python3
"""onnxruntime on the same call as `nibble bench infer`: ResNet-50 v1.5 on synthetic input, one JSON line a run.

    bench/peers/onnxruntime_bench.py infer --precision int8 --batch-size 32

The model is the one of resnet_onnx.py. Exit code 77 when onnxruntime, onnx or numpy is not installed.
"""

import common
import resnet_onnx

INSTALL = "install onnxruntime, onnx and numpy to measure it"


def main():
    parser = common.arguments(__doc__.split("\n")[0], ("infer",), batch=32)
    parser.add_argument("--precision", choices=("f32", "int8"), default="int8")
    args = parser.parse_args()
    runtime = common.package("onnxruntime", INSTALL)
    onnx = common.package("onnx", INSTALL)
    common.package("onnx.numpy_helper", INSTALL)
    numpy = common.package("numpy", INSTALL)
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    if args.threads > 0:
        options.intra_op_num_threads = args.threads
    session = runtime.InferenceSession(resnet_onnx.model_bytes(onnx, numpy, args), options, providers=["CPUExecutionProvider"])
    images = abs(numpy.random.default_rng(1).standard_normal((args.batch_size, 3, args.image_size, args.image_size),
                                                             numpy.float32))
    times = common.measure(lambda: session.run(None, {"images": images}), args.repeats)
    common.report(times, phase="infer", precision=args.precision, threads=args.threads,
                  peer=f"onnxruntime {runtime.__version__}", args=args)


main()
