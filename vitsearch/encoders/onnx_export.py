"""Writes the two towers of a PyTorch encoder as ONNX graphs, with all that is needed to run them
without PyTorch.
"""

import hashlib
import io
import logging
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from PIL import Image
from torch import Tensor, nn

from vitsearch.encoders.base import TEXT as SENTENCE
from vitsearch.encoders.base import Vectors, golden_picture
from vitsearch.encoders.checkpoints import one_line, weights_hash
from vitsearch.encoders.onnx import (
    IMAGE,
    OPTIMISED,
    TEXT,
    TOKENIZER,
    OnnxEncoder,
    open_graph,
    this_runtime,
)
from vitsearch.encoders.tokenizer import PortableTokenizer, gives_equal_tokens
from vitsearch.encoders.torch_encoder import TorchEncoder, TorchImageEncoder
from vitsearch.errors import EncoderError
from vitsearch.records import atomic_file

SAME = 1e-4  # the most by which a number of a unit vector may differ in float32
ALIKE = 0.97  # the least cosine to float32 in int8: below, the model does not bear it
# bytes; a file of Protocol Buffers ends at 2 GB, beyond that weights lie beside the graph
_LARGE = 1_900_000_000
_TEXTS = ["a photo of a cat", "two", SENTENCE]
_ODD_TEXTS = [
    *_TEXTS,
    "",
    " \t\n",
    "It's A&amp;B &lt;i&gt;, isn't it?! they'll 've  #tag_1",
    "una foto de la montaña, Straße, İstanbul, ﬁn",
    "日本語の猫 и собака قطة 😀👨‍👩‍👧 x\u0301",
    "\u201cquoted\u201d \x1b[31mred\x00 schÃ¶n ½ Ⅷ \u0345",
    "<start_of_text> a <|endoftext|> b </s> <pad>!<end_of_text>",
    "a long text about 7 dogs on a beach " * 40,
]


class Graph(nn.Module):
    """One tower as a module, which is what the exporter takes."""

    def __init__(self, model: nn.Module, run: Callable[..., Tensor]) -> None:
        super().__init__()
        self.model = model
        self.run = run

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the vectors ``(n, dim)``, of any length."""
        return self.run(*inputs)


def write_export(
    encoder: TorchImageEncoder, folder: Path, dtype: str, float32: Path | None = None
) -> dict[str, Any]:
    """Write the graphs and the tokenizer of a float32 encoder on the CPU, hold them against it, and
    return the facts of the export.

    ``float32`` is an export of the same model, whose graphs are taken instead of new ones. Raises
    EncoderError for a model that cannot be exported, whose graphs give other vectors, or that does
    not bear int8.
    """
    if not isinstance(encoder, TorchEncoder):
        raise EncoderError(f"{encoder.name} reads no text, and is not exported: use runtime torch")
    if encoder.preprocess.max_patches is not None:
        raise EncoderError(
            f"{encoder.name} takes pictures of any shape, which an export does not: use runtime "
            "torch"
        )
    portable = encoder.towers.portable()
    if portable is not None and not gives_equal_tokens(portable, encoder.tokenize, _ODD_TEXTS):
        portable = None
    if portable is not None:
        (folder / TOKENIZER).write_text(portable.json, encoding="utf-8")
    try:
        with _quiet():
            if float32 is not None:
                for file in (file for graph in (IMAGE, TEXT) for file in float32.glob(f"{graph}*")):
                    shutil.copy(file, folder)
            else:
                _write_image(encoder, folder / IMAGE)
                _write_text(encoder, folder / TEXT)
            if dtype == "int8":
                _to_int8(folder / IMAGE)
                _to_int8(folder / TEXT)
    except (ImportError, MemoryError, OSError):
        raise
    except Exception as error:  # torch, onnxscript and ONNX Runtime each raise their own
        raise EncoderError(
            f"{encoder.name} cannot be exported to ONNX ({one_line(error)}): use runtime torch"
        ) from error
    facts = _facts(encoder, portable, dtype)
    return {
        **facts,
        "measured": _measured(encoder, OnnxEncoder(encoder.name, folder, facts, lambda: encoder)),
    }


def _facts(encoder: TorchEncoder, portable: PortableTokenizer | None, dtype: str) -> dict[str, Any]:
    return {
        "name": encoder.name,
        "sources": [str(file) for file in encoder.towers.files],
        "dtype": dtype,
        "fingerprint": encoder.fingerprint_as(dtype),
        "dim": encoder.dim,
        "logit_scale": encoder.logit_scale,
        "logit_bias": encoder.logit_bias,
        "preprocess": encoder.preprocess.facts(),
        "tokens": portable.rules.facts() if portable else None,
    }


def _write_image(encoder: TorchEncoder, file: Path) -> None:
    pixels = torch.zeros(3, 3, *encoder.preprocess.size)
    _write(
        Graph(encoder.model, encoder.towers.encode_images),
        {"pixels": pixels},
        {0: torch.export.Dim.DYNAMIC},
        file,
    )


def _write_text(encoder: TorchEncoder, file: Path) -> None:
    tokens = dict(encoder.tokenize(_TEXTS))
    names = list(tokens)
    widths = {encoder.tokenize([text])["input_ids"].shape[1] for text in _TEXTS}
    axes = {0: torch.export.Dim.DYNAMIC} | (
        {1: torch.export.Dim.DYNAMIC} if len(widths) > 1 else {}
    )
    run = encoder.towers.encode_texts
    _write(
        Graph(encoder.model, lambda *inputs: run(dict(zip(names, inputs, strict=True)))),
        tokens,
        axes,
        file,
    )


def _write(graph: Graph, inputs: dict[str, Tensor], axes: dict[int, Any], file: Path) -> None:
    with _fused_attention(graph.eval()):
        program = torch.onnx.export(
            graph,
            tuple(inputs.values()),
            dynamo=True,
            input_names=list(inputs),
            output_names=["vectors"],
            dynamic_shapes=((axes,) * len(inputs),),
            verbose=False,
        )
    if program is None:
        raise EncoderError("the exporter gave nothing")
    choose_token_early(program.model.graph)
    program.save(str(file), external_data=True)


@contextmanager
def _fused_attention(model: nn.Module) -> Iterator[None]:
    """Have self-attention by PyTorch's own module (open_clip) exported as one operation of ONNX
    Runtime in the block: the single steps cut out and transpose each head, 4 % of ViT-B/32's time.
    """
    layers: list[Any] = [
        each
        for each in model.modules()
        if type(each) is nn.MultiheadAttention
        and each.batch_first
        and each.in_proj_weight is not None
        and each.bias_k is None
        and not each.add_zero_attn
    ]
    for layer in layers:
        layer.forward = partial(_attend, layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _attend(
    layer: nn.MultiheadAttention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    **others: Any,
) -> tuple[Tensor, Tensor | None]:
    """What `torch.nn.MultiheadAttention.forward` does, in an export."""
    masked = attn_mask is not None and (attn_mask.dim() != 2 or attn_mask.dtype != query.dtype)
    if key is not query or value is not query or need_weights or others or masked:
        return nn.MultiheadAttention.forward(
            layer, query, key, value, need_weights=need_weights, attn_mask=attn_mask, **others
        )
    parts = nn.functional.linear(query, layer.in_proj_weight, layer.in_proj_bias).chunk(3, dim=-1)
    bias = None if attn_mask is None else attn_mask[None, None]
    attended = torch.onnx.ops.symbolic(
        "com.microsoft::MultiHeadAttention",
        (*parts, None, None, bias),
        {"num_heads": layer.num_heads},
        dtype=query.dtype,
        shape=query.shape,
    )
    return layer.out_proj(attended), None


# what works on each token alone: elementwise, or along the last axis
_ELEMENTWISE = frozenset(("Add", "Sub", "Mul", "Div", "Gelu", "Sigmoid", "Tanh", "Erf", "Relu"))
_BY_TOKEN = _ELEMENTWISE | {"LayerNormalization", "MatMul", "Transpose"}


def choose_token_early(graph: ir.Graph) -> None:
    """Where the vector is made of one token alone (CLIP: the class token), have the last layers
    that work on each token by itself compute that one alone: a sixteenth of ViT-B's work.

    The choice, a ``Gather`` along an axis, moves up to where the tokens meet, in attention. A graph
    without one stays as it is.
    """
    for choice in reversed(graph):
        if choice.op_type != "Gather" or (number := _one_number(choice.inputs[1])) is None:
            continue
        axis, source = choice.attributes.get_int("axis", 0), choice.inputs[0]
        shape = source.shape if source is not None else None
        if source is None or shape is None or not 0 < axis < len(shape) - 1:
            return
        if shape[axis] != 1:  # SigLIP pools all tokens to one
            _move_up(graph, choice, {source: axis}, number)
        return


def _move_up(graph: ir.Graph, choice: ir.Node, axes: dict[ir.Value, int], number: int) -> None:
    """Move a choice over all nodes that only it needs; ``axes`` are those of the tokens in what is
    computed for one of them alone, at first in what it chooses from.
    """
    moved: list[ir.Node] = []
    for node in reversed(graph):
        (value, *others) = node.outputs
        if others or value not in axes or node.op_type not in _BY_TOKEN:
            continue
        if value.is_graph_output() or not all(
            user is choice or user in moved for user in value.consumers()
        ):
            continue
        inputs = _by_token(node, axes[value])
        if inputs is not None and all(axes.get(each, at) == at for each, at in inputs.items()):
            axes |= inputs
            moved.append(node)
    computed = {node.outputs[0] for node in moved}
    for value in [each for each in axes if moved and each not in computed]:
        index = _constant(graph, f"token_of_{value.name}", [number])
        early = ir.node("Gather", [value, index], {"axis": axes[value]})
        early.outputs[0].name = f"one_of_{value.name}"
        for user, position in tuple(value.uses()):
            if user in moved:
                user.replace_input_with(position, early.outputs[0])
        graph.insert_before(moved[-1], early)
    for value in computed:
        value.shape = None
    if moved:
        choice.replace_input_with(1, _constant(graph, "token_left", 0))
    graph.sort()


def _by_token(node: ir.Node, axis: int) -> dict[ir.Value, int] | None:
    """Return the inputs of a node that have tokens, each with the axis of these, where it works on
    each token by itself; else None.
    """
    (output,), values = node.outputs, [each for each in node.inputs if each is not None]
    if output.shape is None or any(each.shape is None for each in values):
        return None
    rank = len(output.shape)
    if node.op_type == "Transpose":
        return {values[0]: node.attributes.get_ints("perm")[axis]}
    if axis == rank - 1:
        return None
    weights = [each for each in values if each.const_value is not None]
    others = {each: axis for each in values if each.const_value is None}
    if node.op_type == "LayerNormalization":
        return others if node.attributes.get_int("axis", -1) in (-1, rank - 1) else None
    max_rank = 2 if node.op_type == "MatMul" else 1
    fits = all(len(each.shape or ()) <= max_rank for each in weights) and (
        node.op_type != "MatMul" or values[1].const_value is not None
    )
    return (
        others
        if fits and all(each.shape == output.shape or max_rank == 2 for each in others)
        else None
    )


def _one_number(value: ir.Value | None) -> int | None:
    if value is None or value.const_value is None or value.const_value.numpy().ndim:
        return None
    return int(value.const_value.numpy())


def _constant(graph: ir.Graph, name: str, number: int | list[int]) -> ir.Value:
    value = ir.Value(name=name, const_value=ir.tensor(np.array(number, dtype=np.int64), name=name))
    graph.register_initializer(value)
    return value


def _to_int8(file: Path) -> None:
    """Quantise the matrices of a graph, a scale a row, in 7 bits: with 8, processors without VNNI
    overflow and give other vectors.
    """
    wide, outside = file.with_name(f"wide-{file.name}"), file.with_name(f"{file.name}.data")
    size = outside.stat().st_size if outside.exists() else 0
    quantize_dynamic(
        file,
        wide,
        op_types_to_quantize=["MatMul", "Gemm"],
        per_channel=True,
        reduce_range=True,
        weight_type=QuantType.QInt8,
        use_external_data_format=size > _LARGE,
    )
    outside.unlink(missing_ok=True)
    ir.save(ir.load(wide), file, external_data=outside.name)  # from where they are mapped
    wide.unlink()
    wide.with_name(f"{wide.name}.data").unlink(missing_ok=True)


def write_optimised(folder: Path) -> dict[str, Any]:
    """Write the graphs of an export as ONNX Runtime optimises them on this machine, so that they
    open without that, and return for which machine, and their hashes.

    Their weights stay in the files of the export; a graph that holds its weights itself stays as it
    is. They may be deleted. Raises EncoderError, OSError.
    """
    graphs = [graph for graph in (IMAGE, TEXT) if (folder / f"{graph}.data").exists()]
    for graph in graphs:
        try:
            _write_optimised(folder, graph)
        except (EncoderError, OSError):
            raise
        except Exception as error:  # ONNX Runtime and onnx_ir raise classes of their own
            raise EncoderError(
                f"{folder / graph} cannot be optimised: {one_line(error)}"
            ) from error
    files = {graph: weights_hash([folder / f"{OPTIMISED}{graph}"]) for graph in graphs}
    return {"for": this_runtime(), "files": files}


def _write_optimised(folder: Path, graph: str) -> None:
    with TemporaryDirectory(dir=folder.parent, prefix="new-") as aside:
        file = Path(aside) / graph
        open_graph(folder / graph, save_as=file)
        model = ir.load(file)
        _share_weights(model.graph, ir.load(folder / graph).graph, folder)
        with atomic_file(folder / f"{OPTIMISED}{graph}", sync=False) as written:
            ir.save(model, written)


def _share_weights(graph: ir.Graph, original: ir.Graph, folder: Path) -> None:
    """Have a graph refer to the weights of the one that it was made from, and hold all others."""
    stored = {
        _digest(tensor): tensor
        for value in original.initializers.values()
        if isinstance(tensor := value.const_value, ir.ExternalTensor)
    }
    for name, value in graph.initializers.items():
        if not isinstance(tensor := value.const_value, ir.ExternalTensor):
            continue
        same = stored.get(_digest(tensor))
        value.const_value = (
            ir.tensor(np.array(tensor.numpy()), name=name)
            if same is None
            else ir.ExternalTensor(
                same.location,
                same.offset,
                same.length,
                tensor.dtype,
                shape=tensor.shape,
                name=name,
                base_dir=folder,
            )
        )


def _digest(tensor: ir.ExternalTensor) -> bytes:
    return hashlib.blake2b(tensor.tobytes()).digest()


def _measured(encoder: TorchEncoder, exported: OnnxEncoder) -> dict[str, float]:
    """Return the largest difference and the least cosine of photos and texts on both; raises
    EncoderError where they are too far apart.
    """
    rng = np.random.default_rng(7)
    noise = [
        Image.fromarray(rng.integers(0, 256, (60 + 9 * i, 90, 3), dtype=np.uint8)) for i in range(3)
    ]
    pictures = [golden_picture(), *noise]
    pairs: list[tuple[Vectors, Vectors]] = [
        (encoder.encode_images(pictures), exported.encode_images(pictures)),
        (encoder.encode_texts(_ODD_TEXTS), exported.encode_texts(_ODD_TEXTS)),
    ]
    difference = max(float(np.abs(expected - other).max()) for expected, other in pairs)
    cosine = min(float((expected * other).sum(axis=1).min()) for expected, other in pairs)
    if exported.dtype == "float32" and not difference <= SAME:
        raise EncoderError(
            f"{encoder.name} gives other vectors as an ONNX graph (they differ by "
            f"{difference:.1e}): use runtime torch"
        )
    if not cosine >= ALIKE:
        raise EncoderError(
            f"{encoder.name} does not bear int8 (cosine {cosine:.3f} to float32): use dtype float32"
        )
    return {"difference": difference, "cosine": cosine}


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide what the exporter and its libraries say on the way: nothing in it is for the user."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            redirect_stdout(io.StringIO()),
            redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
