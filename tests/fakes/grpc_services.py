"""Google's gRPC services on the loopback, for a client in another process.

The client is Google's own, unchanged. It reaches its host, such as us-central1-aiplatform.googleapis.com, through the
simulator's proxy (gcs_simulator.py), which forwards the connection to this server. The messages are those of the
service's own package: a request that does not parse as one is refused.

  get = Method(GetCustomJobRequest, [a job that runs, a job that has succeeded])
  with grpc_services.serving(simulator, hosts, {"/google.cloud.aiplatform.v1.JobService/GetCustomJob": get}) as server:
      run the client with simulator.environment()
      assert server.requests("GetCustomJob") == [...]

A method gives its answers in order, and the last one again to every later call. An answer is
  a message         It is sent.
  a function        It is called with the request, and returns the answer.
  a Refusal         A status such as RESOURCE_EXHAUSTED, with a message. UNAVAILABLE is like a broken connection.
  a Hang            No reply for so many seconds, or until the client has given up.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any

import grpc
from fakes import gcs
from google.rpc import error_details_pb2, status_pb2


@dataclass(frozen=True)
class Refusal:
    code: grpc.StatusCode
    message: str
    reason: str = ""  # Such as SERVICE_DISABLED. It is sent as google.rpc.ErrorInfo.


@dataclass(frozen=True)
class Hang:
    seconds: float


Answer = Any  # A message of proto-plus or protobuf, a Refusal, a Hang, or a function from a request to one of these.


@dataclass
class Method:
    request: type  # A message of proto-plus or protobuf.
    answers: Sequence[Answer]
    received: list[Any] = field(default_factory=list)  # The requests, in order.

    def next(self, request: Any) -> Answer:
        """Record a request, and return its answer."""
        self.received.append(request)
        answer = self.answers[min(len(self.received), len(self.answers)) - 1]
        return answer(request) if isinstance(answer, Callable) else answer


@dataclass
class Server(grpc.GenericRpcHandler):
    methods: Mapping[str, Method]  # By path: /package.Service/Method.
    lock: threading.Lock = field(default_factory=threading.Lock)

    def requests(self, name: str) -> list[Any]:
        """The requests to the method whose path ends with this name, in order."""
        (method,) = (method for path, method in self.methods.items() if path.endswith(f"/{name}"))
        with self.lock:
            return list(method.received)

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        method = self.methods.get(details.method)
        if method is None:
            return None  # The client gets UNIMPLEMENTED, with the method's name.

        def handle(request: Any, context: grpc.ServicerContext) -> Any:
            with self.lock:
                answer = method.next(request)
            if isinstance(answer, Hang):
                gone = threading.Event()
                context.add_callback(gone.set)
                gone.wait(answer.seconds)
                context.abort(grpc.StatusCode.UNAVAILABLE, "after a silence")
            if isinstance(answer, Refusal):
                if answer.reason:
                    context.set_trailing_metadata([("grpc-status-details-bin", _details(answer))])
                context.abort(answer.code, answer.message)
            return answer

        return grpc.unary_unary_rpc_method_handler(handle, _parser(method.request), _bytes)


def _details(refusal: Refusal) -> bytes:
    status = status_pb2.Status(code=refusal.code.value[0], message=refusal.message)
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=refusal.reason, domain="googleapis.com"))
    return status.SerializeToString()


def _parser(kind: type) -> Callable[[bytes], Any]:
    return kind.deserialize if hasattr(kind, "deserialize") else kind.FromString


def _bytes(message: Any) -> bytes:
    return message.SerializeToString() if hasattr(message, "SerializeToString") else type(message).serialize(message)


@contextlib.contextmanager
def serving(simulator: gcs.Simulator, hosts: Sequence[str], methods: Mapping[str, Method]) -> Iterator[Server]:
    """Serve the methods at every one of `hosts`, over TLS, while the block lasts."""
    pem = (simulator.folder / "server.pem").read_bytes()
    key_end = pem.index(b"-----BEGIN CERTIFICATE")
    service = Server(methods)
    server = grpc.server(futures.ThreadPoolExecutor(8), handlers=[service])
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(pem[:key_end], pem[key_end:])]))
    server.start()
    simulator.control("tunnels", dict.fromkeys(hosts, port))
    try:
        yield service
    finally:
        simulator.control("tunnels", {})
        server.stop(0).wait()
