"""The whole life of a machine, with code that reflect.py generated.

    life.py GENERATED ADDRESS KERNEL INITRD
"""

import hashlib
import pathlib
import queue
import sys
import threading

import grpc

GENERATED, ADDRESS, KERNEL, INITRD = sys.argv[1:]
sys.path.insert(0, GENERATED)

from google.protobuf import field_mask_pb2
from reflect import connect
from skep.v1 import disks_pb2, disks_pb2_grpc, events_pb2, events_pb2_grpc, machines_pb2, machines_pb2_grpc
from skep.v1 import boot_pb2, operations_pb2, operations_pb2_grpc, stats_pb2

CHUNK = 256 << 10
PATIENCE = 120

channel = connect(ADDRESS)
machines = machines_pb2_grpc.MachinesStub(channel)
disks = disks_pb2_grpc.DisksStub(channel)
operations = operations_pb2_grpc.OperationsStub(channel)
events = events_pb2_grpc.EventsStub(channel)


def done(operation):
    """Waits for its end, which must be a good one."""
    for operation in operations.Wait(operations_pb2.WaitOperationRequest(operation=operation.id), timeout=PATIENCE):
        pass
    assert operation.state == operations_pb2.OPERATION_STATE_DONE, operation
    return operation


def import_disk(name, path):
    image = pathlib.Path(path).read_bytes()

    def stream():
        header = disks_pb2.ImportDiskHeader(
            name=name,
            kind=disks_pb2.DISK_KIND_RAW,
            format=disks_pb2.IMAGE_FORMAT_RAW,
            expect_bytes=len(image),
            sha256=hashlib.sha256(image).hexdigest(),
        )
        yield disks_pb2.ImportDiskRequest(header=header)
        for at in range(0, len(image), CHUNK):
            yield disks_pb2.ImportDiskRequest(data=image[at : at + CHUNK])
        yield disks_pb2.ImportDiskRequest(end=disks_pb2.ImportDiskEnd())

    done(disks.Import(stream(), timeout=PATIENCE))


class Console:
    def __init__(self, machine):
        self.typed = queue.Queue()
        attach = machines_pb2.ConsoleAttach(machine=machine, write=True)
        self.typed.put(machines_pb2.ConsoleInput(attach=attach))
        self.stream = machines.Console(iter(self.typed.get, None), timeout=PATIENCE)
        first = next(self.stream)
        assert first.attached.writer, first
        self.seen = b""

    def expect(self, text):
        while text not in self.seen:
            self.seen += next(self.stream).data
        self.seen = self.seen.split(text, 1)[1]

    def type(self, text):
        self.typed.put(machines_pb2.ConsoleInput(data=text))

    def close(self):
        self.typed.put(None)
        self.stream.cancel()


def main():
    watched = []
    watch = events.Watch(events_pb2.WatchEventsRequest(object="machine"))

    def collect():
        try:
            for event in watch:
                watched.append((event.name, event.what, event.detail))
                if event.what == "deleted":
                    return
        except grpc.RpcError:
            pass

    # From before anything happens: the headers of its answer say that it is there.
    watch.initial_metadata()
    collector = threading.Thread(target=collect, daemon=True)
    collector.start()

    import_disk("kernel", KERNEL)
    import_disk("initrd", INITRD)
    direct = boot_pb2.DirectBoot(kernel="kernel", initrd="initrd", cmdline="console=ttyS0 quiet")
    settings = machines_pb2.MachineSettings(cpus=1, memory_mib=128, boot=boot_pb2.Boot(direct=direct))
    made = machines.Create(machines_pb2.CreateMachineRequest(name="py", settings=settings))
    assert made.state == machines_pb2.MACHINE_STATE_STOPPED and made.revision == 1, made
    try:
        machines.Create(machines_pb2.CreateMachineRequest(name="py", settings=settings))
        raise AssertionError("a name was given twice")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.ALREADY_EXISTS, error

    changed = machines.Update(
        machines_pb2.UpdateMachineRequest(
            machine=made.id,
            settings=machines_pb2.MachineSettings(description="made by Python"),
            update_mask=field_mask_pb2.FieldMask(paths=["description"]),
            revision=made.revision,
        )
    )
    assert changed.machine.settings.description == "made by Python" and changed.machine.revision == 2, changed

    done(machines.Start(machines_pb2.MachineActRequest(machine="py")))
    console = Console("py")
    console.expect(b"skep-guest ready")
    console.type(b"\n")
    console.expect(b"# ")
    console.type(b"echo $((6*7))-answer\n")
    console.expect(b"42-answer")
    console.close()

    stats = machines.Stats(stats_pb2.MachineStatsRequest(machine="py"))
    assert stats.cpu_time.ToNanoseconds() > 0, stats
    request = stats_pb2.WatchMachineStatsRequest(machine="py")
    request.interval.FromSeconds(1)
    readings = machines.WatchStats(request, timeout=PATIENCE)
    first, second = next(readings), next(readings)
    assert second.read_time.ToNanoseconds() > first.read_time.ToNanoseconds(), (first, second)
    readings.cancel()
    log = b"".join(chunk.data for chunk in machines.Log(stats_pb2.MachineLogRequest(machine="py", tail=20)))
    assert b"42-answer" in log, log

    done(machines.Stop(machines_pb2.MachineActRequest(machine="py")))
    done(machines.Delete(machines_pb2.DeleteMachineRequest(machine="py", disks=True)))
    try:
        machines.Get(machines_pb2.GetMachineRequest(machine="py"))
        raise AssertionError("it is still there")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.NOT_FOUND, error
    collector.join(PATIENCE)
    whats = [what for name, what, _ in watched if name == "py"]
    states = [detail for name, what, detail in watched if name == "py" and what == "state"]
    assert whats[0] == "created" and "changed" in whats and whats[-1] == "deleted", watched
    assert any("running" in state for state in states) and any("stopped" in state for state in states), watched
    print("a whole life")


main()
