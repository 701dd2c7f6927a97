#!/usr/bin/python3
"""Keeps an image of a volume up to date: full the first time, then only what changed.

    client.py SOCKET VOLUME IMAGE

Stubs of tidemark.v1 and of status.proto must be in PYTHONPATH; docs/write-a-client.md says how they are
made. Beside IMAGE a small file remembers the checkpoint that the image is at.
"""

import json
import os
import subprocess
import sys
import time
import uuid

import grpc
from google.protobuf.duration_pb2 import Duration
from tidemark.v1 import common_pb2 as common
from tidemark.v1 import data_pb2 as data
from tidemark.v1 import data_pb2_grpc, snapshot_pb2_grpc
from tidemark.v1 import snapshot_pb2 as snapshots
import status_pb2

LEASE = Duration(seconds=600)
# A diff cannot be given: everything must be read.
NEEDS_FULL = ("TRACKING_RESET", "CHECKPOINT_GONE")
# The connection or the daemon went away; what it held is still there.
MAY_RESUME = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
TRIES = 5


def blake3(plain):
    """32 bytes. The module `blake3` of PyPI is faster; Debian has this program."""
    return subprocess.run(["b3sum", "--raw"], input=plain, capture_output=True, check=True).stdout


def reason(error):
    """The name to branch on, which the message is not."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                info = status_pb2.ErrorInfo()
                if detail.Unpack(info) and info.domain == "tidemark":
                    return info.reason
    return ""


class Image:
    """A file, the checkpoint that it is at, and the digest of what a stream wrote."""

    def __init__(self, path):
        self.path, self.note = path, path + ".checkpoint"
        self.file = open(path, "r+b" if os.path.exists(path) else "w+b")
        self.leaves = []

    def checkpoint(self):
        try:
            with open(self.note) as note:
                return common.Checkpoint(**json.load(note))
        except FileNotFoundError:
            return None

    def begin(self, header, at):
        if not header.HasField("since") and at == 0:
            # Until the last byte is there, the image is at no checkpoint.
            if os.path.exists(self.note):
                os.remove(self.note)
            self.file.truncate(0)
        self.file.truncate(header.capacity_bytes)

    def write(self, extent):
        leaf = extent.offset_bytes.to_bytes(8, "little") + extent.length_bytes.to_bytes(8, "little")
        leaf += bytes([extent.kind])
        if extent.kind == common.EXTENT_KIND_DATA:
            if blake3(extent.data) != extent.blake3:
                raise ValueError(f"the data at {extent.offset_bytes} is not what was sent")
            plain = extent.data
            leaf += extent.blake3
        else:
            plain = bytes(extent.length_bytes)
        os.pwrite(self.file.fileno(), plain, extent.offset_bytes)
        self.leaves.append(leaf)

    def finish(self, checkpoint):
        os.fsync(self.file.fileno())
        with open(self.note + ".new", "w") as note:
            json.dump({"lineage": checkpoint.lineage, "epoch": checkpoint.epoch}, note)
            note.flush()
            os.fsync(note.fileno())
        os.rename(self.note + ".new", self.note)


def stream(channel, snapshot, since, image):
    """One data stream to its end, through interruptions. Gives the trailer."""
    service = data_pb2_grpc.DataServiceStub(channel)
    at, tries = 0, 0
    while True:
        asked = data.StreamDataRequest(
            snapshot_id=snapshot.id, since=since, start_offset_bytes=at,
            compression=data.COMPRESSION_NONE)
        # A digest covers the extents of its own stream.
        image.leaves = []
        try:
            for answer in service.StreamData(asked):
                part = answer.WhichOneof("part")
                if part == "header":
                    image.begin(answer.header, at)
                elif part == "batch":
                    for extent in answer.batch.extents:
                        image.write(extent)
                    at, tries = answer.batch.resume_offset_bytes, 0
                elif blake3(b"".join(image.leaves)) != answer.trailer.digest:
                    raise ValueError("the stream is not what was sent")
                else:
                    return answer.trailer
            raise ConnectionError("the stream has no trailer: it was cut short")
        except (grpc.RpcError, ConnectionError) as error:
            tries += 1
            resumes = isinstance(error, ConnectionError) or error.code() in MAY_RESUME
            if tries == TRIES or not resumes:
                raise
            time.sleep(tries)


def pull(channel, volume, image):
    service = snapshot_pb2_grpc.SnapshotServiceStub(channel)
    # Leased: should this program die, the snapshot goes by itself. Repeating the call with the same
    # request_id gives the same snapshot.
    asked = snapshots.CreateSnapshotRequest(
        volumes=[volume], lease=LEASE, request_id=str(uuid.uuid4()))
    snapshot = service.CreateSnapshot(asked).snapshots[0]
    since = image.checkpoint()
    try:
        try:
            trailer = stream(channel, snapshot, since, image)
        except grpc.RpcError as error:
            if since is None or reason(error) not in NEEDS_FULL:
                raise
            print(f"everything is read: {reason(error)}", file=sys.stderr)
            since = None
            trailer = stream(channel, snapshot, since, image)
        image.finish(snapshot.checkpoint)
    finally:
        # Its data goes; the checkpoint stays for the next diff.
        service.ReleaseSnapshot(snapshots.ReleaseSnapshotRequest(id=snapshot.id))
    return since, trailer


def main():
    socket, volume, path = sys.argv[1:]
    # What gRPC would call the host of a UNIX socket is not a name that HTTP allows.
    options = [("grpc.default_authority", "tidemark.local"), ("grpc.max_receive_message_length", 8 << 20)]
    with grpc.insecure_channel("unix:" + socket, options) as channel:
        try:
            since, trailer = pull(channel, volume, Image(path))
        except grpc.RpcError as error:
            sys.exit(f"{reason(error) or error.code().name}: {error.details()}")
    kind = "full" if since is None else "incremental"
    print(f"{kind}: {trailer.data_bytes} bytes of data in {trailer.extents} extents")


if __name__ == "__main__":
    main()
