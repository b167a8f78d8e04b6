"""Asks a running node everything that the unmodified tritonclient.http can ask.

    test_tritonclient_http.py --url 127.0.0.1:8000 [--key KEY] [unittest's options]

The key may also come from PLINTH_API_KEY; without one, the tests of authentication are left out. The node must serve the
models that make_identity_models.py makes, each under the name of its directory, as version 1, and allow shared memory.
"""

import argparse
import gzip
import json
import os
import sys
import threading
import unittest
import zlib

import ml_dtypes
import numpy as np
import tritonclient.http as http
import tritonclient.utils.shared_memory as shm
from tritonclient.utils import InferenceServerException, serialize_byte_tensor

URL = None
KEY = None

# A few values of each data type, its limits among them.
SAMPLES = {
    "BOOL": np.array([[True, False, True]]),
    "UINT8": np.array([[0, 1, 255]], dtype=np.uint8),
    "UINT16": np.array([[0, 1, 65535]], dtype=np.uint16),
    "UINT32": np.array([[0, 1, 2**32 - 1]], dtype=np.uint32),
    "UINT64": np.array([[0, 1, 2**64 - 1]], dtype=np.uint64),
    "INT8": np.array([[-128, 0, 127]], dtype=np.int8),
    "INT16": np.array([[-(2**15), 0, 2**15 - 1]], dtype=np.int16),
    "INT32": np.array([[-(2**31), 0, 2**31 - 1]], dtype=np.int32),
    "INT64": np.array([[-(2**63), 0, 2**63 - 1]], dtype=np.int64),
    "FP16": np.array([[-1.5, 0.0, 65504.0]], dtype=np.float16),
    "BF16": np.array([[-1.5, 0.0, 3.0e38]], dtype=ml_dtypes.bfloat16),
    "FP32": np.array([[0.1, -3.4028235e38, 1.0e-45]], dtype=np.float32),
    "FP64": np.array([[0.1, -1.7976931348623157e308, 5.0e-324]], dtype=np.float64),
    "BYTES": np.array([[b"", b"plain", "Zürich \U0001f600 \"\\\n".encode()]], dtype=np.object_),
}
# JSON cannot carry these.
BINARY_ONLY = {"FP16", "BF16"}


class Case(unittest.TestCase):
    def setUp(self):
        self.client = http.InferenceServerClient(URL, concurrency=4)
        self.addCleanup(self.client.close)
        self.auth = {"Authorization": f"Bearer {KEY}"} if KEY else {}

    def infer(self, model, inputs, **options):
        headers = {**self.auth, **options.pop("headers", {})}
        return self.client.infer(model, inputs, headers=headers, **options)

    def refused(self, status, *texts, call):
        """Calls, and expects an error with this status and these texts in its message."""
        with self.assertRaises(InferenceServerException) as caught:
            call()
        self.assertEqual(caught.exception.status(), str(status), caught.exception)
        for text in texts:
            self.assertIn(text, caught.exception.message())

    def assert_same(self, got, wanted):
        self.assertEqual(got.shape, wanted.shape)
        if wanted.dtype == np.object_:
            # In JSON an element of BYTES is a text, in binary it is bytes.
            texts = [e.encode() if isinstance(e, str) else e for e in got.flatten()]
            self.assertEqual(texts, list(wanted.flatten()))
        else:
            self.assertEqual(got.dtype, wanted.dtype)
            self.assertEqual(got.tobytes(), wanted.tobytes())


def tensor(name, values, binary=True):
    kind = next(k for k, sample in SAMPLES.items() if sample.dtype == values.dtype)
    tensor = http.InferInput(name, list(values.shape), kind)
    return tensor.set_data_from_numpy(values, binary_data=binary)


def simple_inputs(rows=1, binary=True):
    first = np.arange(rows * 4, dtype=np.float32).reshape(rows, 4)
    return [tensor("INPUT0", first, binary), tensor("INPUT1", np.ones((rows, 4), dtype=np.float32), binary)], first


class Health(Case):
    def test_server(self):
        self.assertTrue(self.client.is_server_live(headers=self.auth))
        self.assertTrue(self.client.is_server_ready(headers=self.auth))
        self.assertTrue(self.client.is_server_live(headers=self.auth, query_params={"a": "b"}))

    def test_probes_need_no_key(self):
        self.assertTrue(self.client.is_server_live())
        self.assertTrue(self.client.is_server_ready())

    def test_model(self):
        self.assertTrue(self.client.is_model_ready("simple", headers=self.auth))
        self.assertTrue(self.client.is_model_ready("simple", "1", headers=self.auth))
        self.assertFalse(self.client.is_model_ready("simple", "99", headers=self.auth))
        self.assertFalse(self.client.is_model_ready("nothing", headers=self.auth))


class Metadata(Case):
    def test_server(self):
        metadata = self.client.get_server_metadata(headers=self.auth)
        self.assertTrue(metadata["name"])
        self.assertTrue(metadata["version"])
        wanted = {"binary_tensor_data", "model_repository", "model_configuration", "statistics", "trace", "logging", "generate"}
        self.assertLessEqual(wanted | {"classification", "parameters", "system_shared_memory"}, set(metadata["extensions"]))
        self.assertNotIn("cuda_shared_memory", metadata["extensions"])

    def test_model(self):
        metadata = self.client.get_model_metadata("identity_bytes", headers=self.auth)
        wanted = {
            "name": "identity_bytes",
            "versions": ["1"],
            "platform": "onnxruntime_onnx",
            "inputs": [{"name": "x", "datatype": "BYTES", "shape": [-1, -1]}],
            "outputs": [{"name": "y", "datatype": "BYTES", "shape": [-1, -1]}],
        }
        self.assertEqual(metadata, wanted)
        self.assertEqual(self.client.get_model_metadata("identity_bytes", "1", headers=self.auth), wanted)

    def test_config_and_metadata_name_the_same_tensors(self):
        config = self.client.get_model_config("simple", headers=self.auth)
        metadata = self.client.get_model_metadata("simple", headers=self.auth)
        self.assertEqual((config["name"], config["platform"], config["max_batch_size"]), ("simple", "onnxruntime_onnx", 8))
        self.assertEqual(config["input"][0]["data_type"], "TYPE_FP32")
        self.assertEqual(config["instance_group"][0]["kind"], "KIND_CPU")
        for key, many in [("input", "inputs"), ("output", "outputs")]:
            self.assertEqual([t["name"] for t in config[key]], [t["name"] for t in metadata[many]])
            for declared, shown in zip(config[key], metadata[many]):
                self.assertEqual([-1, *declared["dims"]], shown["shape"])

    def test_a_config_is_made_for_a_model_without_one(self):
        config = self.client.get_model_config("identity_fp32", "1", headers=self.auth)
        self.assertEqual((config["max_batch_size"], config["input"][0]["dims"]), (0, [-1, -1]))

    def test_unknown_models_and_versions(self):
        for call in (self.client.get_model_metadata, self.client.get_model_config):
            self.refused(404, "Request for unknown model: 'nothing'", call=lambda: call("nothing", headers=self.auth))
            self.refused(404, "Request for unknown model: 'simple'", call=lambda: call("simple", "99", headers=self.auth))


class Types(Case):
    """Every data type there and back, in each way in which it can travel."""

    def identity(self, kind, values, binary_in, binary_out):
        output = http.InferRequestedOutput("y", binary_data=binary_out)
        result = self.infer(f"identity_{kind.lower()}", [tensor("x", values, binary_in)], outputs=[output])
        self.assert_same(result.as_numpy("y"), values)
        return result

    def test_binary(self):
        for kind, values in SAMPLES.items():
            with self.subTest(kind):
                result = self.identity(kind, values, True, True)
                self.assertEqual(result.get_output("y")["datatype"], kind)

    def test_json(self):
        for kind, values in SAMPLES.items():
            if kind in BINARY_ONLY:
                continue
            for binary_in, binary_out in [(False, False), (False, True), (True, False)]:
                with self.subTest(kind, binary_in=binary_in, binary_out=binary_out):
                    self.identity(kind, values, binary_in, binary_out)

    def test_no_elements(self):
        for kind, values in SAMPLES.items():
            for binary in (True, False):
                if kind in BINARY_ONLY and not binary:
                    continue
                with self.subTest(kind, binary=binary):
                    self.identity(kind, values[:, :0], binary, binary)

    def test_all_outputs_come_as_binary_when_none_is_named(self):
        for kind, values in SAMPLES.items():
            with self.subTest(kind):
                result = self.infer(f"identity_{kind.lower()}", [tensor("x", values)])
                self.assert_same(result.as_numpy("y"), values)
                self.assertIn("binary_data_size", result.get_output("y")["parameters"])

    def test_half_floats_are_refused_in_json(self):
        json_output = http.InferRequestedOutput("y", binary_data=False)
        for kind in BINARY_ONLY:
            call = lambda: self.infer(f"identity_{kind.lower()}", [tensor("x", SAMPLES[kind])], outputs=[json_output])
            self.refused(400, kind, "binary_data", call=call)
        call = lambda: self.infer("identity_fp16", [tensor("x", SAMPLES["FP16"], binary=False)])
        self.refused(400, "FP16", "binary", "inputs[0].data", call=call)

    def test_what_json_cannot_carry_travels_as_binary(self):
        odd = np.array([[np.nan, np.inf, -np.inf]], dtype=np.float32)
        self.identity("FP32", odd, True, True)
        output = http.InferRequestedOutput("y", binary_data=False)
        call = lambda: self.infer("identity_fp32", [tensor("x", odd)], outputs=[output])
        self.refused(400, "'y'", "NaN", "binary_data", call=call)
        call = lambda: self.infer("identity_fp32", [tensor("x", odd, binary=False)])
        self.refused(400, "NaN", "inputs[0].data[0]", call=call)

    def test_bytes_are_texts_to_onnx(self):
        call = lambda: self.infer("identity_bytes", [tensor("x", np.array([[b"\xff"]], dtype=np.object_))])
        self.refused(400, "'x'", "UTF-8", call=call)
        with_nul = np.array([[b"a\x00b", b"\x00"]], dtype=np.object_)
        self.assert_same(self.infer("identity_bytes", [tensor("x", with_nul)]).as_numpy("y"), with_nul)

    def test_a_larger_tensor(self):
        values = np.random.default_rng(7).standard_normal((64, 4096)).astype(np.float32)
        self.identity("FP32", values, True, True)


class Requests(Case):
    def test_outputs_and_ids(self):
        for binary in (True, False):
            inputs, first = simple_inputs(3, binary)
            outputs = [http.InferRequestedOutput("OUTPUT1", binary_data=binary)]
            result = self.infer("simple", inputs, outputs=outputs, request_id="seven")
            response = result.get_response()
            self.assertEqual((response["id"], response["model_name"], response["model_version"]), ("seven", "simple", "1"))
            self.assertEqual([o["name"] for o in response["outputs"]], ["OUTPUT1"])
            np.testing.assert_array_equal(result.as_numpy("OUTPUT1"), first - 1)
        inputs, first = simple_inputs(2)
        result = self.infer("simple", inputs, model_version="1")
        np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), first + 1)
        np.testing.assert_array_equal(result.as_numpy("OUTPUT1"), first - 1)

    def test_mixed_json_and_binary(self):
        inputs, first = simple_inputs()
        inputs[0].set_data_from_numpy(first, binary_data=False)
        outputs = [http.InferRequestedOutput("OUTPUT0", binary_data=False), http.InferRequestedOutput("OUTPUT1")]
        result = self.infer("simple", inputs, outputs=outputs)
        np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), first + 1)
        np.testing.assert_array_equal(result.as_numpy("OUTPUT1"), first - 1)

    def test_parameters(self):
        inputs, _ = simple_inputs()
        options = {"priority": 1, "timeout": 5_000_000, "parameters": {"mine": "x", "n": 3, "flag": True}, "sequence_id": 9, "sequence_start": True}
        self.assertIsNotNone(self.infer("simple", inputs, query_params={"a": "b"}, **options).as_numpy("OUTPUT0"))

    def test_compression(self):
        values = np.tile(np.arange(64, dtype=np.float32), (64, 1))
        for request in (None, "gzip", "deflate"):
            for response in (None, "gzip", "deflate"):
                for binary in (True, False):
                    with self.subTest(request=request, response=response, binary=binary):
                        result = self.infer(
                            "identity_fp32",
                            [tensor("x", values, binary)],
                            outputs=[http.InferRequestedOutput("y", binary_data=binary)],
                            request_compression_algorithm=request,
                            response_compression_algorithm=response,
                        )
                        np.testing.assert_array_equal(result.as_numpy("y"), values)

    def test_the_response_is_really_compressed(self):
        values = np.zeros((64, 64), dtype=np.float32)
        body, length = http.InferenceServerClient.generate_request_body([tensor("x", values)])
        headers = {**self.auth, "Inference-Header-Content-Length": str(length)}
        for coding, decompress in [("gzip", gzip.decompress), ("deflate", zlib.decompress)]:
            response = self.client._post("v2/models/identity_fp32/infer", body, {**headers, "Accept-Encoding": coding}, None)
            self.assertEqual((response.status_code, response.get("Content-Encoding")), (200, coding))
            packed = response.read()
            plain = decompress(packed)
            self.assertLess(len(packed), len(plain))
            self.assertEqual(len(plain), int(response.get("Inference-Header-Content-Length")) + values.nbytes)

    def test_an_unknown_encoding(self):
        response = self.client._post("v2/models/identity_fp32/infer", b"{}", {**self.auth, "Content-Encoding": "br"}, None)
        self.assertEqual(response.status_code, 501)
        self.assertIn("error", json.loads(response.read()))

    def test_many_at_once(self):
        inputs, first = simple_inputs()
        pending = [self.client.async_infer("simple", inputs, request_id=str(i), headers=self.auth) for i in range(32)]
        for i, answer in enumerate(pending):
            result = answer.get_result()
            self.assertEqual(result.get_response()["id"], str(i))
            np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), first + 1)

    def test_classification(self):
        inputs, _ = simple_inputs(2)
        result = self.infer("simple", inputs, outputs=[http.InferRequestedOutput("OUTPUT0", class_count=2)])
        classes = result.as_numpy("OUTPUT0")
        self.assertEqual(classes.shape, (2, 2))
        self.assertEqual(list(classes[0]), [b"4.000000:3:three", b"3.000000:2:two"])
        result = self.infer("simple", inputs, outputs=[http.InferRequestedOutput("OUTPUT1", binary_data=False, class_count=9)])
        self.assertEqual(list(result.as_numpy("OUTPUT1")[1]), ["6.000000:3", "5.000000:2", "4.000000:1", "3.000000:0"])

    def test_a_raw_body(self):
        values = SAMPLES["INT64"][0]
        headers = {**self.auth, "Inference-Header-Content-Length": "0"}
        # Two dimensions of any size cannot be told from a length.
        response = self.client._post("v2/models/identity_int64/infer", values.tobytes(), headers, None)
        self.assertEqual(response.status_code, 400)
        response = self.client._post("v2/models/identity_bytes/infer", b"hello", headers, None)
        self.assertEqual(response.status_code, 200)
        result = http.InferResult.from_response_body(
            response.read(), header_length=int(response.get("Inference-Header-Content-Length"))
        )
        self.assertEqual(result.as_numpy("y").tolist(), [[b"hello"]])


class BadRequests(Case):
    def test_inputs_that_do_not_fit(self):
        inputs, first = simple_inputs()
        self.refused(404, "Request for unknown model: 'nothing' is not found", call=lambda: self.infer("nothing", inputs))
        self.refused(404, "Request for unknown model: 'simple'", call=lambda: self.infer("simple", inputs, model_version="99"))
        self.refused(400, "expected 2 inputs but got 1 inputs for model 'simple'", call=lambda: self.infer("simple", inputs[:1]))
        other = tensor("INPUT9", first)
        self.refused(400, "'INPUT9'", call=lambda: self.infer("simple", [*inputs, other]))
        self.refused(400, "twice", call=lambda: self.infer("simple", [inputs[0], inputs[0]]))
        wide = tensor("INPUT1", np.ones((1, 5), dtype=np.float32))
        self.refused(400, "'INPUT1'", "[-1,4]", "[1,5]", call=lambda: self.infer("simple", [inputs[0], wide]))
        whole = tensor("INPUT1", np.ones((1, 4), dtype=np.int32))
        self.refused(400, "'INPUT1'", "FP32", "INT32", call=lambda: self.infer("simple", [inputs[0], whole]))
        many, _ = simple_inputs(9)
        self.refused(400, "batch", call=lambda: self.infer("simple", many))
        outputs = [http.InferRequestedOutput("OUTPUT9")]
        self.refused(400, "'OUTPUT9'", call=lambda: self.infer("simple", inputs, outputs=outputs))
        outputs = [http.InferRequestedOutput("OUTPUT0"), http.InferRequestedOutput("OUTPUT0")]
        self.refused(400, "twice", call=lambda: self.infer("simple", inputs, outputs=outputs))

    def test_sizes_that_lie(self):
        lying = tensor("x", SAMPLES["INT32"])
        lying.set_shape([1, 4])
        call = lambda: self.infer("identity_int32", [lying])
        self.refused(400, "input byte size mismatch for input 'x'", call=call)

    def test_reserved_parameters(self):
        inputs, _ = simple_inputs()
        body, length = http.InferenceServerClient.generate_request_body(inputs)
        head = json.loads(body[:length])
        head["parameters"]["triton_mine"] = 1
        head = json.dumps(head).encode()
        headers = {**self.auth, "Inference-Header-Content-Length": str(len(head))}
        response = self.client._post("v2/models/simple/infer", head + body[length:], headers, None)
        self.assertEqual(response.status_code, 400)
        self.assertIn("reserved", json.loads(response.read())["error"])

    def test_the_connection_outlives_a_refusal(self):
        client = http.InferenceServerClient(URL, concurrency=1)
        self.addCleanup(client.close)
        inputs, _ = simple_inputs()
        for _ in range(3):
            response = client._post("v2/models/nothing/infer", b"{}" + b" " * 5000, self.auth, None)
            self.assertEqual(response.status_code, 404)
            self.assertNotEqual((response.get("Connection") or "").lower(), "close")
            response.read()
        self.assertIsNotNone(client.infer("simple", inputs, headers=self.auth).as_numpy("OUTPUT0"))

    def test_keys(self):
        if not KEY:
            self.skipTest("no key was given")
        inputs, _ = simple_inputs()
        self.refused(401, call=lambda: self.client.infer("simple", inputs))
        self.refused(401, call=lambda: self.client.infer("simple", inputs, headers={"Authorization": "Bearer wrong"}))
        self.refused(401, call=lambda: self.client.get_model_metadata("simple"))
        self.refused(401, call=lambda: self.client.unload_model("simple"))


class SharedMemory(Case):
    """Inputs and outputs in regions of POSIX shared memory."""

    def region(self, name, size):
        """A region of this many bytes, registered."""
        key = f"/plinth_test_{os.getpid()}_{self.id().rsplit('.', 1)[-1]}_{name}"
        handle = shm.create_shared_memory_region(name, key, size)
        self.addCleanup(shm.destroy_shared_memory_region, handle)
        self.client.register_system_shared_memory(name, key, size, headers=self.auth)
        self.addCleanup(self.client.unregister_system_shared_memory, name, headers=self.auth)
        return handle, key

    def setUp(self):
        super().setUp()
        self.client.unregister_system_shared_memory(headers=self.auth)
        self.client.unregister_cuda_shared_memory(headers=self.auth)

    def status(self, name=""):
        return self.client.get_system_shared_memory_status(name, headers=self.auth)

    def test_register_and_forget(self):
        self.assertEqual(self.status(), [])
        _, key = self.region("first", 64)
        self.region("second", 32)
        wanted = {"name": "first", "key": key, "offset": 0, "byte_size": 64}
        self.assertEqual(self.status("first"), [wanted])
        self.assertEqual([r["name"] for r in self.status()], ["first", "second"])
        again = lambda: self.client.register_system_shared_memory("first", key, 64, headers=self.auth)
        self.refused(400, "shared memory region 'first' already in manager", call=again)
        self.client.unregister_system_shared_memory("first", headers=self.auth)
        self.client.unregister_system_shared_memory("first", headers=self.auth)
        self.refused(404, "Unable to find shared memory region: 'first'", call=lambda: self.status("first"))
        self.client.unregister_system_shared_memory(headers=self.auth)
        self.assertEqual(self.status(), [])

    def test_what_cannot_be_registered(self):
        _, key = self.region("good", 64)
        register = lambda key, size, offset=0: lambda: self.client.register_system_shared_memory("bad", key, size, offset, headers=self.auth)
        for key, size, offset in [("/plinth_none", 64, 0), (key, 65, 0), (key, 64, 1), (key, 0, 0), ("/../etc/passwd", 1, 0), ("//x", 1, 0)]:
            self.refused(400, "failed to register shared memory region 'bad'", "invalid args", call=register(key, size, offset))

    def test_there_and_back(self):
        for kind, values in SAMPLES.items():
            with self.subTest(kind):
                data = serialize_byte_tensor(values) if kind == "BYTES" else values
                size = len(data.item()) if kind == "BYTES" else values.nbytes
                self.client.unregister_system_shared_memory(headers=self.auth)
                name = f"io_{kind}"
                handle, _ = self.region(name, 16 + 2 * size)
                # Out of the way of the beginning, to see that offsets are looked at.
                shm.set_shared_memory_region(handle, [data], offset=8)
                given = http.InferInput("x", list(values.shape), kind).set_shared_memory(name, size, offset=8)
                wished = http.InferRequestedOutput("y")
                wished.set_shared_memory(name, size + 8, offset=8 + size)
                result = self.infer(f"identity_{kind.lower()}", [given], outputs=[wished])
                output = result.get_output("y")
                self.assertEqual((output["datatype"], output["shape"]), (kind, list(values.shape)))
                self.assertNotIn("data", output)
                self.assertNotIn("parameters", output, "the C++ client takes them for a binary output")
                dtype = np.object_ if kind == "BYTES" else values.dtype
                got = shm.get_contents_as_numpy(handle, dtype, output["shape"], offset=8 + size)
                self.assert_same(np.array(got), values)
                del got

    def test_mixed_with_the_body(self):
        inputs, first = simple_inputs()
        handle, _ = self.region("mixed", first.nbytes)
        shm.set_shared_memory_region(handle, [first])
        shared = http.InferInput("INPUT0", [1, 4], "FP32").set_shared_memory("mixed", first.nbytes)
        for binary in (True, False):
            ones = tensor("INPUT1", np.ones((1, 4), dtype=np.float32), binary)
            result = self.infer("simple", [shared, ones], outputs=[http.InferRequestedOutput("OUTPUT0", binary_data=binary)])
            np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), first + 1)

    def test_a_large_tensor(self):
        values = np.random.default_rng(3).standard_normal((512, 1024)).astype(np.float32)
        handle, _ = self.region("large", 2 * values.nbytes)
        shm.set_shared_memory_region(handle, [values])
        given = http.InferInput("x", [512, 1024], "FP32").set_shared_memory("large", values.nbytes)
        wished = http.InferRequestedOutput("y")
        wished.set_shared_memory("large", values.nbytes, offset=values.nbytes)
        self.infer("identity_fp32", [given], outputs=[wished])
        got = shm.get_contents_as_numpy(handle, np.float32, [512, 1024], offset=values.nbytes)
        np.testing.assert_array_equal(got, values)
        del got

    def test_places_that_do_not_fit(self):
        handle, _ = self.region("tight", 64)
        shm.set_shared_memory_region(handle, [SAMPLES["INT32"]])
        given = lambda size, offset=0, name="tight": http.InferInput("x", [1, 3], "INT32").set_shared_memory(name, size, offset)
        ask = lambda tensor, outputs=None: lambda: self.infer("identity_int32", [tensor], outputs=outputs)
        self.refused(400, "input byte size mismatch for input 'x'", call=ask(given(16)))
        self.refused(400, "Invalid offset for shared memory region: 'tight'", call=ask(given(12, 65)))
        self.refused(400, "Invalid offset + byte size for shared memory region: 'tight'", call=ask(given(12, 60)))
        self.refused(404, "Unable to find shared memory region: 'nobody'", call=ask(given(12, 0, "nobody")))
        small = http.InferRequestedOutput("y")
        small.set_shared_memory("tight", 8, offset=32)
        self.refused(400, "'y' (8 bytes) should be at least 12 bytes", call=ask(given(12), [small]))
        nowhere = http.InferRequestedOutput("y")
        nowhere.set_shared_memory("nobody", 12)
        self.refused(404, "Unable to find shared memory region: 'nobody'", call=ask(given(12), [nowhere]))
        # Nothing of this hurts the next request.
        self.assertIsNotNone(self.infer("identity_int32", [given(12)]).as_numpy("y"))

    def test_a_region_that_shrinks_while_it_is_used(self):
        size = 4 << 20
        handle, key = self.region("shrinks", size)
        path = "/dev/shm" + key
        given = http.InferInput("x", [1, size // 4], "INT32").set_shared_memory("shrinks", size)
        stop = threading.Event()

        def change():
            while not stop.is_set():
                os.truncate(path, 100)
                os.truncate(path, size)

        thread = threading.Thread(target=change)
        thread.start()
        try:
            outcomes = set()
            for _ in range(30):
                try:
                    outcomes.add(self.infer("identity_int32", [given]).get_output("y")["datatype"])
                except InferenceServerException as error:
                    self.assertEqual(error.status(), "400", error)
                    outcomes.add("refused")
            self.assertLessEqual(outcomes, {"INT32", "refused"})
        finally:
            stop.set()
            thread.join()
        os.truncate(path, 100)
        self.refused(400, "shorter", call=lambda: self.infer("identity_int32", [given]))
        os.truncate(path, size)
        self.assertTrue(self.client.is_server_ready())

    def test_memory_of_a_gpu(self):
        self.assertEqual(self.client.get_cuda_shared_memory_status(headers=self.auth), [])
        self.client.unregister_cuda_shared_memory(headers=self.auth)
        self.client.unregister_cuda_shared_memory("r", headers=self.auth)
        register = lambda: self.client.register_cuda_shared_memory("r", b"handle".hex(), 0, 64, headers=self.auth)
        self.refused(501, "GPU", call=register)


class Statistics(Case):
    PARTS = {"success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss"}

    def of(self, *model):
        return self.client.get_inference_statistics(*model, headers=self.auth)["model_stats"]

    def test_what_clients_read_without_looking(self):
        everything = self.of()
        self.assertLessEqual({("simple", "1"), ("identity_int8", "1")}, {(m["name"], m["version"]) for m in everything})
        for model in everything:
            self.assertEqual(set(model["inference_stats"]), self.PARTS)
            for part in model["inference_stats"].values():
                self.assertEqual({k: type(v) for k, v in part.items()}, {"count": int, "ns": int})
            for key in ("last_inference", "inference_count", "execution_count"):
                self.assertIs(type(model[key]), int)
            self.assertEqual((type(model["batch_stats"]), type(model["memory_usage"])), (list, list))

    def test_one_model(self):
        for which in (("simple",), ("simple", "1")):
            self.assertEqual([(m["name"], m["version"]) for m in self.of(*which)], [("simple", "1")])
        self.refused(404, "'nothing'", call=lambda: self.of("nothing"))
        self.refused(404, "'simple'", call=lambda: self.of("simple", "99"))


class Settings(Case):
    """Trace and log settings."""

    def test_trace(self):
        self.addCleanup(
            self.client.update_trace_settings,
            settings={"trace_level": None, "trace_rate": None, "trace_count": None, "log_frequency": None},
            headers=self.auth,
        )
        get = lambda *model: self.client.get_trace_settings(*model, headers=self.auth)
        update = lambda model, settings: self.client.update_trace_settings(model, settings, headers=self.auth)
        self.assertEqual((get()["trace_level"], get()["trace_rate"], get()["trace_count"]), (["OFF"], "1000", "-1"))
        self.assertEqual(get(), get("simple"))
        shown = update(None, {"trace_level": ["TIMESTAMPS"], "trace_rate": "1", "trace_count": "2", "log_frequency": "5"})
        self.assertEqual(shown, get())
        self.assertEqual((shown["trace_level"], shown["trace_rate"], shown["log_frequency"]), (["TIMESTAMPS"], "1", "5"))
        self.assertEqual(get("simple"), shown)
        inputs, _ = simple_inputs()
        for _ in range(3):
            self.infer("simple", inputs, request_id="traced")
        self.assertEqual(get()["trace_count"], "0")
        shown = update("simple", {"trace_level": ["OFF"]})
        self.assertEqual((shown["trace_level"], shown["trace_rate"], get()["trace_level"]), (["OFF"], "1", ["TIMESTAMPS"]))
        self.assertEqual(update("simple", {"trace_level": None})["trace_level"], ["TIMESTAMPS"])
        self.refused(501, "trace file location", call=lambda: update(None, {"trace_file": "/tmp/x"}))
        self.refused(501, "tensors are not traced", call=lambda: update(None, {"trace_level": ["TENSORS"]}))
        self.refused(400, "trace_rate", call=lambda: update(None, {"trace_rate": "often"}))
        self.refused(404, "Request for unknown model: 'nothing'", call=lambda: get("nothing"))

    def test_logging(self):
        get = lambda: self.client.get_log_settings(headers=self.auth)
        update = lambda settings: self.client.update_log_settings(settings, headers=self.auth)
        before = get()
        self.assertEqual(set(before), {"log_file", "log_info", "log_warning", "log_error", "log_verbose_level", "log_format"})
        self.addCleanup(update, {k: v for k, v in before.items() if k != "log_file"})
        changed = {"log_info": False, "log_warning": False, "log_error": False, "log_verbose_level": 2, "log_format": "ISO8601"}
        self.assertEqual(update(changed), {"log_file": "", **changed})
        self.assertEqual(get(), {"log_file": "", **changed})
        self.refused(501, "log file location", call=lambda: update({"log_file": "x"}))
        self.refused(400, "log_info", call=lambda: update({"log_info": "yes"}))
        self.refused(400, "log_format", call=lambda: update({"log_format": "csv"}))


class Generate(Case):
    """The client has no call for it; its connection is used all the same."""

    def post(self, path, body, status=200):
        response = self.client._post(path, json.dumps(body), self.auth, None)
        text = response.read().decode()
        self.assertEqual(response.status_code, status, text)
        return text, response.get("Content-Type")

    def test_values(self):
        ask = lambda model, body: json.loads(self.post(f"v2/models/{model}/generate", body)[0])
        about = {"model_version": "1"}
        self.assertEqual(ask("identity_bytes", {"x": "h\u00e9", "id": "7"}), {"model_name": "identity_bytes", **about, "id": "7", "y": "h\u00e9"})
        self.assertEqual(ask("identity_int32", {"x": [1, 2, 3], "parameters": {"mine": 1}})["y"], [1, 2, 3])
        self.assertEqual(ask("identity_int32/versions/1", {"x": [[1], [2]]})["y"], [1, 2])
        answer = ask("simple", {"INPUT0": [1, 2, 3, 4], "INPUT1": [1, 1, 1, 1]})
        self.assertEqual((answer["OUTPUT0"], answer["OUTPUT1"]), ([2.0, 3.0, 4.0, 5.0], [0.0, 1.0, 2.0, 3.0]))

    def test_a_stream(self):
        text, kind = self.post("v2/models/identity_bytes/generate_stream", {"x": "hello"})
        self.assertTrue(kind.startswith("text/event-stream"))
        self.assertTrue(text.startswith("data: {") and text.endswith("}\n\n"), text)
        self.assertEqual(json.loads(text.removeprefix("data: "))["y"], "hello")

    def test_refusals(self):
        for path in ("generate", "generate_stream"):
            error = lambda body, status=400: json.loads(self.post(f"v2/models/identity_int32/{path}", body, status)[0])["error"]
            self.assertIn("'z' is no input of this model; it has x", error({"x": 1, "z": 2}))
            self.assertIn("expected 1 inputs but got 0", error({}))
            self.assertIn("expected a number", error({"x": "one"}))
            self.post(f"v2/models/nothing/{path}", {}, 404)


class Sequences(Case):
    def test_the_answer_says_to_which_sequence_it_belongs(self):
        inputs, _ = simple_inputs()
        for name in (7, 2**64 - 1, "seven"):
            result = self.infer("simple", inputs, sequence_id=name, sequence_start=True, sequence_end=False)
            wanted = {"sequence_id": name, "sequence_start": True, "sequence_end": False}
            self.assertEqual(result.get_response()["parameters"], wanted)
        self.assertNotIn("parameters", self.infer("simple", inputs).get_response())


class Repository(Case):
    MODEL = "identity_uint16"

    def states(self):
        index = self.client.get_model_repository_index(headers=self.auth)
        return {(entry["name"], entry.get("version")): entry["state"] for entry in index}

    def ask(self):
        result = self.infer(self.MODEL, [tensor("x", SAMPLES["UINT16"])])
        self.assert_same(result.as_numpy("y"), SAMPLES["UINT16"])

    def test_index(self):
        states = self.states()
        for kind in SAMPLES:
            self.assertEqual(states[(f"identity_{kind.lower()}", "1")], "READY")

    def test_unload_and_load(self):
        self.addCleanup(self.client.load_model, self.MODEL, headers=self.auth)
        self.client.unload_model(self.MODEL, headers=self.auth)
        self.assertFalse(self.client.is_model_ready(self.MODEL, headers=self.auth))
        self.assertNotEqual(self.states().get((self.MODEL, "1")), "READY")
        with self.assertRaises(InferenceServerException):
            self.ask()
        # Unloading again changes nothing.
        self.client.unload_model(self.MODEL, headers=self.auth)
        self.client.load_model(self.MODEL, headers=self.auth)
        self.assertTrue(self.client.is_model_ready(self.MODEL, headers=self.auth))
        self.assertEqual(self.states()[(self.MODEL, "1")], "READY")
        self.ask()

    def test_load_with_another_config(self):
        self.addCleanup(self.client.load_model, "simple", headers=self.auth)
        # A number as a text is proto3 JSON too.
        self.client.load_model("simple", headers=self.auth, config=json.dumps({"max_batch_size": "2"}))
        config = self.client.get_model_config("simple", headers=self.auth)
        self.assertEqual(config["max_batch_size"], 2)
        inputs, _ = simple_inputs(3)
        self.refused(400, "batch", call=lambda: self.infer("simple", inputs))

    def test_load_with_a_bad_config_leaves_the_model_serving(self):
        bad = json.dumps({"max_batchsize": 2})
        call = lambda: self.client.load_model(self.MODEL, headers=self.auth, config=bad)
        self.refused(400, "max_batch_size", call=call)
        self.ask()

    def test_unknown_models(self):
        self.refused(404, "nothing", call=lambda: self.client.load_model("nothing", headers=self.auth))
        self.refused(404, "nothing", call=lambda: self.client.unload_model("nothing", headers=self.auth))


def main():
    global URL, KEY
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True)
    parser.add_argument("--key", default=os.environ.get("PLINTH_API_KEY"))
    options, rest = parser.parse_known_args()
    # The client wants an address without a scheme.
    URL = options.url.removeprefix("http://").rstrip("/")
    KEY = options.key
    unittest.main(argv=[sys.argv[0], *rest])


if __name__ == "__main__":
    main()
