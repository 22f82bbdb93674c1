"""What numpy.save makes of dictionaries is read; what a pickle could do beside is not done."""

import collections
import functools
import io
import os
import pickle
import pickletools
import struct

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from affinitynet.data.unpickle import load_dictionary
from affinitynet.errors import UserError

rng = np.random.default_rng(0)
HEADER = {"descr": "|O", "fortran_order": False, "shape": ()}


def object_array(content):
    array = np.empty((), object)
    array[()] = content
    return array


def saved(content, protocol=4) -> bytes:
    """The bytes of `numpy.save(path, content)`, in any protocol."""
    return with_header(pickle.dumps(object_array(content), protocol))


def with_header(pickled: bytes) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, HEADER)
    return stream.getvalue() + pickled


@pytest.fixture
def load(tmp_path):
    def load_bytes(data: bytes):
        path = tmp_path / "a.npy"
        path.write_bytes(data)
        return load_dictionary(path)

    return load_bytes


PSA = {
    0: rng.random((5, 7), np.float32),
    np.int64(3): np.asfortranarray(rng.random((5, 7))),
    14: rng.random((5, 7)).astype(">f4"),
    15: rng.random((10, 7)).astype(np.float16)[::2],
}


def test_psas_dictionary(tmp_path):
    np.save(tmp_path / "a.npy", PSA)
    found = load_dictionary(tmp_path / "a.npy")
    assert list(found) == [0, 3, 14, 15]
    for key, array in PSA.items():
        np.testing.assert_array_equal(found[key], array)
        assert found[key].dtype == array.dtype.newbyteorder("=")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("core", [b"numpy._core", b"numpy.core"])
def test_every_binary_protocol_of_numpy_1_and_2(load, protocol, core):
    data = saved({0: PSA[0], "name": np.float32(0.5)}, protocol)
    if core == b"numpy.core":
        if protocol >= 4:
            data = data.replace(b"\x8c\x16numpy._core", b"\x8c\x15numpy.core")
            data = data.replace(b"\x8c\x13numpy._core", b"\x8c\x12numpy.core")
            # A frame says how long it is; the machine does not need it.
        data = data.replace(b"numpy._core", core)
    found = load(data)
    np.testing.assert_array_equal(found[0], PSA[0])
    assert found["name"] == np.float32(0.5)


def test_python_2s_bytes_are_strings(load):
    # What Python 2 wrote: SHORT_BINSTRING (U) for the data of an array, and for the keys.
    data = with_header(
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85U\x01b"
        b"\x87R(K\x01)cnumpy\ndtype\nq\x03U\x02O8K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK?tb\x89]}U\x03key"
        b"h\x01h\x02K\x00\x85U\x01b\x87R(K\x01K\x02\x85h\x03U\x02f4K\x00K\x01\x87R"
        b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        b"U\x08" + np.array([1.5, -2], "<f4").tobytes() + b"tbsatb."
    )
    assert {key: array.tolist() for key, array in load(data).items()} == {"key": [1.5, -2]}
    theirs = pickle.loads(data[data.index(b"\x80\x02") :], encoding="latin1").item()
    np.testing.assert_array_equal(theirs["key"], [1.5, -2])


def test_irns_dictionary_of_arrays(tmp_path):
    content = {"keys": np.array([1, 3]), "cam": rng.random((2, 3, 4)), "high_res": np.ones((2, 9))}
    np.save(tmp_path / "a.npy", content)
    found = load_dictionary(tmp_path / "a.npy")
    for key, array in content.items():
        np.testing.assert_array_equal(found[key], array)


@pytest.mark.parametrize(
    "dtype",
    [
        *(torch.float32, torch.float64, torch.float16, torch.int64, torch.int32),
        *(torch.int16, torch.int8, torch.uint8, torch.bool),
    ],
)
def test_irns_dictionary_of_tensors(tmp_path, dtype):
    """IRN's step/make_cam.py: np.save(..., {"keys": valid_cat, "cam": strided_cam.cpu(), ...})."""
    base = torch.from_numpy(rng.integers(0, 2, (4, 6, 8))).to(dtype)
    content = {
        "keys": torch.nonzero(torch.tensor([0, 1, 0, 1]))[:, 0],
        "cam": base,
        "part": base[1:, ::2, 3:],
        "turned": base.permute(2, 0, 1),
        "scalar": base[0, 0, 0],
        "none": base[:0],
    }
    np.save(tmp_path / "a.npy", content)
    found = load_dictionary(tmp_path / "a.npy")
    assert found["keys"].tolist() == [1, 3]
    for key, tensor in content.items():
        np.testing.assert_array_equal(found[key], tensor.numpy())
        assert found[key].dtype == tensor.numpy().dtype


def test_tensors_need_no_torch(tmp_path):
    import subprocess
    import sys

    np.save(tmp_path / "a.npy", {"cam": torch.ones(2)})
    code = (
        "import sys; from pathlib import Path; from affinitynet.data.unpickle import *;"
        "load_dictionary(Path(sys.argv[1])); print('torch' in sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.npy")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == "False"


def test_a_tensor_that_shows_more_than_it_has_is_refused(load):
    with pytest.raises(UserError, match="larger than its storage"):
        load(saved({"cam": torch.ones(1).expand(10**6, 10**6)}))


def test_what_comes_twice_is_the_same_array(load):
    found = load(saved({0: PSA[0], 1: PSA[0], "more": [PSA[0], (1, 2.5, None, True, "é")]}))
    assert found[0] is found[1] is found["more"][0]
    assert found["more"][1] == (1, 2.5, None, True, "é")


class Call:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda mark: Call(os.system, f"touch {mark}"), r"(posix|nt)\.system"),
        (lambda mark: Call(eval, f"open({str(mark)!r}, 'w')"), r"(builtins|__builtin__)\.eval"),
        (lambda mark: Call(open, str(mark), "w"), r"_?io\.open"),
        (lambda mark: Call(np.load, str(mark)), r"numpy\.load"),
        (lambda mark: Call(np.save, str(mark), 1), r"numpy\.save"),
        (lambda mark: functools.partial(os.mkdir, str(mark)), r"functools\.partial"),
        (lambda mark: collections.Counter("aab"), r"collections\.Counter"),
        (lambda mark: torch.nn.Linear(1, 1), r"torch\.nn\.modules\.linear\.Linear"),
        (lambda mark: torch.float32, r"torch\.float32"),
    ],
)
def test_code_is_refused_and_does_not_run(load, tmp_path, call, name, protocol):
    mark = tmp_path / "ran"
    data = saved({0: PSA[0], 1: call(mark)}, protocol)
    with pytest.raises(UserError, match=rf"a\.npy: its pickle asks for {name}, .*nothing of it"):
        load(data)
    assert not mark.exists()


def test_the_crafted_file_would_run(tmp_path):
    """The test above could not fail if it would not."""
    mark = tmp_path / "ran"
    (tmp_path / "a.npy").write_bytes(saved({1: Call(open, str(mark), "w")}))
    np.load(tmp_path / "a.npy", allow_pickle=True).item()[1].close()
    assert mark.exists()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"cnumpy\nndarray\n)R.", "a call of numpy.ndarray"),
        (b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R.", "_codecs.encode"),
        (b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nmatrix\n)R.", "numpy.matrix"),
        (b"ccollections\nOrderedDict\n]\x85R.", "a filled collections.OrderedDict"),
        (b"cnumpy\ndtype\nX\x02\x00\x00\x00M8\x85R.", "an array of what are no numbers"),
        (b"K\x01)R.", "a call of what is no function"),
        (b"}}b.", "content for what has none"),
        (b"K\x01Q.", "something outside the file"),
        (b"}))s.", "keys are no numbers or strings"),
        (b"K\x01K\x02a.", "an append to what is no list"),
        (b"I1\n.", "the instruction b'I'"),
        (b"(cos\nsystem\no.", "os.system"),
        (b"(ios\nsystem\n.", "the instruction b'i'"),
        (b"\x82\x01.", r"the instruction b'\\x82'"),
    ],
)
def test_single_instructions_are_refused(load, body, message):
    with pytest.raises(UserError, match=f"asks for .*{message}"):
        load(with_header(b"\x80\x02" + body))


def test_objects_inside_are_refused(load):
    with pytest.raises(UserError, match="an array of objects inside the dictionary"):
        load(saved({0: np.array([[], [1]], object)}))
    with pytest.raises(UserError, match="an array of objects inside the dictionary"):
        load(saved({0: object_array({})}))
    with pytest.raises(UserError, match=r"an array of structures|no numbers"):
        load(saved({0: np.zeros(2, "f4,i4")}))
    with pytest.raises(UserError, match=r"no numbers"):
        load(saved({0: np.array(["text"])}))


def test_other_arrays_are_refused(load, tmp_path):
    np.save(tmp_path / "b.npy", np.zeros((3, 5)))
    with pytest.raises(UserError, match=r"an array of shape \(3, 5\), not a dictionary of maps"):
        load_dictionary(tmp_path / "b.npy")
    with pytest.raises(UserError, match="holds no dictionary"):
        load(saved([1, 2]))
    with pytest.raises(UserError, match=r"a\.npy: can't be read \(not an array of numpy\)"):
        load(b"PK\3\4 and so on")
    with pytest.raises(UserError, match=r"c\.npy: no such file"):
        load_dictionary(tmp_path / "c.npy")


def test_claims_without_bytes_take_no_memory(load):
    whole = saved({0: np.zeros(8, np.float32)})
    found = whole.replace(b"K\x08\x85", b"\x8a\x06\0\0\0\0\0\x10\x85")  # (2 ** 44,)
    assert found != whole
    with pytest.raises(UserError, match="needs 70368744177664 bytes, found 32"):
        load(found)
    with pytest.raises(UserError, match="cut short"):
        load(with_header(b"\x80\x04\x8e" + struct.pack("<Q", 2**62)))
    # Python's own machine takes memory for as many places as the highest that is used.
    with pytest.raises(UserError, match="no dictionary"):
        load(with_header(b"\x80\x04Nr\xff\xff\xff\xff."))


def test_every_cut_is_refused(load):
    whole = saved({"keys": np.array([1]), "cam": torch.ones(1, 2, 2)})
    for length in range(len(whole)):
        with pytest.raises(UserError, match=r"a\.npy: (can't be read|holds no)"):
            load(whole[:length])


EXAMPLES = (
    saved(PSA),
    saved({0: PSA[0], "b": np.float32(1), "c": [1, 2.5, b"x", -(2**70)]}, 2),
    saved({"keys": torch.tensor([1, 3]), "cam": torch.rand(2, 3, 4)[:, ::2]}),
)


@settings(
    max_examples=600,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.sampled_from(EXAMPLES),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 3), st.binary(min_size=1, max_size=6))),
)
def test_mutated_files_are_users_errors_at_most(load, data, edits):
    changed = bytearray(data)
    for share, cut, put in edits:
        place = int(share * len(changed))
        changed[place : place + cut] = put
    try:
        found = load(bytes(changed))
    except UserError:
        return
    assert type(found) is dict


_CODES = [opcode.code.encode("latin-1") for opcode in pickletools.opcodes]


@settings(
    max_examples=400,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(st.one_of(st.sampled_from(_CODES), st.binary(max_size=4)), max_size=40))
def test_programs_of_chance_are_users_errors_at_most(load, parts):
    with pytest.raises(UserError, match=r"a\.npy"):
        load(with_header(b"\x80\x04" + b"".join(parts) + b"."))
