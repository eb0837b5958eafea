"""A client of any gRPC server that serves reflection; it knows nothing of skep.

    reflect.py ADDRESS list                         services and their methods
    reflect.py ADDRESS call SERVICE/METHOD JSON     one call; answers as JSON, one a line
    reflect.py ADDRESS generate DIR                 Python code of all its services
"""

import pathlib
import subprocess
import sys
import tempfile

import grpc
from google.protobuf import descriptor_pb2, json_format, message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

# What every server has beside its own.
COMMON = ("grpc.reflection.", "grpc.health.")


def connect(address):
    # Of a UNIX socket grpc would send the path as the authority, which HTTP/2 does not allow: the server resets the stream.
    return grpc.insecure_channel(address, options=[("grpc.default_authority", "localhost")])


class Server:
    def __init__(self, address):
        self.channel = connect(address)
        self.database = ProtoReflectionDescriptorDatabase(self.channel)
        self.pool = DescriptorPool(self.database)

    def services(self):
        names = [name for name in self.database.get_services() if not name.startswith(COMMON)]
        return [self.pool.FindServiceByName(name) for name in sorted(names)]

    def call(self, path, text):
        service, name = path.split("/")
        method = self.pool.FindServiceByName(service).FindMethodByName(name)
        if method is None:
            raise SystemExit(f"{service} has no method {name}")
        request = json_format.Parse(text, message_factory.GetMessageClass(method.input_type)(), descriptor_pool=self.pool)
        answer = message_factory.GetMessageClass(method.output_type)
        kind = ("stream" if method.client_streaming else "unary") + ("_stream" if method.server_streaming else "_unary")
        make = getattr(self.channel, kind)
        ask = make(f"/{path}", request_serializer=lambda m: m.SerializeToString(), response_deserializer=answer.FromString)
        given = ask(iter([request]) if method.client_streaming else request)
        yield from given if method.server_streaming else [given]

    def files(self):
        """Files of all services and what they import, each after what it needs."""
        seen = {}

        def add(file):
            if file.name in seen:
                return
            for needed in file.dependencies:
                add(needed)
            proto = descriptor_pb2.FileDescriptorProto()
            file.CopyToProto(proto)
            seen[file.name] = proto

        for service in self.services():
            add(service.file)
        return seen


def generate(server, directory):
    files = server.files()
    pathlib.Path(directory).mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(suffix=".bin") as described:
        described.write(descriptor_pb2.FileDescriptorSet(file=files.values()).SerializeToString())
        described.flush()
        own = [name for name in files if not name.startswith("google/")]
        protoc = [sys.executable, "-m", "grpc_tools.protoc", f"--descriptor_set_in={described.name}"]
        subprocess.run([*protoc, f"--python_out={directory}", f"--grpc_python_out={directory}", *own], check=True)


def main(address, command, *rest):
    server = Server(address)
    if command == "list":
        for service in server.services():
            print(service.full_name)
            for method in service.methods:
                print(f"  {method.name}")
    elif command == "call":
        for answer in server.call(*rest):
            print(json_format.MessageToJson(answer, indent=None, descriptor_pool=server.pool))
    elif command == "generate":
        generate(server, *rest)
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    try:
        main(*sys.argv[1:])
    except grpc.RpcError as error:
        raise SystemExit(f"{error.code().name}: {error.details()}") from None
