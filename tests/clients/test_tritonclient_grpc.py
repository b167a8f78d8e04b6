"""Asks a running node everything that the unmodified tritonclient.grpc can ask, and speaks health and reflection with it.

    test_tritonclient_grpc.py --url 127.0.0.1:8001 [--key KEY] [unittest's options]

The key may also come from PLINTH_API_KEY; without one, the tests of authentication are left out. The node must serve the
models that make_identity_models.py makes, each under the name of its directory, as version 1, and allow shared memory.
"""

import argparse
import asyncio
import json
import os
import queue
import sys
import unittest

import grpc
import ml_dtypes
import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
import tritonclient.utils.shared_memory as shm
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from google.protobuf.descriptor_pool import DescriptorPool
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

URL = None
KEY = None
PATIENCE = 30

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
# The list of typed contents of each type; the half floats have none.
TYPED = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
STATUS = {code.name: f"StatusCode.{code.name}" for code in grpc.StatusCode}


def tensor(name, values):
    kind = next(k for k, sample in SAMPLES.items() if sample.dtype == values.dtype)
    return triton.InferInput(name, list(values.shape), kind).set_data_from_numpy(values)


def simple_inputs(rows=1):
    first = np.arange(rows * 4, dtype=np.float32).reshape(rows, 4)
    return [tensor("INPUT0", first), tensor("INPUT1", np.ones((rows, 4), dtype=np.float32))], first


class Case(unittest.TestCase):
    def setUp(self):
        self.client = triton.InferenceServerClient(URL)
        self.addCleanup(self.client.close)
        self.auth = {"authorization": f"Bearer {KEY}"} if KEY else {}
        self.channel = grpc.insecure_channel(URL)
        self.addCleanup(self.channel.close)
        self.stub = service_pb2_grpc.GRPCInferenceServiceStub(self.channel)
        self.metadata = tuple(self.auth.items())

    def infer(self, model, inputs, **options):
        headers = {**self.auth, **options.pop("headers", {})}
        return self.client.infer(model, inputs, headers=headers, **options)

    def refused(self, status, *texts, call):
        """Calls, and expects an error with this status and these texts in its message."""
        with self.assertRaises(InferenceServerException) as caught:
            call()
        self.assertEqual(caught.exception.status(), STATUS[status], caught.exception)
        for text in texts:
            self.assertIn(text, caught.exception.message())

    def failed(self, code, call):
        """The same of a call without the client."""
        with self.assertRaises(grpc.RpcError) as caught:
            call()
        self.assertEqual(caught.exception.code(), code, caught.exception)
        return caught.exception

    def assert_same(self, got, wanted):
        self.assertEqual(got.shape, wanted.shape)
        if wanted.dtype == np.object_:
            self.assertEqual(list(got.flatten()), list(wanted.flatten()))
        elif wanted.dtype == ml_dtypes.bfloat16 and got.dtype == np.float32:
            np.testing.assert_array_equal(got, wanted.astype(np.float32))
        else:
            self.assertEqual(got.dtype, wanted.dtype)
            self.assertEqual(got.tobytes(), wanted.tobytes())


class Health(Case):
    def test_server(self):
        self.assertTrue(self.client.is_server_live(headers=self.auth))
        self.assertTrue(self.client.is_server_ready(headers=self.auth, client_timeout=PATIENCE))

    def test_probes_need_no_key(self):
        self.assertTrue(self.client.is_server_live())
        self.assertTrue(self.client.is_server_ready())

    def test_model(self):
        self.assertTrue(self.client.is_model_ready("simple", headers=self.auth))
        self.assertTrue(self.client.is_model_ready("simple", "1", headers=self.auth))
        self.assertFalse(self.client.is_model_ready("simple", "99", headers=self.auth))
        self.assertFalse(self.client.is_model_ready("nothing", headers=self.auth))

    def test_the_health_protocol(self):
        health = health_pb2_grpc.HealthStub(self.channel)
        for service in ["", "inference.GRPCInferenceService"]:
            answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=PATIENCE)
            self.assertEqual(answer.status, health_pb2.HealthCheckResponse.SERVING)
        call = lambda: health.Check(health_pb2.HealthCheckRequest(service="other"), timeout=PATIENCE)
        self.failed(grpc.StatusCode.NOT_FOUND, call)

    def test_a_watch_says_the_state_at_once_and_stays(self):
        health = health_pb2_grpc.HealthStub(self.channel)
        for service, status in [("", "SERVING"), ("other", "SERVICE_UNKNOWN")]:
            watch = health.Watch(health_pb2.HealthCheckRequest(service=service))
            self.assertEqual(next(watch).status, getattr(health_pb2.HealthCheckResponse, status))
            self.assertTrue(watch.is_active())
            watch.cancel()
        watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=0.2)
        next(watch)
        self.failed(grpc.StatusCode.DEADLINE_EXCEEDED, lambda: next(watch))

    def test_reflection(self):
        database = ProtoReflectionDescriptorDatabase(self.channel)
        services = set(database.get_services())
        self.assertLessEqual({"inference.GRPCInferenceService", "grpc.health.v1.Health"}, services)
        service = DescriptorPool(database).FindServiceByName("inference.GRPCInferenceService")
        ours = {method.name: (method.input_type, method.output_type) for method in service.methods}
        theirs = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
        self.assertEqual(set(ours), {method.name for method in theirs.methods})
        # Every field of every message has the number and the type that the client knows.
        seen, todo = set(), [(ours[m.name], (m.input_type, m.output_type)) for m in theirs.methods]
        todo = [pair for a, b in todo for pair in zip(a, b)]
        while todo:
            our, their = todo.pop()
            if our.full_name in seen:
                continue
            seen.add(our.full_name)
            fields = {f.name: (f.number, f.type, f.is_repeated) for f in our.fields}
            self.assertEqual(fields, {f.name: (f.number, f.type, f.is_repeated) for f in their.fields}, our.full_name)
            todo += [(f.message_type, their.fields_by_name[f.name].message_type) for f in our.fields if f.message_type]
        self.assertGreater(len(seen), 80)


class Metadata(Case):
    def test_server(self):
        metadata = self.client.get_server_metadata(headers=self.auth, as_json=True)
        self.assertTrue(metadata["name"] and metadata["version"])
        self.assertLessEqual({"binary_tensor_data", "model_repository", "model_configuration"}, set(metadata["extensions"]))

    def test_model(self):
        metadata = self.client.get_model_metadata("identity_bytes", headers=self.auth)
        self.assertEqual((metadata.name, list(metadata.versions), metadata.platform), ("identity_bytes", ["1"], "onnxruntime_onnx"))
        for tensors, name in [(metadata.inputs, "x"), (metadata.outputs, "y")]:
            self.assertEqual([(t.name, t.datatype, list(t.shape)) for t in tensors], [(name, "BYTES", [-1, -1])])
        self.assertEqual(self.client.get_model_metadata("identity_bytes", "1", headers=self.auth), metadata)

    def test_config(self):
        config = self.client.get_model_config("simple", headers=self.auth).config
        self.assertEqual((config.name, config.platform, config.max_batch_size), ("simple", "onnxruntime_onnx", 8))
        self.assertEqual([(i.name, i.data_type, list(i.dims)) for i in config.input], [("INPUT0", 11, [4]), ("INPUT1", 11, [4])])
        as_json = self.client.get_model_config("identity_fp32", "1", headers=self.auth, as_json=True)["config"]
        self.assertEqual((as_json.get("max_batch_size", 0), as_json["input"][0]["dims"]), (0, ["-1", "-1"]))

    def test_unknown_models_and_versions(self):
        for call in (self.client.get_model_metadata, self.client.get_model_config, self.client.get_inference_statistics):
            self.refused("NOT_FOUND", "Request for unknown model: 'nothing'", call=lambda: call("nothing", headers=self.auth))
            self.refused("NOT_FOUND", "Request for unknown model: 'simple'", call=lambda: call("simple", "99", headers=self.auth))
            version = "failed to get model version from specified version string 'one'"
            self.refused("INVALID_ARGUMENT", version, call=lambda: call("simple", "one", headers=self.auth))

    def test_statistics(self):
        def count():
            stats = self.client.get_inference_statistics("simple", headers=self.auth).model_stats
            self.assertEqual([(s.name, s.version) for s in stats], [("simple", "1")])
            return stats[0]

        before = count()
        inputs, _ = simple_inputs(3)
        self.infer("simple", inputs)
        after = count()
        self.assertEqual(after.inference_stats.success.count - before.inference_stats.success.count, 1)
        self.assertEqual(after.inference_count - before.inference_count, 3)
        self.assertGreater(after.last_inference, 0)
        stats = self.client.get_inference_statistics(headers=self.auth, as_json=True)["model_stats"]
        self.assertGreater(len(stats), len(SAMPLES))
        wanted = {"success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss"}
        self.assertEqual(set(stats[0]["inference_stats"]), wanted)


class Types(Case):
    """Every data type there and back, in each way in which it can travel."""

    def test_raw(self):
        for kind, values in SAMPLES.items():
            with self.subTest(kind):
                result = self.infer(f"identity_{kind.lower()}", [tensor("x", values)], outputs=[triton.InferRequestedOutput("y")])
                self.assert_same(result.as_numpy("y"), values)
                self.assertEqual(result.get_output("y").datatype, kind)

    def test_typed(self):
        for kind, member in TYPED.items():
            with self.subTest(kind):
                values = SAMPLES[kind]
                request = service_pb2.ModelInferRequest(model_name=f"identity_{kind.lower()}")
                sent = request.inputs.add(name="x", datatype=kind, shape=values.shape)
                getattr(sent.contents, member).extend(values.flatten().tolist())
                response = self.stub.ModelInfer(request, metadata=self.metadata)
                self.assertEqual(len(response.raw_output_contents), 1)
                self.assert_same(triton.InferResult(response).as_numpy("y"), values)

    def test_no_elements(self):
        for kind, values in SAMPLES.items():
            with self.subTest(kind):
                result = self.infer(f"identity_{kind.lower()}", [tensor("x", values[:, :0])])
                self.assertEqual(result.as_numpy("y").shape, (1, 0))

    def test_what_is_not_a_number(self):
        odd = np.array([[np.nan, np.inf, -np.inf]], dtype=np.float32)
        self.assert_same(self.infer("identity_fp32", [tensor("x", odd)]).as_numpy("y"), odd)

    def test_bytes_are_texts_to_onnx(self):
        call = lambda: self.infer("identity_bytes", [tensor("x", np.array([[b"\xff"]], dtype=np.object_))])
        self.refused("INVALID_ARGUMENT", "'x'", "UTF-8", call=call)
        with_nul = np.array([[b"a\x00b", b"\x00"]], dtype=np.object_)
        self.assert_same(self.infer("identity_bytes", [tensor("x", with_nul)]).as_numpy("y"), with_nul)

    def test_large_tensors(self):
        for shape in [(64, 4096), (2048, 2048)]:
            values = np.random.default_rng(7).standard_normal(shape).astype(np.float32)
            self.assert_same(self.infer("identity_fp32", [tensor("x", values)]).as_numpy("y"), values)

    def test_a_message_that_is_too_large(self):
        values = np.zeros((1, 17 << 20), dtype=np.float32)
        call = lambda: self.infer("identity_fp32", [tensor("x", values)])
        self.refused("RESOURCE_EXHAUSTED", "grpc.max_message", call=call)


class Requests(Case):
    def test_outputs_and_ids(self):
        inputs, first = simple_inputs(3)
        result = self.infer("simple", inputs, outputs=[triton.InferRequestedOutput("OUTPUT1")], request_id="seven")
        response = result.get_response()
        self.assertEqual((response.id, response.model_name, response.model_version), ("seven", "simple", "1"))
        self.assertEqual([o.name for o in response.outputs], ["OUTPUT1"])
        np.testing.assert_array_equal(result.as_numpy("OUTPUT1"), first - 1)
        result = self.infer("simple", inputs, model_version="1")
        np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), first + 1)
        np.testing.assert_array_equal(result.as_numpy("OUTPUT1"), first - 1)

    def test_parameters(self):
        inputs, _ = simple_inputs()
        parameters = {"mine": "x", "n": 3, "less": -3, "flag": True, "half": 0.5}
        result = self.infer("simple", inputs, priority=1, timeout=5_000_000, parameters=parameters)
        self.assertIsNotNone(result.as_numpy("OUTPUT0"))

    def test_compression(self):
        values = np.tile(np.arange(64, dtype=np.float32), (64, 1))
        for algorithm in (None, "gzip", "deflate"):
            with self.subTest(algorithm):
                result = self.infer("identity_fp32", [tensor("x", values)], compression_algorithm=algorithm)
                np.testing.assert_array_equal(result.as_numpy("y"), values)

    def test_classification(self):
        inputs, _ = simple_inputs(2)
        result = self.infer("simple", inputs, outputs=[triton.InferRequestedOutput("OUTPUT0", class_count=2)])
        classes = result.as_numpy("OUTPUT0")
        self.assertEqual(classes.shape, (2, 2))
        self.assertEqual(list(classes[0]), [b"4.000000:3:three", b"3.000000:2:two"])

    def test_many_at_once(self):
        inputs, first = simple_inputs()
        answers = queue.Queue()
        for i in range(200):
            done = lambda result, error: answers.put((result, error))
            self.client.async_infer("simple", inputs, done, request_id=str(i), headers=self.auth)
        ids = set()
        for _ in range(200):
            result, error = answers.get(timeout=PATIENCE)
            self.assertIsNone(error)
            np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), first + 1)
            ids.add(result.get_response().id)
        self.assertEqual(ids, {str(i) for i in range(200)})

    def test_cancellation(self):
        values = np.zeros((2048, 2048), dtype=np.float32)
        for _ in range(5):
            answers = queue.Queue()
            done = lambda result, error: answers.put(error)
            self.client.async_infer("identity_fp32", [tensor("x", values)], done, headers=self.auth).cancel()
            error = answers.get(timeout=PATIENCE)
            self.assertEqual(error.status(), STATUS["CANCELLED"])
        # The connection goes on.
        self.assertTrue(self.client.is_server_live())

    def test_deadlines(self):
        values = np.zeros((2048, 2048), dtype=np.float32)
        call = lambda: self.infer("identity_fp32", [tensor("x", values)], client_timeout=0.0001)
        self.refused("DEADLINE_EXCEEDED", call=call)
        inputs, _ = simple_inputs()
        self.assertIsNotNone(self.infer("simple", inputs, client_timeout=PATIENCE))


class Streams(Case):
    def start(self, **options):
        self.answers = queue.Queue()
        headers = {**self.auth, **options.pop("headers", {})}
        self.client.start_stream(lambda result, error: self.answers.put((result, error)), headers=headers, **options)

    def answer(self):
        return self.answers.get(timeout=PATIENCE)

    def test_many_on_one_stream(self):
        for algorithm in (None, "gzip"):
            self.start(compression_algorithm=algorithm)
            inputs, first = simple_inputs(2)
            for i in range(300):
                self.client.async_stream_infer("simple", inputs, request_id=str(i))
            ids = set()
            for _ in range(300):
                result, error = self.answer()
                self.assertIsNone(error)
                np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), first + 1)
                ids.add(result.get_response().id)
            self.assertEqual(len(ids), 300)
            self.client.stop_stream()

    def test_large_tensors(self):
        self.start()
        values = np.random.default_rng(3).standard_normal((1024, 1024)).astype(np.float32)
        for _ in range(30):
            self.client.async_stream_infer("identity_fp32", [tensor("x", values)])
        for _ in range(30):
            result, error = self.answer()
            self.assertIsNone(error)
            self.assert_same(result.as_numpy("y"), values)
        self.client.stop_stream()

    def test_an_error_ends_its_request_alone(self):
        self.start()
        inputs, first = simple_inputs()
        self.client.async_stream_infer("nothing", inputs, request_id="a")
        result, error = self.answer()
        self.assertIsNone(result)
        self.assertIn("Request for unknown model: 'nothing' is not found", error.message())
        self.client.async_stream_infer("simple", inputs[:1])
        self.assertIn("expected 2 inputs but got 1 inputs for model 'simple'", self.answer()[1].message())
        self.client.async_stream_infer("simple", inputs)
        result, error = self.answer()
        self.assertIsNone(error)
        np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), first + 1)
        self.client.stop_stream()

    def test_the_error_carries_the_id(self):
        request = service_pb2.ModelInferRequest(model_name="nothing", id="seven")
        answers = list(self.stub.ModelStreamInfer(iter([request]), metadata=self.metadata))
        self.assertEqual(len(answers), 1)
        self.assertIn("nothing", answers[0].error_message)
        self.assertEqual(answers[0].infer_response.id, "seven")

    def test_errors_as_status(self):
        self.start(headers={"triton_grpc_error": "true"})
        inputs, _ = simple_inputs()
        self.client.async_stream_infer("nothing", inputs)
        result, error = self.answer()
        self.assertIsNone(result)
        self.assertEqual(error.status(), STATUS["NOT_FOUND"])
        self.client.stop_stream()

    def test_the_last_answer_says_so(self):
        self.start()
        inputs, _ = simple_inputs()
        self.client.async_stream_infer("simple", inputs, enable_empty_final_response=True)
        result, error = self.answer()
        self.assertIsNone(error)
        self.assertTrue(result.get_response().parameters["triton_final_response"].bool_param)
        self.client.stop_stream()

    def test_sequences_stay_in_order(self):
        self.start()
        inputs, _ = simple_inputs()
        for i in range(20):
            for sequence in (7, "seven"):
                ends = {"sequence_start": i == 0, "sequence_end": i == 19}
                self.client.async_stream_infer("simple", inputs, request_id=f"{sequence} {i}", sequence_id=sequence, **ends)
        order = {"7": [], "seven": []}
        for _ in range(40):
            result, error = self.answer()
            self.assertIsNone(error)
            sequence, i = result.get_response().id.split()
            order[sequence].append(int(i))
        self.assertEqual(order, {"7": list(range(20)), "seven": list(range(20))})
        self.client.stop_stream()

    def test_cancelling_a_stream(self):
        self.start()
        values = np.zeros((1024, 1024), dtype=np.float32)
        for _ in range(20):
            self.client.async_stream_infer("identity_fp32", [tensor("x", values)])
        self.client.stop_stream(cancel_requests=True)
        self.start()
        inputs, _ = simple_inputs()
        while not self.answers.empty():
            self.answers.get()
        self.client.async_stream_infer("simple", inputs, request_id="after")
        while True:
            result, error = self.answer()
            if result is not None and result.get_response().id == "after":
                break
        self.client.stop_stream()

    def test_a_deadline_ends_a_stream(self):
        self.start(stream_timeout=0.3)
        result, error = self.answer()
        self.assertEqual(error.status(), STATUS["DEADLINE_EXCEEDED"])
        self.client.stop_stream()

    def test_a_stream_without_a_request(self):
        self.assertEqual(list(self.stub.ModelStreamInfer(iter([]), metadata=self.metadata)), [])


class Aio(unittest.TestCase):
    def setUp(self):
        self.auth = {"authorization": f"Bearer {KEY}"} if KEY else {}

    def test_everything_once(self):
        async def run():
            async with triton_aio.InferenceServerClient(URL) as client:
                self.assertTrue(await client.is_server_live())
                self.assertTrue(await client.is_model_ready("simple", headers=self.auth))
                self.assertEqual((await client.get_model_metadata("simple", headers=self.auth)).name, "simple")
                inputs, first = simple_inputs()
                calls = [client.infer("simple", inputs, headers=self.auth, request_id=str(i)) for i in range(50)]
                for i, result in enumerate(await asyncio.gather(*calls)):
                    self.assertEqual(result.get_response().id, str(i))
                    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), first + 1)

                async def requests():
                    for i in range(20):
                        yield {"model_name": "simple", "inputs": inputs, "request_id": str(i)}

                count = 0
                async for result, error in client.stream_infer(requests(), headers=self.auth):
                    self.assertIsNone(error)
                    count += 1
                self.assertEqual(count, 20)
                with self.assertRaises(InferenceServerException) as caught:
                    await client.infer("nothing", inputs, headers=self.auth)
                self.assertEqual(caught.exception.status(), STATUS["NOT_FOUND"])

        asyncio.run(run())


class BadRequests(Case):
    def test_inputs_that_do_not_fit(self):
        inputs, first = simple_inputs()
        self.refused("NOT_FOUND", "Request for unknown model: 'nothing' is not found", call=lambda: self.infer("nothing", inputs))
        self.refused("NOT_FOUND", "Request for unknown model: 'simple'", call=lambda: self.infer("simple", inputs, model_version="99"))
        bad = lambda *texts, call: self.refused("INVALID_ARGUMENT", *texts, call=call)
        bad("expected 2 inputs but got 1 inputs for model 'simple'", call=lambda: self.infer("simple", inputs[:1]))
        bad("'INPUT9'", call=lambda: self.infer("simple", [*inputs, tensor("INPUT9", first)]))
        bad("twice", call=lambda: self.infer("simple", [inputs[0], inputs[0]]))
        wide = tensor("INPUT1", np.ones((1, 5), dtype=np.float32))
        bad("'INPUT1'", "[-1,4]", "[1,5]", call=lambda: self.infer("simple", [inputs[0], wide]))
        whole = tensor("INPUT1", np.ones((1, 4), dtype=np.int32))
        bad("'INPUT1'", "FP32", "INT32", call=lambda: self.infer("simple", [inputs[0], whole]))
        many, _ = simple_inputs(9)
        bad("batch", call=lambda: self.infer("simple", many))
        bad("'OUTPUT9'", call=lambda: self.infer("simple", inputs, outputs=[triton.InferRequestedOutput("OUTPUT9")]))
        twice = [triton.InferRequestedOutput("OUTPUT0"), triton.InferRequestedOutput("OUTPUT0")]
        bad("twice", call=lambda: self.infer("simple", inputs, outputs=twice))

    def test_sizes_that_lie(self):
        lying = tensor("x", SAMPLES["INT32"])
        lying.set_shape([1, 4])
        call = lambda: self.infer("identity_int32", [lying])
        self.refused("INVALID_ARGUMENT", "input byte size mismatch for input 'x'", call=call)

    def test_raw_and_typed_together(self):
        request = service_pb2.ModelInferRequest(model_name="identity_int32")
        sent = request.inputs.add(name="x", datatype="INT32", shape=[1, 1])
        sent.contents.int_contents.append(1)
        request.raw_input_contents.append(b"\0\0\0\0")
        error = self.failed(grpc.StatusCode.INVALID_ARGUMENT, lambda: self.stub.ModelInfer(request, metadata=self.metadata))
        self.assertIn("contents field must not be specified when using raw_input_contents for 'x'", error.details())
        request.inputs[0].ClearField("contents")
        request.raw_input_contents.append(b"\0\0\0\0")
        error = self.failed(grpc.StatusCode.INVALID_ARGUMENT, lambda: self.stub.ModelInfer(request, metadata=self.metadata))
        self.assertIn("raw_input_contents", error.details())

    def test_shared_memory_that_is_not_there(self):
        shared = triton.InferInput("x", [1, 3], "INT32")
        shared.set_shared_memory("region", 12)
        with self.assertRaises(InferenceServerException) as caught:
            self.infer("identity_int32", [shared])
        self.assertEqual(caught.exception.status(), STATUS["NOT_FOUND"])

    def raw_call(self, method, message=b"", **options):
        call = self.channel.unary_unary(method, request_serializer=None, response_deserializer=None)
        return call(message, metadata=options.pop("metadata", self.metadata), timeout=PATIENCE, **options)

    def test_methods_that_are_not_there(self):
        for method in ["/inference.GRPCInferenceService/Nothing", "/other.Service/Method", "/"]:
            self.failed(grpc.StatusCode.UNIMPLEMENTED, lambda: self.raw_call(method))

    def test_messages_that_are_none(self):
        for method in ["ModelInfer", "ModelMetadata", "RepositoryIndex"]:
            call = lambda: self.raw_call(f"/inference.GRPCInferenceService/{method}", b"\xff\xff\xff")
            self.failed(grpc.StatusCode.INVALID_ARGUMENT, call)

    def test_keys(self):
        if not KEY:
            self.skipTest("no key was given")
        inputs, _ = simple_inputs()
        self.refused("UNAUTHENTICATED", "key", call=lambda: self.client.infer("simple", inputs))
        wrong = {"authorization": "Bearer wrong"}
        self.refused("UNAUTHENTICATED", call=lambda: self.client.infer("simple", inputs, headers=wrong))
        self.refused("UNAUTHENTICATED", call=lambda: self.client.get_model_metadata("simple"))
        self.refused("UNAUTHENTICATED", call=lambda: self.client.unload_model("simple"))
        self.failed(grpc.StatusCode.UNAUTHENTICATED, lambda: list(self.stub.ModelStreamInfer(iter([]))))
        self.failed(grpc.StatusCode.UNAUTHENTICATED, lambda: self.raw_call("/other.Service/Method", metadata=()))


class Repository(Case):
    MODEL = "identity_uint16"

    def states(self):
        index = self.client.get_model_repository_index(headers=self.auth)
        return {(entry.name, entry.version): entry.state for entry in index.models}

    def ask(self):
        result = self.infer(self.MODEL, [tensor("x", SAMPLES["UINT16"])])
        self.assert_same(result.as_numpy("y"), SAMPLES["UINT16"])

    def test_index(self):
        states = self.states()
        for kind in SAMPLES:
            self.assertEqual(states[(f"identity_{kind.lower()}", "1")], "READY")
        named = service_pb2.RepositoryIndexRequest(repository_name="other")
        self.failed(grpc.StatusCode.UNIMPLEMENTED, lambda: self.stub.RepositoryIndex(named, metadata=self.metadata))

    def test_unload_and_load(self):
        self.addCleanup(self.client.load_model, self.MODEL, headers=self.auth)
        self.client.unload_model(self.MODEL, headers=self.auth)
        self.assertFalse(self.client.is_model_ready(self.MODEL, headers=self.auth))
        self.assertNotEqual(self.states().get((self.MODEL, "1")), "READY")
        with self.assertRaises(InferenceServerException):
            self.ask()
        self.client.unload_model(self.MODEL, headers=self.auth)
        self.client.load_model(self.MODEL, headers=self.auth)
        self.assertTrue(self.client.is_model_ready(self.MODEL, headers=self.auth))
        self.assertEqual(self.states()[(self.MODEL, "1")], "READY")
        self.ask()

    def test_load_with_another_config(self):
        self.addCleanup(self.client.load_model, "simple", headers=self.auth)
        self.client.load_model("simple", headers=self.auth, config=json.dumps({"max_batch_size": "2"}))
        self.assertEqual(self.client.get_model_config("simple", headers=self.auth).config.max_batch_size, 2)
        inputs, _ = simple_inputs(3)
        self.refused("INVALID_ARGUMENT", "batch", call=lambda: self.infer("simple", inputs))

    def test_load_with_a_bad_config_leaves_the_model_serving(self):
        bad = json.dumps({"max_batchsize": 2})
        call = lambda: self.client.load_model(self.MODEL, headers=self.auth, config=bad)
        self.refused("INVALID_ARGUMENT", "failed to load 'identity_uint16'", "max_batch_size", call=call)
        files = {"file:1/model.onnx": b"abc"}
        call = lambda: self.client.load_model(self.MODEL, headers=self.auth, config="{}", files=files)
        self.refused("UNIMPLEMENTED", "files", call=call)
        self.ask()

    def test_unknown_models(self):
        self.refused("NOT_FOUND", "failed to load 'nothing'", call=lambda: self.client.load_model("nothing", headers=self.auth))
        self.refused("NOT_FOUND", "failed to unload 'nothing'", call=lambda: self.client.unload_model("nothing", headers=self.auth))


class Settings(Case):
    def test_trace(self):
        self.addCleanup(self.client.update_trace_settings, settings={"trace_level": None, "trace_rate": None}, headers=self.auth)
        settings = self.client.get_trace_settings(headers=self.auth).settings
        self.assertEqual(list(settings["trace_level"].value), ["OFF"])
        changed = {"trace_level": ["TIMESTAMPS"], "trace_rate": "1"}
        settings = self.client.update_trace_settings(settings=changed, headers=self.auth).settings
        self.assertEqual((list(settings["trace_level"].value), list(settings["trace_rate"].value)), (["TIMESTAMPS"], ["1"]))
        of_model = self.client.get_trace_settings("simple", headers=self.auth, as_json=True)["settings"]
        self.assertEqual(of_model["trace_level"]["value"], ["TIMESTAMPS"])
        inputs, _ = simple_inputs()
        self.infer("simple", inputs)
        bad = lambda: self.client.update_trace_settings(settings={"trace_rate": "x"}, headers=self.auth)
        self.refused("INVALID_ARGUMENT", "trace_rate", call=bad)
        self.refused("NOT_FOUND", "nothing", call=lambda: self.client.get_trace_settings("nothing", headers=self.auth))

    def test_logging(self):
        before = self.client.get_log_settings(headers=self.auth).settings
        self.addCleanup(
            self.client.update_log_settings, settings={"log_verbose_level": before["log_verbose_level"].uint32_param}, headers=self.auth
        )
        settings = self.client.update_log_settings(settings={"log_verbose_level": 1}, headers=self.auth, as_json=True)["settings"]
        self.assertEqual(settings["log_verbose_level"]["uint32_param"], 1)
        bad = lambda: self.client.update_log_settings(settings={"log_format": "csv"}, headers=self.auth)
        self.refused("INVALID_ARGUMENT", "log_format", call=bad)

    def test_cuda_shared_memory_is_not_there(self):
        status = self.client.get_cuda_shared_memory_status(headers=self.auth, as_json=True)
        self.assertEqual(status.get("regions", {}), {})
        self.client.unregister_cuda_shared_memory(headers=self.auth)
        call = lambda: self.client.register_cuda_shared_memory("r", b"aGFuZGxl", 0, 64, headers=self.auth)
        self.refused("UNIMPLEMENTED", "GPU", call=call)


class SharedMemory(Case):
    """Inputs and outputs in regions of POSIX shared memory."""

    def region(self, name, size):
        """A region of this many bytes, registered."""
        key = f"/plinth_grpc_test_{os.getpid()}_{self.id().rsplit('.', 1)[-1]}_{name}"
        handle = shm.create_shared_memory_region(name, key, size)
        self.addCleanup(shm.destroy_shared_memory_region, handle)
        self.client.register_system_shared_memory(name, key, size, headers=self.auth)
        self.addCleanup(self.client.unregister_system_shared_memory, name, headers=self.auth)
        return handle, key

    def status(self, name=""):
        return dict(self.client.get_system_shared_memory_status(name, headers=self.auth).regions)

    def test_register_and_forget(self):
        _, key = self.region("grpc_first", 64)
        self.region("grpc_second", 32)
        first = self.status("grpc_first")["grpc_first"]
        self.assertEqual((first.name, first.key, first.offset, first.byte_size), ("grpc_first", key, 0, 64))
        self.assertLessEqual({"grpc_first", "grpc_second"}, set(self.status()))
        self.client.unregister_system_shared_memory("grpc_first", headers=self.auth)
        self.refused("NOT_FOUND", "Unable to find shared memory region: 'grpc_first'", call=lambda: self.status("grpc_first"))
        bad = lambda: self.client.register_system_shared_memory("bad", "/plinth_none", 64, headers=self.auth)
        self.refused("INVALID_ARGUMENT", "failed to register shared memory region 'bad'", call=bad)

    def test_there_and_back(self):
        values = np.random.default_rng(5).standard_normal((256, 1024)).astype(np.float32)
        size = values.nbytes
        handle, _ = self.region("grpc_io", 2 * size)
        shm.set_shared_memory_region(handle, [values])
        given = triton.InferInput("x", list(values.shape), "FP32")
        given.set_shared_memory("grpc_io", size)
        wished = triton.InferRequestedOutput("y")
        wished.set_shared_memory("grpc_io", size, offset=size)
        result = self.infer("identity_fp32", [given], outputs=[wished])
        self.assertEqual(list(result.get_response().raw_output_contents), [b""])
        self.assertEqual(result.get_output("y").parameters["shared_memory_byte_size"].int64_param, size)
        np.testing.assert_array_equal(shm.get_contents_as_numpy(handle, np.float32, list(values.shape), offset=size), values)

    def test_beside_raw_contents(self):
        inputs, first = simple_inputs()
        handle, _ = self.region("grpc_mixed", first.nbytes)
        shm.set_shared_memory_region(handle, [first])
        shared = triton.InferInput("INPUT0", [1, 4], "FP32")
        shared.set_shared_memory("grpc_mixed", first.nbytes)
        for order in ([shared, inputs[1]], [inputs[1], shared]):
            np.testing.assert_array_equal(self.infer("simple", order).as_numpy("OUTPUT0"), first + 1)


def main():
    global URL, KEY
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True)
    parser.add_argument("--key", default=os.environ.get("PLINTH_API_KEY"))
    options, rest = parser.parse_known_args()
    URL = options.url
    KEY = options.key
    unittest.main(argv=[sys.argv[0], *rest])


if __name__ == "__main__":
    main()
