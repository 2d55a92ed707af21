"""ResNet-50 v1.5 as an ONNX model: batch norms folded into the convolutions, random weights.

int8: u8 activations and s8 weights per output channel in QDQ form, which runtimes fuse into integer convolutions.
"""


class Graph:
    """Nodes and initializers; with int8 every convolution's operands pass through QuantizeLinear/DequantizeLinear."""

    def __init__(self, onnx, numpy, int8):
        self.helper, self.np, self.int8 = onnx.helper, numpy, int8
        self.from_array = onnx.numpy_helper.from_array
        self.nodes, self.constants, self.made = [], [], 0
        self.random = numpy.random.default_rng(0)

    def name(self, what):
        self.made += 1
        return f"{what}_{self.made}"

    def constant(self, value):
        name = self.name("c")
        self.constants.append(self.from_array(value, name))
        return name

    def node(self, kind, *inputs, **attributes):
        out = self.name(kind)
        self.nodes.append(self.helper.make_node(kind, list(inputs), [out], **attributes))
        return out

    def quantized(self, x):
        """x on 256 unsigned steps."""
        if not self.int8:
            return x
        scale, zero = self.constant(self.np.float32(0.05)), self.constant(self.np.uint8(0))
        return self.node("DequantizeLinear", self.node("QuantizeLinear", x, scale, zero), scale, zero)

    def weights(self, shape):
        fan_in = self.np.prod(shape[1:])
        w = (self.random.standard_normal(shape) * (2 / fan_in) ** 0.5).astype(self.np.float32)
        if not self.int8:
            return self.constant(w)
        scale = (abs(w).max(axis=tuple(range(1, w.ndim))) / 127).astype(self.np.float32)
        codes = self.np.round(w / scale.reshape([-1] + [1] * (w.ndim - 1))).astype(self.np.int8)
        return self.node("DequantizeLinear", self.constant(codes), self.constant(scale),
                         self.constant(self.np.zeros(shape[0], self.np.int8)), axis=0)

    def conv(self, x, inputs, outputs, kernel, stride=1):
        return self.node("Conv", x, self.weights((outputs, inputs, kernel, kernel)),
                         self.constant(self.np.zeros(outputs, self.np.float32)), kernel_shape=[kernel, kernel],
                         strides=[stride, stride], pads=[kernel // 2] * 4)

    def relu(self, x):
        return self.quantized(self.node("Relu", x))


def resnet50(g, classes):
    x = g.relu(g.conv(g.quantized("images"), 3, 64, 7, 2))
    x = g.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    inputs = 64
    for planes, count, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for i in range(count):
            step = stride if i == 0 else 1
            side = x if i > 0 else g.quantized(g.conv(x, inputs, 4 * planes, 1, step))
            y = g.relu(g.conv(x, inputs, planes, 1))
            y = g.relu(g.conv(y, planes, planes, 3, step))
            y = g.quantized(g.conv(y, planes, 4 * planes, 1))
            x = g.relu(g.node("Add", y, side))
            inputs = 4 * planes
    x = g.node("Flatten", g.quantized(g.node("GlobalAveragePool", x)))
    return g.node("Gemm", x, g.weights((classes, 2048)), g.constant(g.np.zeros(classes, g.np.float32)), transB=1)


def model_bytes(onnx, numpy, args):
    g = Graph(onnx, numpy, args.precision == "int8")
    logits = resnet50(g, args.classes)
    value, kind = g.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    side = args.image_size
    graph = g.helper.make_graph(g.nodes, "resnet50", [value("images", kind, [args.batch_size, 3, side, side])],
                                [value(logits, kind, [args.batch_size, args.classes])], g.constants)
    model = g.helper.make_model(graph, opset_imports=[g.helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()
