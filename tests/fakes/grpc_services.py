"""gRPC services of Google's on the loopback, for a client in another process.

The client is Google's own, unchanged: it reaches its host, such as us-central1-aiplatform.googleapis.com, through the
simulator's proxy (gcs_simulator.py), which passes the connection on to here. The messages are the ones of the service's
own package; a request that does not parse as one is refused.

  get = Method(GetCustomJobRequest, [a job that runs, a job that has succeeded])
  with grpc_services.serving(simulator, hosts, {"/google.cloud.aiplatform.v1.JobService/GetCustomJob": get}) as server:
      run the client with simulator.environment()
      assert server.requests("GetCustomJob") == [...]

The answers of a method are given one after another, the last one again to every later call. An answer is
  a message         sent
  a function        called with the request; what it returns is the answer
  a Refusal         a status such as RESOURCE_EXHAUSTED, with words; a connection that breaks is UNAVAILABLE to a client
  a Hang            nothing, for so many seconds, or until the client has given up
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
    words: str
    reason: str = ""  # the service's own word, such as SERVICE_DISABLED, sent as google.rpc.ErrorInfo


@dataclass(frozen=True)
class Hang:
    seconds: float


Answer = Any  # a message of proto-plus or of protobuf, a Refusal, a Hang, or a function from a request to one of these


@dataclass
class Method:
    request: type  # of proto-plus or protobuf
    answers: Sequence[Answer]
    asked: list[Any] = field(default_factory=list)  # the requests, as they came

    def next(self, request: Any) -> Answer:
        """The answer to this request, which is kept."""
        self.asked.append(request)
        answer = self.answers[min(len(self.asked), len(self.answers)) - 1]
        return answer(request) if isinstance(answer, Callable) else answer


@dataclass
class Server(grpc.GenericRpcHandler):
    methods: Mapping[str, Method]  # by path: /package.Service/Method
    lock: threading.Lock = field(default_factory=threading.Lock)

    def requests(self, name: str) -> list[Any]:
        """What a method, named by the end of its path, was asked, in order."""
        (method,) = (method for path, method in self.methods.items() if path.endswith(f"/{name}"))
        with self.lock:
            return list(method.asked)

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        method = self.methods.get(details.method)
        if method is None:
            return None  # UNIMPLEMENTED, with the method's name

        def answer(request: Any, context: grpc.ServicerContext) -> Any:
            with self.lock:
                given = method.next(request)
            if isinstance(given, Hang):
                gone = threading.Event()
                context.add_callback(gone.set)
                gone.wait(given.seconds)
                context.abort(grpc.StatusCode.UNAVAILABLE, "after a silence")
            if isinstance(given, Refusal):
                if given.reason:
                    context.set_trailing_metadata([("grpc-status-details-bin", _details(given))])
                context.abort(given.code, given.words)
            return given

        return grpc.unary_unary_rpc_method_handler(answer, _parser(method.request), _bytes)


def _details(refusal: Refusal) -> bytes:
    status = status_pb2.Status(code=refusal.code.value[0], message=refusal.words)
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=refusal.reason, domain="googleapis.com"))
    return status.SerializeToString()


def _parser(kind: type) -> Callable[[bytes], Any]:
    return kind.deserialize if hasattr(kind, "deserialize") else kind.FromString


def _bytes(message: Any) -> bytes:
    return message.SerializeToString() if hasattr(message, "SerializeToString") else type(message).serialize(message)


@contextlib.contextmanager
def serving(simulator: gcs.Simulator, hosts: Sequence[str], methods: Mapping[str, Method]) -> Iterator[Server]:
    """The methods behind every one of `hosts`, over TLS, for as long as the block lasts."""
    pem = (simulator.folder / "server.pem").read_bytes()
    cut = pem.index(b"-----BEGIN CERTIFICATE")
    service = Server(methods)
    server = grpc.server(futures.ThreadPoolExecutor(8), handlers=[service])
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(pem[:cut], pem[cut:])]))
    server.start()
    simulator.control("tunnels", dict.fromkeys(hosts, port))
    try:
        yield service
    finally:
        simulator.control("tunnels", {})
        server.stop(0).wait()
