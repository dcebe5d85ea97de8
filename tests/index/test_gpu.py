"""Searching on a GPU: the choice and the limits, exact search by PyTorch, and, where there is a
GPU, that it agrees with the CPU.
"""

import subprocess
import sys

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.cli import vitsearch
from helpers.indexes import DIM, brute_force, build, clustered
from helpers.paths import ROOT
from vitsearch import Collection, index_folder
from vitsearch.arrays import unit_rows
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.errors import RecipeError
from vitsearch.index.backends import ExactIndex, OnGpu, check_recipe, gpu_count, on_device
from vitsearch.index.faiss_files import read_faiss_index
from vitsearch.index.faiss_index import FaissIndex, build_faiss_index, make_index
from vitsearch.index.gpu import (
    MAX_RESULTS,
    ExactByGpu,
    GpuIndex,
    check_copy,
    gpu_numbers,
    to_gpu,
    unsupported_reason,
    with_ids,
)
from vitsearch.index.recipe import Recipe, load_recipe
from vitsearch.index.snapshot import open_snapshot

torch = pytest.importorskip("torch", reason="needs the extra vitsearch[clip]")

from vitsearch.index.torch_exact import TorchExact  # noqa: E402

WITH_GPU = pytest.mark.skipif(not gpu_count(), reason="FAISS sees no GPU")
WITHOUT_GPU = pytest.mark.skipif(
    gpu_count() > 0 or torch.cuda.is_available(), reason="there is a GPU"
)
WITH_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU")
WITH_CAGRA = pytest.mark.skipif(
    not (gpu_count() and hasattr(faiss, "GpuIndexCagra")), reason="no FAISS with cuVS and a GPU"
)
IN_VAIN = (
    "no GPU that can search an index of recipe {!r} (see `vitsearch doctor`); searched on "
    "the CPU instead"
)


def queries_like(vectors, count=20, seed=3):
    noise = np.random.default_rng(seed).standard_normal((count, vectors.shape[1])) / 20
    return unit_rows(np.asarray(vectors[:count], dtype=np.float32) + noise)


def answers(found):
    """What was found, to compare: ids and scores of each query."""
    return [(one.ids.tolist(), one.scores.tolist()) for one in found]


# -- exact search by PyTorch -----------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(0, 300),
    dim=st.integers(1, 24),
    k=st.integers(0, 320),
    block=st.sampled_from([1, 100, 1000, 10**6]),
    distinct=st.integers(1, 300),
    seed=st.integers(0, 2**32 - 1),
)
def test_pytorch_finds_what_the_exact_index_finds(count, dim, k, block, distinct, seed):
    rng = np.random.default_rng(seed)
    different = unit_rows(rng.standard_normal((distinct, dim))).astype(np.float16)
    different[rng.random(distinct) < 0.05] = 0
    vectors = different[rng.integers(0, distinct, count)]  # ties
    ids = np.cumsum(rng.integers(1, 5, count))
    queries = unit_rows(rng.standard_normal((3, dim)))
    tried = TorchExact(vectors, ids, device="cpu", block=block)
    expected = ExactIndex(vectors, ids).search_batch(queries, k)
    assert answers(tried.search_batch(queries, k)) == answers(expected)
    assert answers([tried.search(queries[1], k)]) == answers(expected[1:2])


def test_pytorch_searches_mapped_rows_many_queries_and_says_what_it_takes(tmp_path):
    vectors, ids = clustered(3000)
    snapshot = open_snapshot(build(tmp_path / "index", vectors, ids))
    index = TorchExact(snapshot.vectors, snapshot.ids, device="cpu", block=70 * DIM)
    queries = unit_rows(np.random.default_rng(1).standard_normal((300, DIM)))
    assert (len(index), index.dim) == (3000, DIM)
    assert answers(index.search_batch(queries, 10)) == answers(
        ExactIndex(vectors, ids).search_batch(queries, 10)
    )
    assert index.search_batch(np.empty((0, DIM), np.float32), 5) == []
    with pytest.raises(ValueError, match=r"expected \(m, 64\) queries, got shape \(2, 63\)"):
        index.search_batch(np.zeros((2, 63), np.float32), 5)


def test_rough_matrix_products_are_allowed_for():
    vectors, ids = clustered(2000)
    queries = queries_like(vectors)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        found = TorchExact(vectors, ids, device="cpu").search_batch(queries, 10)
    finally:
        torch.set_float32_matmul_precision(before)
    assert answers(found) == answers(ExactIndex(vectors, ids).search_batch(queries, 10))


@pytest.mark.parametrize("device", ["cuda:99", "nowhere"])
def test_pytorch_without_that_device_raises_one_line(device):
    with pytest.raises(
        RecipeError, match=rf"^the vectors could not be copied to {device} \("
    ) as caught:
        TorchExact(*clustered(10), device=device)
    assert "\n" not in str(caught.value)


@pytest.mark.gpu
@WITH_CUDA
def test_pytorch_on_a_gpu_finds_what_the_exact_index_finds():
    vectors, ids = clustered(50_000)
    vectors[1000:1100] = vectors[7]
    queries = queries_like(vectors)
    found = TorchExact(vectors, ids, device="cuda", block=7000 * DIM).search_batch(queries, 50)
    assert answers(found) == answers(ExactIndex(vectors, ids).search_batch(queries, 50))


# -- what goes on a GPU ----------------------------------------------------------------------------


@WITHOUT_GPU
@pytest.mark.parametrize("factory", ["IDMap,Flat", "IVF4,Flat", "HNSW32"])
def test_without_a_gpu_no_copy_comes_out(factory):
    index = build_faiss_index(Recipe("tried", factory=factory), *clustered(400))
    with pytest.raises(RecipeError, match="^FAISS sees no GPU here") as caught:
        to_gpu(index)
    assert "\n" not in str(caught.value)


def test_an_empty_copy_is_refused():
    full, empty = faiss.IndexFlatIP(4), faiss.IndexFlatIP(4)
    full.add(np.ones((5, 4), np.float32))
    check_copy(full, full)
    with pytest.raises(RecipeError, match="the copy on the GPU has 0 of 5 rows"):
        check_copy(empty, full)
    with pytest.raises(RecipeError, match="the copy on the GPU has 0 of 0 rows"):
        check_copy(empty, empty)


@pytest.mark.parametrize(
    ("factory", "dim", "nprobe", "problem"),
    [
        ("IDMap,Flat", 64, None, None),
        ("IVF4,Flat", 64, 4, None),
        ("IVF4,SQ8", 64, 4, None),
        ("IVF4,PQ8", 64, 4, None),
        ("IVF4,PQ64", 512, 4, None),
        ("IVF4,PQ80", 640, 4, "FAISS has no codes of 80 times 8 bits on a GPU"),
        ("IVF4,PQ8x4", 64, 4, "FAISS has no codes of 8 times 4 bits on a GPU"),
        (
            "IVF4,Flat",
            64,
            4096,
            "a GPU reads at most 2048 lists, and this index is searched with nprobe 4096",
        ),
        ("IVF4,RaBitQ", 64, 4, "FAISS has no IndexIVFRaBitQ on a GPU"),
        ("HNSW32", 64, None, "FAISS has no IndexHNSWFlat on a GPU"),
        ("SQ8", 64, None, "FAISS has no IndexScalarQuantizer on a GPU"),
    ],
)
def test_the_kinds_that_a_gpu_takes(factory, dim, nprobe, problem):
    index = FaissIndex(make_index(factory, dim), search={"nprobe": nprobe} if nprobe else {})
    kept = index.faiss_index
    assert (
        unsupported_reason(
            faiss.downcast_index(kept.index) if isinstance(kept, faiss.IndexIDMap) else kept
        )
        == problem
    )


def test_which_gpus_a_device_means():
    assert [gpu_numbers(device, 3) for device in ("cuda", "cuda:0", "cuda:2")] == [
        [0, 1, 2],
        [0],
        [2],
    ]
    for device, count, problem in (
        ("cuda:3", 3, "FAISS has no device 'cuda:3': it sees 3 GPUs, from cuda:0"),
        ("cuda:x", 1, "FAISS has no device 'cuda:x': it sees 1 GPU, from cuda:0"),
    ):
        with pytest.raises(RecipeError) as caught:
            gpu_numbers(device, count)
        assert str(caught.value) == problem
    with pytest.raises(RecipeError, match="FAISS sees no GPU here"):
        gpu_numbers("cuda", 0)


# -- a copy beside its index: here the copy is another index on the CPU ----------------------------


def copied(vectors, ids, factory="Flat"):
    """An index, and a copy of its rows that counts them from 0."""
    index = build_faiss_index(Recipe("tried", factory="IDMap,Flat"), vectors, ids)
    copy = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    copy.train(unit_rows(vectors))
    copy.add(unit_rows(vectors))
    return index, copy


def test_a_copy_gives_the_ids_of_the_index():
    vectors, ids = clustered(500)
    index, copy = copied(vectors, ids)
    queries = queries_like(vectors)
    tried = GpuIndex(index, copy, row_ids=ids)
    assert (len(tried), tried.dim) == (500, DIM)
    assert [one.ids.tolist() for one in tried.search_batch(queries, 7)] == [
        one.ids.tolist() for one in index.search_batch(queries, 7)
    ]
    assert (
        tried.search(queries[0], 10**6).ids.tolist() == index.search(queries[0], 500).ids.tolist()
    )
    assert tried.search_batch(queries[:0], 5) == []
    assert [len(one.ids) for one in tried.search_batch(queries[:2], 0)] == [0, 0]
    with pytest.raises(ValueError, match=r"expected \(m, 64\) queries"):
        tried.search_batch(queries[:, 1:], 3)


def test_more_results_than_a_gpu_finds_come_from_the_index():
    vectors, ids = clustered(MAX_RESULTS + 100)
    index, _ = copied(vectors, ids)
    _, other = copied(-vectors, ids)  # answers backwards, so it shows who was asked
    query = queries_like(vectors)[0]
    tried = GpuIndex(index, other, row_ids=ids)
    assert (
        tried.search(query, MAX_RESULTS).ids.tolist()
        != index.search(query, MAX_RESULTS).ids.tolist()
    )
    assert (
        tried.search(query, MAX_RESULTS + 1).ids.tolist()
        == index.search(query, MAX_RESULTS + 1).ids.tolist()
    )


@pytest.mark.parametrize("k", [0, 1, 10, 500, 1500, 5000])
@pytest.mark.parametrize("alike", [0, 300, 2500])
def test_a_copy_in_half_precision_is_exact(k, alike):
    vectors, ids = clustered(3000)
    vectors[:alike] = vectors[0]
    index, copy = copied(vectors, ids, "SQfp16")
    tried = ExactByGpu(GpuIndex(index, copy, row_ids=ids), index, vectors=vectors, ids=ids)
    queries = queries_like(vectors)
    for query, found in zip(queries, tried.search_batch(queries, k), strict=True):
        scores, best = brute_force(vectors, ids, query, k)
        if (
            k < alike and k
        ):  # FAISS on the CPU, which is asked for so many ties, has an order of its own
            np.testing.assert_allclose(found.scores, scores, atol=1e-6)
        else:
            assert set(found.ids.tolist()) == set(best.tolist())
    assert (
        tried.search(queries[0], k).ids.tolist()
        == tried.search_batch(queries[:1], k)[0].ids.tolist()
    )


def test_a_graph_with_rows_is_given_ids_and_survives_its_file(tmp_path):
    vectors, ids = clustered(2000)
    twin = faiss.IndexHNSWCagra(DIM, 32, faiss.METRIC_INNER_PRODUCT)
    twin.add(unit_rows(vectors))
    index = FaissIndex(with_ids(twin, ids), search={"efSearch": 128})
    del twin
    with open(tmp_path / "index.faiss", "wb") as file:
        index.write(file)
    queries = queries_like(vectors)
    expected = answers(index.search_batch(queries, 10))
    read = read_faiss_index(tmp_path / "index.faiss", search={"efSearch": 128})
    assert (len(read), read.effort(), read.ef_search()) == (2000, ("efSearch", 2**30), 128)
    assert answers(read.search_batch(queries, 10)) == expected
    truth = [brute_force(vectors, ids, query, 10)[1].tolist() for query in queries]
    hits = sum(len(set(found[0]) & set(best)) for found, best in zip(expected, truth, strict=True))
    assert hits >= 0.95 * 10 * len(queries)


# -- where a search runs ---------------------------------------------------------------------------


def test_a_copy_that_cannot_be_made_is_told_once_and_the_index_searches(remarks):
    vectors, ids = clustered(300)
    index = ExactIndex(vectors, ids)
    tried = OnGpu(index, lambda: TorchExact(vectors, ids, device="cuda:99"))
    assert remarks == []  # nothing is copied before it is needed
    query = queries_like(vectors)[0]
    for _ in range(2):
        assert answers([tried.search(query, 9)]) == answers([index.search(query, 9)])
    assert [note.partition(" (")[0] for note in remarks] == [
        "the vectors could not be copied to cuda:99"
    ]
    assert remarks[0].endswith("); searched on the CPU instead")


def test_a_copy_is_made_once():
    vectors, ids = clustered(300)
    made = []
    tried = OnGpu(
        ExactIndex(vectors, ids),
        lambda: made.append(TorchExact(vectors, ids, device="cpu")) or made[-1],
    )
    query = queries_like(vectors)[0]
    assert [answers([tried.search(query, 4)]) for _ in range(3)] == 3 * [
        answers([ExactIndex(vectors, ids).search(query, 4)])
    ]
    assert (len(made), len(tried), tried.dim) == (1, 300, DIM)


@pytest.mark.parametrize("recipe", ["flat", "gpu-flat", "gpu-ivf", "hnsw"])
@pytest.mark.parametrize("device", ["cpu", "auto", "mps"])
def test_the_cpu_searches_unless_a_gpu_is_asked_for(tmp_path, recipe, device, remarks):
    snapshot = open_snapshot(
        build(tmp_path / "index", *clustered(300), load_recipe(recipe)),
        device=device,
    )
    on_gpu = gpu_count() > 0 and device == "auto" and recipe.startswith("gpu-")
    assert (type(snapshot.index).__name__, remarks, snapshot.degraded) == (
        "OnGpu" if on_gpu else "FaissIndex",
        [],
        None,
    )


@WITHOUT_GPU
@pytest.mark.parametrize("recipe", ["flat", "gpu-flat", "gpu-ivf", "ivf-sq8", "hnsw"])
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_gpu_asked_for_in_vain_is_told(tmp_path, recipe, device, remarks):
    vectors, ids = clustered(300)
    folder = build(tmp_path / "index", vectors, ids, load_recipe(recipe))
    snapshot = open_snapshot(folder, device=device)
    query = queries_like(vectors)[0]
    assert answers([snapshot.search(query, 9)]) == answers([open_snapshot(folder).search(query, 9)])
    assert remarks == [IN_VAIN.format(recipe)]


def test_an_empty_index_stays_where_it_is():
    vectors, ids = clustered(0)
    index = ExactIndex(vectors, ids)
    assert (
        on_device(
            index,
            load_recipe("gpu-flat"),
            device="cuda",
            vectors=vectors,
            ids=ids,
        )
        is index
    )


@WITHOUT_GPU
def test_a_search_on_a_gpu_that_is_not_there_finds_the_same(indexed, remarks: list[str]):
    with Collection.open(indexed, encoder=ColourEncoder(), device="cuda") as found:
        hits = [hit.path for hit in found.search("red", 4)]
        assert [hit.path for hit in found.search("red", 4)] == hits
        assert remarks == [IN_VAIN.format("flat")]
    remarks.clear()
    with Collection.open(indexed, encoder=ColourEncoder(), device="cpu") as found:
        assert ([hit.path for hit in found.search("red", 4)], remarks) == (hits, [])
    asked, plain = (
        vitsearch("search", indexed, "red", "--paths", "--device", device)
        for device in ("cuda", "cpu")
    )
    assert (
        (asked.returncode, asked.stdout)
        == (plain.returncode, plain.stdout)
        == (0, "".join(f"{hit}\n" for hit in hits).encode())
    )
    assert (asked.stderr.decode(), plain.stderr) == (f"vitsearch: {IN_VAIN.format('flat')}\n", b"")


@pytest.mark.slow
@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_pytorch_is_not_imported_unless_a_gpu_is_asked_for(indexed, device):
    code = f"""
import sys
from vitsearch import Collection
from vitsearch.encoders.colour import ColourEncoder
with Collection.open({str(indexed)!r}, encoder=ColourEncoder(), device={device!r}) as found:
    assert len(found.search("red", 4)) == 4
print("torch" in sys.modules)
"""
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert result.stdout == "False\n"


# -- building on a GPU -----------------------------------------------------------------------------


@pytest.mark.skipif(
    hasattr(faiss, "GpuIndexCagra") and gpu_count() > 0, reason="the graph can be built here"
)
def test_a_graph_cannot_be_built_without_cuvs_and_the_old_index_stays(tmp_path, indexed):
    problem = (
        "^recipe 'gpu-cagra' is built by FAISS with cuVS on an NVIDIA GPU, and .*: pip "
        "install faiss-gpu-cuvs, or take recipe hnsw$"
    )
    with pytest.raises(RecipeError, match=problem):
        check_recipe(load_recipe("gpu-cagra"), DIM)
    folder = build(tmp_path / "index", *clustered(30))
    with pytest.raises(RecipeError, match=problem):
        build(folder, *clustered(40), load_recipe("gpu-cagra"))
    assert (len(open_snapshot(folder)), [file.name for file in tmp_path.glob("index*")]) == (
        30,
        ["index"],
    )
    with pytest.raises(RecipeError, match=problem):
        index_folder(indexed, encoder=ColourEncoder(), recipe="gpu-cagra")
    result = vitsearch("index", indexed, "--recipe", "gpu-cagra")
    assert result.returncode != 0
    assert b"recipe 'gpu-cagra' is built by FAISS with cuVS" in result.stderr.splitlines()[-1]
    with Collection.open(indexed, encoder=ColourEncoder()) as found:
        assert len(found.search("red", 9)) == 4


# -- on a GPU --------------------------------------------------------------------------------------


@pytest.mark.gpu
@WITH_GPU
@pytest.mark.parametrize("recipe", ["gpu-flat", "gpu-ivf", "flat", "ivf-sq8", "ivf-pq"])
def test_a_gpu_agrees_with_the_cpu(tmp_path, recipe, remarks):
    vectors, ids = clustered(20_000)
    folder = build(tmp_path / "index", vectors, ids, load_recipe(recipe))
    there, here = open_snapshot(folder, device="cuda"), open_snapshot(folder)
    queries = queries_like(vectors, 100)
    hits = [
        len(set(a.ids.tolist()) & set(b.ids.tolist()))
        for a, b in zip(
            there.search_batch(queries, 20), here.search_batch(queries, 20), strict=True
        )
    ]
    assert remarks == []
    assert sum(hits) == 2000 if load_recipe(recipe).is_exact else sum(hits) >= 1900
    assert len(there.search(queries[0], MAX_RESULTS + 1).ids) == len(
        here.search(queries[0], MAX_RESULTS + 1).ids
    )


@pytest.mark.gpu
@WITH_GPU
@pytest.mark.parametrize("recipe", ["hnsw", "rabitq"])
def test_what_a_gpu_does_not_take_is_told_and_searched_on_the_cpu(tmp_path, recipe, remarks):
    vectors, ids = clustered(20_000)
    folder = build(tmp_path / "index", vectors, ids, load_recipe(recipe))
    snapshot = open_snapshot(folder, device="cuda")
    query = queries_like(vectors)[0]
    assert answers([snapshot.search(query, 9)]) == answers([open_snapshot(folder).search(query, 9)])
    assert len(remarks) == 1
    assert remarks[0].startswith("FAISS has no Index")


@pytest.mark.gpu
@WITH_CAGRA
def test_a_graph_built_on_a_gpu_is_searched_on_both(tmp_path, remarks):
    vectors, ids = clustered(20_000)
    folder = build(tmp_path / "index", vectors, ids, load_recipe("gpu-cagra"))
    queries = queries_like(vectors, 50)
    for snapshot in (
        open_snapshot(folder),
        open_snapshot(folder, device="cuda"),
    ):
        hits = [
            len(set(found.ids.tolist()) & set(brute_force(vectors, ids, query, 10)[1].tolist()))
            for query, found in zip(queries, snapshot.search_batch(queries, 40), strict=True)
        ]
        assert sum(hits) >= 475
    assert remarks == []
