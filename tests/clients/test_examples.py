"""The example programs of Triton's public client, said again: one test for each, with the same calls and the same checks.

    test_examples.py --http 127.0.0.1:8000 --grpc 127.0.0.1:8001 [unittest's options]

The programs themselves belong to their repository and need a network to be fetched; run_examples.py runs those. Each test is named after the
program that it repeats. The node must be open (`--dev`), call itself `triton`, allow shared memory, and serve the models that make_models.py
makes, each under the name of its directory. Not here, with the reasons in docs/compatibility.md: CUDA's shared memory, decoupled models.
"""

import argparse
import asyncio
import functools
import queue
import sys
import unittest
import uuid

import grpc as plain_grpc
import numpy as np
import tritonclient.grpc as grpc
import tritonclient.grpc.aio as grpc_aio
import tritonclient.http as http
import tritonclient.http.aio as http_aio
import tritonclient.utils as utils
import tritonclient.utils.shared_memory as shm
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

import make_models

HTTP = None
GRPC = None
# How long a test waits for what comes by itself.
SOON = 30

FIRST = np.arange(16, dtype=np.int32).reshape(1, 16)
ONES = np.ones((1, 16), dtype=np.int32)


def texts(numbers):
    return np.array([str(n).encode() for n in numbers.flatten()], dtype=np.object_).reshape(numbers.shape)


def simple_inputs(client, second=ONES, binary=None):
    """INPUT0 and INPUT1; over HTTP each as bytes or as JSON, as `binary` says."""
    inputs = [client.InferInput("INPUT0", [1, 16], "INT32"), client.InferInput("INPUT1", [1, 16], "INT32")]
    for at, (tensor, values) in enumerate(zip(inputs, (FIRST, second))):
        tensor.set_data_from_numpy(values, **({"binary_data": binary[at]} if binary else {}))
    return inputs


def simple_outputs(client, binary=None):
    options = [{"binary_data": b} for b in binary] if binary else [{}, {}]
    return [client.InferRequestedOutput(name, **option) for name, option in zip(("OUTPUT0", "OUTPUT1"), options)]


class Case(unittest.TestCase):
    def http_client(self, **options):
        client = http.InferenceServerClient(HTTP, **options)
        self.addCleanup(client.close)
        return client

    def grpc_client(self, **options):
        client = grpc.InferenceServerClient(GRPC, **options)
        self.addCleanup(client.close)
        return client

    def stub(self):
        channel = plain_grpc.insecure_channel(GRPC)
        self.addCleanup(channel.close)
        return service_pb2_grpc.GRPCInferenceServiceStub(channel)

    def assert_simple(self, result, second=ONES):
        np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), FIRST + second)
        np.testing.assert_array_equal(result.as_numpy("OUTPUT1"), FIRST - second)

    def refused(self, text, call):
        with self.assertRaises(InferenceServerException) as caught:
            call()
        self.assertIn(text, caught.exception.message())
        return caught.exception


class Health(Case):
    def test_simple_http_health_metadata(self):
        client, query = self.http_client(), {"test_1": 1, "test_2": 2}
        self.assertTrue(client.is_server_live(query_params=query))
        self.assertTrue(client.is_server_ready())
        self.assertTrue(client.is_model_ready("simple"))
        self.assertEqual(client.get_server_metadata()["name"], "triton")
        self.assertEqual(client.get_model_metadata("simple", query_params=query)["name"], "simple")
        self.refused("Request for unknown model", lambda: client.get_model_metadata("wrong_model_name"))

    def test_simple_grpc_health_metadata(self):
        client, headers = self.grpc_client(), {"test": "1", "dummy": "2"}
        self.assertTrue(client.is_server_live(headers=headers))
        self.assertTrue(client.is_server_ready())
        self.assertTrue(client.is_model_ready("simple"))
        self.assertEqual(client.get_server_metadata().name, "triton")
        self.assertEqual(client.get_model_metadata("simple", headers=headers).name, "simple")
        self.refused("Request for unknown model", lambda: client.get_model_metadata("wrong_model_name"))
        self.assertEqual(client.get_model_config("simple").config.name, "simple")


class ModelControl(Case):
    def control(self, client, index, batch_size):
        """What both programs do; `index` and `batch_size` read what the protocols say differently."""
        # A model that is unloaded would hinder every other test.
        self.addCleanup(client.load_model, "simple")
        self.assertEqual(sorted(index()), sorted(make_models.MODELS))
        client.load_model("simple")
        self.assertTrue(client.is_model_ready("simple"))
        broken = '"parameters": {"config": {{"max_batch_size": "16"}}}'
        self.refused("failed to load", lambda: client.load_model("simple", config=broken))
        client.load_model("simple", config='{"max_batch_size":"16"}')
        self.assertEqual(batch_size(), 16)
        client.unload_model("simple")
        self.assertFalse(client.is_model_ready("simple"))
        self.refused("failed to load", lambda: client.load_model("wrong_model_name"))

    def test_simple_http_model_control(self):
        client = self.http_client()
        self.control(
            client,
            index=lambda: [model["name"] for model in client.get_model_repository_index()],
            batch_size=lambda: client.get_model_config("simple")["max_batch_size"],
        )

    def test_simple_grpc_model_control(self):
        client = self.grpc_client()
        self.control(
            client,
            index=lambda: [model.name for model in client.get_model_repository_index().models],
            batch_size=lambda: client.get_model_config("simple").config.max_batch_size,
        )
        # The program says itself that INTERNAL is not the right status for this. What matters is that the node lives.
        files = {"file:" + "A" * 256: b"a"}
        refused = self.refused("failed to poll from model repository", lambda: client.load_model("simple", config="{}", files=files))
        self.assertEqual(refused.status(), "StatusCode.INTERNAL")
        self.assertTrue(client.is_server_live())


class Infer(Case):
    def test_simple_http_infer_client(self):
        client, second = self.http_client(), -ONES
        inputs = simple_inputs(http, second, binary=(False, True))
        for asked, answered in [(None, None), ("gzip", "deflate"), ("deflate", "gzip")]:
            for outputs in (simple_outputs(http, binary=(True, False)), None):
                with self.subTest(request=asked, response=answered, outputs=outputs is not None):
                    options = {"request_compression_algorithm": asked, "response_compression_algorithm": answered}
                    result = client.infer("simple", inputs, outputs=outputs, query_params={"test_1": 1, "test_2": 2}, **options)
                    self.assert_simple(result, second)
        self.assertEqual(len(client.get_inference_statistics("simple")["model_stats"]), 1)
        unknown = self.refused("", lambda: client.infer("wrong_model_name", inputs))
        self.assertTrue(unknown.message().startswith("Request for unknown model"), unknown)

    def test_simple_http_async_infer_client(self):
        client = self.http_client(concurrency=2)
        inputs, outputs = simple_inputs(http, binary=(True, True)), simple_outputs(http, binary=(True, True))
        for request in [client.async_infer("simple", inputs, outputs=outputs) for _ in range(2)]:
            self.assert_simple(request.get_result())

    def test_simple_http_aio_infer_client(self):
        async def talk():
            async with http_aio.InferenceServerClient(HTTP) as client:
                inputs = simple_inputs(http_aio, -ONES, binary=(False, True))
                options = {"query_params": {"test_1": 1, "test_2": 2}}
                outputs = simple_outputs(http_aio, binary=(True, False))
                results = [await client.infer("simple", inputs, outputs=outputs, **options)]
                statistics = await client.get_inference_statistics("simple")
                two = [client.infer("simple", inputs, request_compression_algorithm="gzip", **options) for _ in range(2)]
                return results + await asyncio.gather(*two), statistics

        results, statistics = asyncio.run(talk())
        for result in results:
            self.assert_simple(result, -ONES)
        self.assertEqual(len(statistics["model_stats"]), 1)

    def test_simple_grpc_infer_client(self):
        client, inputs = self.grpc_client(), simple_inputs(grpc)
        for algorithm in (None, "gzip", "deflate"):
            for outputs in (simple_outputs(grpc), None):
                with self.subTest(algorithm=algorithm, outputs=outputs is not None):
                    result = client.infer("simple", inputs, outputs=outputs, headers={"test": "1"}, compression_algorithm=algorithm)
                    self.assert_simple(result)
        self.assertEqual(len(client.get_inference_statistics("simple").model_stats), 1)

    def test_simple_grpc_async_infer_client(self):
        answers = queue.Queue()
        client = self.grpc_client()
        client.async_infer("simple", simple_inputs(grpc), lambda result, error: answers.put((result, error)), outputs=simple_outputs(grpc))
        result, error = answers.get(timeout=SOON)
        self.assertIsNone(error)
        self.assert_simple(result)

    def test_simple_grpc_aio_infer_client(self):
        async def talk():
            async with grpc_aio.InferenceServerClient(GRPC) as client:
                inputs = simple_inputs(grpc_aio)
                results = [await client.infer("simple", inputs, outputs=simple_outputs(grpc_aio), headers={"test": "1"})]
                statistics = await client.get_inference_statistics("simple")
                two = [client.infer("simple", inputs, compression_algorithm="gzip") for _ in range(2)]
                return results + await asyncio.gather(*two), statistics

        results, statistics = asyncio.run(talk())
        for result in results:
            self.assert_simple(result)
        self.assertEqual(len(statistics.model_stats), 1)

    def test_simple_grpc_custom_args_client(self):
        arguments = [
            ("grpc.max_send_message_length", 1 << 20),
            ("grpc.max_receive_message_length", 1 << 20),
            ("grpc.keepalive_time_ms", 2**31 - 1),
            ("grpc.keepalive_timeout_ms", 20000),
            ("grpc.keepalive_permit_without_calls", False),
            ("grpc.http2.max_pings_without_data", 2),
            ("grpc.dns_enable_srv_queries", 1),
        ]
        client = self.grpc_client(channel_args=arguments)
        self.assert_simple(client.infer("simple", simple_inputs(grpc), outputs=simple_outputs(grpc), headers={"test": "1"}))

    def test_simple_grpc_keepalive_client(self):
        # The program's defaults, and pings as often as it can ask for them.
        frequent = {"keepalive_time_ms": 1000, "keepalive_permit_without_calls": True, "http2_max_pings_without_data": 0}
        for options in ({}, frequent):
            client = self.grpc_client(keepalive_options=grpc.KeepAliveOptions(**options))
            self.assert_simple(client.infer("simple", simple_inputs(grpc), outputs=simple_outputs(grpc), headers={"test": "1"}))


class Strings(Case):
    # With a NUL in the middle, and beginning with one.
    ODD = [np.array([["he\x00llo".encode()] * 16], dtype=np.object_), np.array([[b"\x00\x01\x02\x03"] * 16], dtype=np.bytes_)]

    def inputs(self, client, binary=None):
        inputs = [client.InferInput("INPUT0", [1, 16], "BYTES"), client.InferInput("INPUT1", [1, 16], "BYTES")]
        for at, (tensor, numbers) in enumerate(zip(inputs, (FIRST, ONES))):
            tensor.set_data_from_numpy(texts(numbers), **({"binary_data": binary[at]} if binary else {}))
        return inputs

    def assert_numbers(self, result):
        for name, wanted in (("OUTPUT0", FIRST + ONES), ("OUTPUT1", FIRST - ONES)):
            self.assertEqual([int(text) for text in result.as_numpy(name).flatten()], list(wanted.flatten()))

    def assert_same_texts(self, got, wanted):
        self.assertEqual(got.shape, wanted.shape)
        as_bytes = [text.encode() if isinstance(text, str) else text for text in got.flatten()]
        self.assertEqual(as_bytes, list(wanted.flatten()))

    def test_simple_http_string_infer_client(self):
        client = self.http_client()
        outputs = simple_outputs(http, binary=(True, False))
        self.assert_numbers(client.infer("simple_string", self.inputs(http, binary=(True, False)), outputs=outputs))
        for values in self.ODD:
            for binary in (True, False):
                given = http.InferInput("INPUT0", values.shape, "BYTES").set_data_from_numpy(values, binary_data=binary)
                wished = http.InferRequestedOutput("OUTPUT0", binary_data=binary)
                self.assert_same_texts(client.infer("simple_identity", [given], outputs=[wished]).as_numpy("OUTPUT0"), values)

    def test_simple_grpc_string_infer_client(self):
        client = self.grpc_client()
        self.assert_numbers(client.infer("simple_string", self.inputs(grpc), outputs=simple_outputs(grpc)))
        for values in self.ODD:
            given = grpc.InferInput("INPUT0", values.shape, "BYTES").set_data_from_numpy(values)
            result = client.infer("simple_identity", [given], outputs=[grpc.InferRequestedOutput("OUTPUT0")])
            self.assert_same_texts(result.as_numpy("OUTPUT0"), values)


class SharedMemory(Case):
    def clients(self, protocol):
        client, module = (self.http_client(), http) if protocol == "http" else (self.grpc_client(), grpc)
        client.unregister_system_shared_memory()
        client.unregister_cuda_shared_memory()
        self.addCleanup(client.unregister_system_shared_memory)
        return client, module

    def region(self, client, name, size, data=()):
        """A region with these arrays one after another, registered."""
        # The key holds the test's name, so that tests that are run beside each other do not meet.
        key = f"/{name}_{self._testMethodName}_{uuid.uuid4().hex[:8]}"
        handle = shm.create_shared_memory_region(name, key, size)
        self.addCleanup(shm.destroy_shared_memory_region, handle)
        offset = 0
        for array in data:
            shm.set_shared_memory_region(handle, [array], offset=offset)
            offset += array.nbytes
        client.register_system_shared_memory(name, key, size)
        return handle

    def contents(self, result, name, handle, offset=0):
        output = result.get_output(name)
        self.assertIsNotNone(output)
        datatype, shape = (output["datatype"], output["shape"]) if isinstance(output, dict) else (output.datatype, output.shape)
        return np.array(shm.get_contents_as_numpy(handle, utils.triton_to_np_dtype(datatype), shape, offset=offset))

    def numbers(self, protocol):
        client, module = self.clients(protocol)
        size = FIRST.nbytes
        out = self.region(client, "output_data", 2 * size)
        self.region(client, "input_data", 2 * size, [FIRST, ONES])
        inputs = [module.InferInput(name, [1, 16], "INT32") for name in ("INPUT0", "INPUT1")]
        outputs = [module.InferRequestedOutput(name) for name in ("OUTPUT0", "OUTPUT1")]
        inputs[0].set_shared_memory("input_data", size)
        inputs[1].set_shared_memory("input_data", size, offset=size)
        outputs[0].set_shared_memory("output_data", size)
        outputs[1].set_shared_memory("output_data", size, offset=size)
        result = client.infer("simple", inputs, outputs=outputs)
        np.testing.assert_array_equal(self.contents(result, "OUTPUT0", out), FIRST + ONES)
        np.testing.assert_array_equal(self.contents(result, "OUTPUT1", out, offset=size), FIRST - ONES)
        status = client.get_system_shared_memory_status()
        regions = status if protocol == "http" else status.regions.values()
        named = {region["name"] if protocol == "http" else region.name for region in regions}
        self.assertEqual(named, {"input_data", "output_data"})
        client.unregister_system_shared_memory()
        status = client.get_system_shared_memory_status()
        self.assertFalse(status if protocol == "http" else status.regions)

    def strings(self, protocol):
        client, module = self.clients(protocol)
        sides = {"INPUT0": texts(FIRST), "INPUT1": texts(ONES), "OUTPUT0": texts(FIRST + ONES), "OUTPUT1": texts(FIRST - ONES)}
        handles, inputs, outputs = {}, [], []
        for name, values in sides.items():
            serialized = utils.serialize_byte_tensor(values)
            size = utils.serialized_byte_size(serialized)
            handles[name] = self.region(client, f"{name.lower()}_data", size)
            if name.startswith("INPUT"):
                shm.set_shared_memory_region(handles[name], [serialized])
                inputs.append(module.InferInput(name, [1, 16], "BYTES"))
            else:
                outputs.append(module.InferRequestedOutput(name))
            (inputs if name.startswith("INPUT") else outputs)[-1].set_shared_memory(f"{name.lower()}_data", size)
        result = client.infer("simple_string", inputs, outputs=outputs)
        for name in ("OUTPUT0", "OUTPUT1"):
            self.assertEqual(list(self.contents(result, name, handles[name]).flatten()), list(sides[name].flatten()))

    def reuse(self, protocol):
        """The same objects of the client with shared memory, without, and with again."""
        client, module = self.clients(protocol)
        size = FIRST.nbytes
        handles = [self.region(client, f"output{i}_data", size) for i in (0, 1)]
        for i, values in enumerate((FIRST, ONES)):
            self.region(client, f"input{i}_data", size, [values])
        inputs = [module.InferInput(name, [1, 16], "INT32") for name in ("INPUT0", "INPUT1")]
        outputs = [module.InferRequestedOutput(name) for name in ("OUTPUT0", "OUTPUT1")]
        for shared in (True, False, True):
            second = ONES if shared else ONES * 2
            for i, values in enumerate((FIRST, second)):
                if shared:
                    inputs[i].set_shared_memory(f"input{i}_data", size)
                    outputs[i].set_shared_memory(f"output{i}_data", size)
                else:
                    inputs[i].set_data_from_numpy(values)
                    outputs[i].unset_shared_memory()
            result = client.infer("simple", inputs, outputs=outputs)
            if not shared:
                self.assert_simple(result, second)
                continue
            np.testing.assert_array_equal(self.contents(result, "OUTPUT0", handles[0]), FIRST + ONES)
            np.testing.assert_array_equal(self.contents(result, "OUTPUT1", handles[1]), FIRST - ONES)

    def test_simple_http_shm_client(self):
        self.numbers("http")

    def test_simple_grpc_shm_client(self):
        self.numbers("grpc")

    def test_simple_http_shm_string_client(self):
        self.strings("http")

    def test_simple_grpc_shm_string_client(self):
        self.strings("grpc")

    def test_reuse_infer_objects_client(self):
        for protocol in ("http", "grpc"):
            with self.subTest(protocol):
                self.reuse(protocol)


class Sequences(Case):
    """Two sequences with numbers for ids and one with a text, of a model that adds one to the first request; and of those
    with `--dyna`, which add the id to the last, where the one with texts sums up."""

    VALUES = [11, 7, 5, 3, 2, 0, 1]

    def sequences(self, dyna, offset):
        """(id, model, values) of each, with what is expected."""
        model = "simple_dyna_sequence" if dyna else "simple_sequence"
        first, second = 1000 + 2 * offset, 1001 + 2 * offset
        # A uuid fits no model that is told the id as a number.
        third = str(1002 + 2 * offset) if dyna else str(uuid.uuid4())
        negative = [-v for v in self.VALUES]
        plain = [(first, model, [0] + self.VALUES), (second, model, [100] + negative)]
        expected = [[values[0] + 1, *values[1:-1], values[-1] + (at if dyna else 0)] for at, _, values in plain]
        values = [20] + negative
        if dyna:
            sums = [int(n) for n in np.cumsum(values)]
            return [*plain, (third, "simple_string_dyna_sequence", values)], [*expected, sums[:-1] + [sums[-1] + int(third)]]
        return [*plain, (third, model, values)], [*expected, [21, *negative]]

    def requests(self, client, sequences):
        for at, model, values in sequences:
            for i, value in enumerate(values):
                given = client.InferInput("INPUT", [1, 1], "INT32").set_data_from_numpy(np.full((1, 1), value, dtype=np.int32))
                yield {
                    "model_name": model,
                    "inputs": [given],
                    "outputs": [client.InferRequestedOutput("OUTPUT")],
                    "request_id": f"{at}_{i + 1}",
                    "sequence_id": at,
                    "sequence_start": i == 0,
                    "sequence_end": i + 1 == len(values),
                }

    def each(self, offset, talk):
        """Runs `talk` with both kinds; it gives (id of the request, result) in any order between sequences."""
        for dyna in (False, True):
            with self.subTest(dyna=dyna):
                sequences, expected = self.sequences(dyna, offset)
                got = {str(at): [] for at, _, _ in sequences}
                for name, result in talk(sequences):
                    got[name.split("_")[0]].append(int(result.as_numpy("OUTPUT")[0][0]))
                self.assertEqual(list(got.values()), expected)

    def test_simple_http_sequence_sync_infer_client(self):
        client = self.http_client()
        self.each(10, lambda sequences: [(r["request_id"], client.infer(**r)) for r in self.requests(http, sequences)])

    def test_simple_grpc_sequence_sync_infer_client(self):
        client = self.grpc_client()
        self.each(20, lambda sequences: [(r["request_id"], client.infer(**r)) for r in self.requests(grpc, sequences)])

    def test_simple_grpc_sequence_stream_infer_client(self):
        def talk(sequences):
            answers = queue.Queue()
            with grpc.InferenceServerClient(GRPC) as client:
                client.start_stream(callback=lambda result, error: answers.put((result, error)))
                requests = list(self.requests(grpc, sequences))
                for request in requests:
                    client.async_stream_infer(**request)
                for _ in requests:
                    result, error = answers.get(timeout=SOON)
                    self.assertIsNone(error)
                    yield result.get_response().id, result

        self.each(30, talk)

    def test_simple_grpc_aio_sequence_stream_infer_client(self):
        async def stream(sequences):
            async def requests():
                for request in self.requests(grpc_aio, sequences):
                    yield request

            answers = []
            async with grpc_aio.InferenceServerClient(GRPC) as client:
                async for result, error in client.stream_infer(inputs_iterator=requests()):
                    self.assertIsNone(error)
                    answers.append((result.get_response().id, result))
            return answers

        self.each(40, lambda sequences: asyncio.run(stream(sequences)))


class Stub(Case):
    """Messages made by hand, without the client's own classes."""

    def request(self, model, datatype, field, first, second):
        request = service_pb2.ModelInferRequest(model_name=model)
        for name, values in (("INPUT0", first), ("INPUT1", second)):
            tensor = request.inputs.add(name=name, datatype=datatype, shape=[1, 16])
            getattr(tensor.contents, field).extend(values)
        for name in ("OUTPUT0", "OUTPUT1"):
            request.outputs.add(name=name)
        return request

    def answer(self, request, read):
        response = self.stub().ModelInfer(request)
        self.assertEqual([output.name for output in response.outputs], ["OUTPUT0", "OUTPUT1"])
        return [[int(n) for n in read(raw)] for raw in response.raw_output_contents]

    def wrong(self, request, text):
        with self.assertRaises(plain_grpc.RpcError) as caught:
            self.stub().ModelInfer(request)
        self.assertIn(text, caught.exception.details())

    def numbers(self, model, datatype, dtype):
        request = self.request(model, datatype, "int_contents", range(16), [1] * 16)
        answer = self.answer(request, functools.partial(np.frombuffer, dtype=dtype))
        self.assertEqual(answer, [[i + 1 for i in range(16)], [i - 1 for i in range(16)]])
        return request

    def test_grpc_explicit_int_content_client(self):
        request = self.numbers("simple", "INT32", np.int32)
        request.raw_input_contents.append(np.arange(8).tobytes())
        self.wrong(request, "contents field must not be specified when using raw_input_contents for 'INPUT0' for model 'simple'")

    def test_grpc_explicit_int8_content_client(self):
        request = self.numbers("simple_int8", "INT8", np.int8)
        request.model_version = "wrong_specification"
        self.wrong(request, "failed to get model version from specified version string 'wrong_specification'")

    def test_grpc_explicit_byte_content_client(self):
        request = self.request("simple_string", "BYTES", "bytes_contents", [str(i).encode() for i in range(16)], [b"1"] * 16)
        answer = self.answer(request, utils.deserialize_bytes_tensor)
        self.assertEqual(answer, [[i + 1 for i in range(16)], [i - 1 for i in range(16)]])

    def test_grpc_client(self):
        stub, name = self.stub(), make_models.PICTURES
        self.assertTrue(stub.ServerLive(service_pb2.ServerLiveRequest()).live)
        self.assertTrue(stub.ServerReady(service_pb2.ServerReadyRequest()).ready)
        self.assertTrue(stub.ModelReady(service_pb2.ModelReadyRequest(name=name)).ready)
        self.assertTrue(stub.ServerMetadata(service_pb2.ServerMetadataRequest()).version)
        self.assertEqual(stub.ModelMetadata(service_pb2.ModelMetadataRequest(name=name)).name, name)
        self.assertEqual(stub.ModelConfig(service_pb2.ModelConfigRequest(name=name)).config.name, name)
        request = service_pb2.ModelInferRequest(model_name=name, id="my request id", raw_input_contents=[b"a" * 602112])
        request.inputs.add(name="data_0", datatype="FP32", shape=[3, 224, 224])
        request.outputs.add(name="fc6_1")
        response = stub.ModelInfer(request)
        self.assertEqual((response.id, list(response.outputs[0].shape)), ("my request id", [1000]))


class Pictures(Case):
    """image_client.py without its picture files: what it asks of the model's description, and classes for an answer."""

    def test_image_client(self):
        picture = np.zeros((3, 224, 224), dtype=np.float32)
        picture[1], picture[2] = 2.0, 1.0
        name = make_models.PICTURES
        for client, module in ((self.http_client(), http), (self.grpc_client(), grpc)):
            metadata = client.get_model_metadata(name)
            config = client.get_model_config(name)
            if module is http:
                shape, form = metadata["inputs"][0]["shape"], config["input"][0]["format"]
            else:
                shape, form = list(metadata.inputs[0].shape), "FORMAT_NCHW" if config.config.input[0].format == 2 else None
            self.assertEqual((shape, form), ([3, 224, 224], "FORMAT_NCHW"))
            given = module.InferInput("data_0", [3, 224, 224], "FP32").set_data_from_numpy(picture)
            wished = module.InferRequestedOutput("fc6_1", class_count=2)
            result = client.infer(name, [given], outputs=[wished], request_id="1")
            classes = [text.decode().split(":") for text in result.as_numpy("fc6_1")]
            self.assertEqual([(c[1], c[2]) for c in classes], [("1", "green"), ("2", "blue")])
            if module is grpc:
                answers = queue.Queue()
                client.start_stream(lambda result, error: answers.put((result, error)))
                client.async_stream_infer(name, [given], request_id="2", outputs=[wished])
                result, error = answers.get(timeout=SOON)
                client.stop_stream()
                self.assertIsNone(error)
                self.assertEqual(len(result.as_numpy("fc6_1")), 2)


def main():
    global HTTP, GRPC
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--http", required=True)
    parser.add_argument("--grpc", required=True)
    options, rest = parser.parse_known_args()
    HTTP, GRPC = options.http.removeprefix("http://"), options.grpc
    unittest.main(argv=[sys.argv[0], *rest])


if __name__ == "__main__":
    main()
