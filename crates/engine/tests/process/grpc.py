"""The gRPC form of the protocol, served by the stubs of the public client package: what the tests of the process backend start."""

import sys
import time
from concurrent import futures

import grpc
import numpy
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as rpc


class Service(rpc.GRPCInferenceServiceServicer):
    def ModelReady(self, request, context):
        return pb.ModelReadyResponse(ready=request.name == "m")

    def ModelMetadata(self, request, context):
        answer = pb.ModelMetadataResponse(name="m", platform="stub")
        for name, datatype in [("x", "FP32"), ("s", "BYTES")]:
            answer.inputs.add(name=name, datatype=datatype, shape=[-1])
        answer.outputs.add(name="y", datatype="FP32", shape=[-1])
        answer.outputs.add(name="t", datatype="BYTES", shape=[-1])
        return answer

    def ModelInfer(self, request, context):
        deed = request.parameters["deed"].string_param
        if deed == "refuse":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "100% wrong é")
        if deed == "full":
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
        if deed == "sleep":
            left = context.time_remaining()
            assert left is not None and left < 10
            time.sleep(30)
        names = [tensor.name for tensor in request.inputs]
        x = numpy.frombuffer(request.raw_input_contents[names.index("x")], dtype="<f4")
        answer = pb.ModelInferResponse(model_name="m")
        answer.outputs.add(name="y", datatype="FP32", shape=[len(x)])
        answer.outputs.add(name="t", datatype="BYTES", shape=[1])
        if deed == "typed":
            answer.outputs[0].contents.fp32_contents.extend((x + 1).tolist())
            answer.outputs[1].contents.bytes_contents.append(b"typed")
        else:
            answer.raw_output_contents.append((x + 1).astype("<f4").tobytes())
            answer.raw_output_contents.append(request.raw_input_contents[names.index("s")])
        return answer


limits = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
server = grpc.server(futures.ThreadPoolExecutor(8), options=limits)
rpc.add_GRPCInferenceServiceServicer_to_server(Service(), server)
server.add_insecure_port("127.0.0.1:" + sys.argv[1])
server.start()
server.wait_for_termination()
