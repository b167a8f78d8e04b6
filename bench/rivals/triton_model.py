"""Any ONNX model with one input that begins with its batch, in Triton's Python backend: one call for a whole batch."""
import json
import os
import sys

sys.path.insert(0, os.environ["PLINTH_BENCH_SITE"])

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        self.input = config["input"][0]["name"]
        self.outputs = [output["name"] for output in config["output"]]
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = os.path.join(args["model_repository"], args["model_version"], "model.onnx")
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def execute(self, requests):
        inputs = [pb.get_input_tensor_by_name(request, self.input).as_numpy() for request in requests]
        batch = inputs[0] if len(inputs) == 1 else np.concatenate(inputs)
        results = self.session.run(self.outputs, {self.input: batch})
        responses, row = [], 0
        for one in inputs:
            end = row + len(one)
            tensors = [pb.Tensor(name, result[row:end]) for name, result in zip(self.outputs, results)]
            responses.append(pb.InferenceResponse(tensors))
            row = end
        return responses
