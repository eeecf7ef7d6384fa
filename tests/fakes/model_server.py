"""A server with TensorFlow Serving's REST and gRPC interfaces. The registry has no package of the server itself.

https://www.tensorflow.org/tfx/serving/api_rest has the rules. The export's own signature computes the replies, from the
tensors of the request.
"""

import contextlib
import json
import threading
from collections.abc import Iterator
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

NAME = "model"


class InvalidRequest(ValueError):
    """A request that the server answers with 400, or INVALID_ARGUMENT."""


def run(signature, tensors: dict[str, tf.Tensor]) -> dict[str, np.ndarray]:
    names = set(signature.structured_input_signature[1])
    if set(tensors) != names:
        raise InvalidRequest(f"inputs must be {sorted(names)}, not {sorted(tensors)}")
    return {name: value.numpy() for name, value in signature(**tensors).items()}


def to_json(value: np.ndarray):
    """A value of JSON: text for strings, numbers for numbers."""
    return np.char.decode(value.astype(bytes), "utf-8").tolist() if value.dtype == object else value.tolist()


def rest(signature, body: dict) -> dict:
    """The reply to the body of a REST request, both as JSON values."""
    unknown = set(body) - {"signature_name", "instances", "inputs"}
    if (
        unknown
        or ("instances" in body) == ("inputs" in body)
        or body.get("signature_name") not in (None, "serving_default")
    ):
        raise InvalidRequest("a request has instances or inputs, and perhaps the name of an existing signature")
    names = sorted(signature.structured_input_signature[1])
    if "inputs" in body:
        columns = body["inputs"] if isinstance(body["inputs"], dict) else {names[0]: body["inputs"]}
    else:
        rows = [row if isinstance(row, dict) else {names[0]: row} for row in body["instances"]]
        if len({frozenset(row) for row in rows}) != 1:
            raise InvalidRequest("every instance has the same inputs")
        columns = {name: [row[name] for row in rows] for name in rows[0]}
    outputs = {
        name: to_json(value)
        for name, value in run(signature, {n: tf.constant(c, tf.string) for n, c in columns.items()}).items()
    }
    if "inputs" in body:
        return {"outputs": outputs}
    return {"predictions": [dict(zip(outputs, row, strict=True)) for row in zip(*outputs.values(), strict=True)]}


def predict(signature, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
    response = predict_pb2.PredictResponse(model_spec=request.model_spec)
    tensors = {name: tf.constant(tf.make_ndarray(proto)) for name, proto in request.inputs.items()}
    for name, value in run(signature, tensors).items():
        response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
    return response


@contextlib.contextmanager
def running(signature) -> Iterator[tuple[int, int]]:
    """Serve while the block lasts: (the port of REST, the port of gRPC)."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path != f"/v1/models/{NAME}:predict":
                status, reply = 404, {"error": "Servable not found for request: Latest(...)"}
            else:
                try:
                    status, reply = 200, rest(signature, json.loads(body))
                except ValueError as error:
                    status, reply = 400, {"error": str(error)}
            data = json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_) -> None:
            pass

    class Servicer(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):  # noqa: N802
            if request.model_spec.name != NAME:
                context.abort(grpc.StatusCode.NOT_FOUND, "Servable not found")
            try:
                return predict(signature, request)
            except InvalidRequest as error:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Servicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield http.server_address[1], port
    finally:
        server.stop(None)
        http.shutdown()
