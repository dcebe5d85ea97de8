"""Step 5: write the trained network as the package ships it: one weights file, two ONNX graphs that
read it, and the facts.

Matrices become int8 with a scale a row, the stem's kernels float16. The graphs hold no weights of
their own: their initializers point into ``mini.safetensors``. ONNX Runtime widens the kernels when
it opens a graph and the matrices each time it runs one, which opens in half the time and costs a
batch of texts a few milliseconds.
"""

import hashlib
import io
import json
import shutil
import struct
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper
from safetensors.numpy import save_file
from torch import Tensor, nn

from training.spanish import TOKENIZER
from training.texts import class_names
from training.train import mini_config
from vitsearch.encoders.mini.network import MiniNetwork, load_network

WEIGHTS = "mini.safetensors"
DTYPES = {"F32": TensorProto.FLOAT, "F16": TensorProto.FLOAT16, "I8": TensorProto.INT8}
# stays int8 in memory: the rows of a sentence are widened when they are looked up
GATHERED = "text.words.weight"


def pack(name: str, values: Tensor) -> dict[str, NDArray[Any]]:
    """Return how a weight is stored: float32 vectors, float16 kernels and positions, int8 matrices
    with a float32 scale a row.
    """
    array = values.detach().float().numpy()
    if array.ndim < 2:
        return {name: array.astype(np.float32)}
    if (name.startswith("stem.") and array.ndim == 4) or name in (
        "vit.class_token",
        "vit.position_embedding",
    ):
        return {name: array.astype(np.float16)}
    scale = np.abs(array.reshape(len(array), -1)).max(axis=1) / 127 + 1e-12
    rows = np.rint(array / scale.reshape(-1, *[1] * (array.ndim - 1)))
    return {name: rows.astype(np.int8), f"{name}.scale": scale.astype(np.float32)}


def write_weights(network: MiniNetwork, path: Path) -> str:
    """Write the safetensors file and return its SHA-256."""
    stored: dict[str, NDArray[Any]] = {}
    for name, values in network.state_dict().items():
        stored |= pack(name, values)
    save_file(stored, path)
    path.chmod(0o644)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_layout(path: Path) -> dict[str, dict[str, Any]]:
    """Return each tensor's dtype, shape, offset in the file and length."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return {
        name: {
            "dtype": DTYPES[tensor["dtype"]],
            "shape": tensor["shape"],
            "offset": 8 + length + tensor["data_offsets"][0],
            "length": tensor["data_offsets"][1] - tensor["data_offsets"][0],
        }
        for name, tensor in header.items()
    }


class Graph(nn.Module):
    """One method of the network as a module, which is what the exporter wants."""

    def __init__(
        self, network: MiniNetwork, method: Callable[..., Tensor | tuple[Tensor, ...]]
    ) -> None:
        super().__init__()
        self.network = network
        self.method = method

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return what the method returns."""
        return self.method(*inputs)


def export_graph(
    network: MiniNetwork,
    method: Callable[..., Tensor | tuple[Tensor, ...]],
    inputs: dict[str, Tensor],
    axes: dict[int, str],
    outputs: tuple[str, ...] = ("vectors",),
) -> ModelProto:
    """Trace a method to ONNX with its weights under the names of the state dict."""
    buffer = io.BytesIO()
    dynamic = {name: axes for name in inputs} | {name: {0: "n"} for name in outputs}
    torch.onnx.export(
        Graph(network, method).eval(),
        tuple(inputs.values()),
        buffer,
        dynamo=False,
        opset_version=17,
        do_constant_folding=False,
        input_names=list(inputs),
        output_names=list(outputs),
        dynamic_axes=dynamic,
    )
    model = onnx.load_from_string(buffer.getvalue())
    for node in model.graph.node:
        node.input[:] = [name.removeprefix("network.") for name in node.input]
        node.output[:] = [name.removeprefix("network.") for name in node.output]
    for initializer in model.graph.initializer:
        initializer.name = initializer.name.removeprefix("network.")
    return model


def external(name: str, tensor: dict[str, Any]) -> TensorProto:
    """Return an initializer whose bytes lie in the weights file."""
    initializer = TensorProto(
        name=name,
        data_type=tensor["dtype"],
        dims=tensor["shape"],
        data_location=TensorProto.EXTERNAL,
    )
    for key, value in (
        ("location", WEIGHTS),
        ("offset", tensor["offset"]),
        ("length", tensor["length"]),
    ):
        initializer.external_data.add(key=key, value=str(value))
    return initializer


def widen(name: str, tensor: dict[str, Any], scaled: bool) -> list[NodeProto]:
    """Return the nodes that turn a stored weight into float32 under its own name."""
    if tensor["dtype"] == TensorProto.FLOAT:
        return []
    if not scaled:
        return [helper.make_node("Cast", [f"{name}.stored"], [name], to=TensorProto.FLOAT)]
    return [
        helper.make_node("DequantizeLinear", [f"{name}.stored", f"{name}.scale"], [name], axis=0)
    ]


def widen_gathered(graph: GraphProto) -> None:
    """Replace the word lookup by one on the int8 rows, widened afterwards."""
    for i, node in enumerate(graph.node):
        if node.op_type == "Gather" and node.input[0] == GATHERED:
            ids, out = node.input[1], node.output[0]
            nodes = [
                helper.make_node("Gather", [f"{GATHERED}.stored", ids], ["words.int8"]),
                helper.make_node("Cast", ["words.int8"], ["words.wide"], to=TensorProto.FLOAT),
                helper.make_node("Gather", [f"{GATHERED}.scale", ids], ["words.scale"]),
                helper.make_node("Unsqueeze", ["words.scale", "words.axis"], ["words.column"]),
                helper.make_node("Mul", ["words.wide", "words.column"], [out]),
            ]
            axis = helper.make_node(
                "Constant",
                [],
                ["words.axis"],
                value=helper.make_tensor("words.axis", TensorProto.INT64, [1], [-1]),
            )
            graph.node.remove(node)
            for k, new in enumerate([axis, *nodes]):
                graph.node.insert(i + k, new)
            return


def share_weights(model: ModelProto, layout: dict[str, dict[str, Any]]) -> ModelProto:
    """Point the initializers of a graph into the weights file."""
    graph = model.graph
    small, outside, nodes = [], [], []
    for initializer in graph.initializer:
        name = initializer.name
        if name not in layout:
            small.append(initializer)
            continue
        tensor, scaled = layout[name], f"{name}.scale" in layout
        stored = name if tensor["dtype"] == TensorProto.FLOAT else f"{name}.stored"
        outside.append(external(stored, tensor))
        if scaled:
            outside.append(external(f"{name}.scale", layout[f"{name}.scale"]))
        if name != GATHERED:
            nodes += widen(name, tensor, scaled)
    del graph.initializer[:]
    graph.initializer.extend(small + outside)
    widen_gathered(graph)
    body = list(graph.node)
    del graph.node[:]
    graph.node.extend(nodes + body)
    return model


def export(network: MiniNetwork, work: Path, target: Path) -> None:
    """Write ``mini.safetensors``, ``image.onnx``, ``text.onnx``, ``tokenizer.json``,
    ``classes.txt`` and ``config.json``.
    """
    config = replace(network.config, dropout=0.0)
    digest = write_weights(network, target / WEIGHTS)
    layout = read_layout(target / WEIGHTS)
    stored = load_network(target / WEIGHTS, config)
    pixels = torch.zeros(2, 260, 260, 3, dtype=torch.uint8)
    ids = torch.tensor([[101, 2023, 102], [101, 102, 0]])
    image = export_graph(
        stored, stored.encode_and_classify, {"pixels": pixels}, {0: "n"}, ("vectors", "logits")
    )
    text = export_graph(
        stored, stored.encode_texts, {"ids": ids, "mask": (ids > 0).long()}, {0: "n", 1: "t"}
    )
    (target / "image.onnx").write_bytes(share_weights(image, layout).SerializeToString())
    (target / "text.onnx").write_bytes(share_weights(text, layout).SerializeToString())
    shutil.copyfile(work / TOKENIZER, target / TOKENIZER)
    (target / "classes.txt").write_text("".join(f"{name}\n" for name in class_names(work)[1]))
    scale = round(float(network.log_scale.exp().clamp(max=100)), 4)
    facts = {"weights_sha256": digest, "logit_scale": scale, "side": 260, "dim": config.dim}
    (target / "config.json").write_text(
        json.dumps(facts | {"network": asdict(config)}, indent=2) + "\n"
    )


def load_trained(path: Path) -> MiniNetwork:
    """Return the network that ``train`` left behind."""
    network = MiniNetwork(mini_config(path.parent)).eval()
    network.load_state_dict(torch.load(path, weights_only=True))
    return network
