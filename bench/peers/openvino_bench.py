#!/usr/bin/env python3
"""OpenVINO on the same call as `nibble bench infer`: ResNet-50 v1.5 on synthetic input, one JSON line a run.

    bench/peers/openvino_bench.py infer --precision int8 --batch-size 32

The model is the one of resnet_onnx.py. Exit code 77 when openvino, onnx or numpy is not installed.
"""

import common
import resnet_onnx

INSTALL = "install openvino, onnx and numpy to measure it"


def main():
    parser = common.arguments(__doc__.split("\n")[0], ("infer",), batch=32)
    parser.add_argument("--precision", choices=("f32", "bf16", "int8"), default="int8")
    args = parser.parse_args()
    openvino = common.package("openvino", INSTALL)
    onnx = common.package("onnx", INSTALL)
    common.package("onnx.numpy_helper", INSTALL)
    numpy = common.package("numpy", INSTALL)
    core = openvino.Core()
    options = {"PERFORMANCE_HINT": "LATENCY" if args.batch_size == 1 else "THROUGHPUT"}
    options["INFERENCE_PRECISION_HINT"] = "bf16" if args.precision == "bf16" else "f32"
    if args.threads > 0:
        options["INFERENCE_NUM_THREADS"] = args.threads
    options["NUM_STREAMS"] = "1"  # one call at a time, as in all programs here
    model = core.compile_model(core.read_model(resnet_onnx.model_bytes(onnx, numpy, args)), "CPU", options)
    request = model.create_infer_request()
    images = abs(numpy.random.default_rng(1).standard_normal((args.batch_size, 3, args.image_size, args.image_size),
                                                             numpy.float32))
    times = common.measure(lambda: request.infer({0: images}), args.repeats)
    common.report(times, phase="infer", precision=args.precision, threads=args.threads,
                  peer=f"OpenVINO {openvino.__version__.split('-')[0]}", args=args)


main()
