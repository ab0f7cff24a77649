"""One peer in a process of its own, which rests until asked: one peer works at a time."""

import contextlib
import dataclasses
import importlib
import multiprocessing
import os
import tempfile
import time
import traceback
from typing import NamedTuple

from benchmarks import data
from benchmarks import machine

ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "KERAS_BACKEND": "tensorflow",
    # On a GPU the first process would otherwise take all memory from the others.
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
}


SHORT = 256  # steps


class WorkerError(RuntimeError):
    """The peer raised, or its process ended."""


class Worker:
    """The benchmark's end of the pipe."""

    def __init__(self, case, entry):
        context = multiprocessing.get_context("spawn")  # a forked TensorFlow hangs
        self.pipe, theirs = context.Pipe()
        self.log = tempfile.NamedTemporaryFile()
        arguments = (theirs, self.log.name, case, entry)
        self.process = context.Process(target=serve, args=arguments, daemon=True)
        self.process.start()
        theirs.close()

    def send(self, command, *arguments):
        """Have the process call one method of `Work`."""
        with contextlib.suppress(ConnectionError):  # `receive` says how the process ended
            self.pipe.send((command, *arguments))

    def receive(self):
        """What the method returned."""
        try:
            fine, value = self.pipe.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            said = self.log.read().decode(errors="replace")[-2000:]
            message = f"the process ended with exit code {self.process.exitcode}\n{said}"
            raise WorkerError(message) from None
        if not fine:
            raise WorkerError(value)
        return value

    def stop(self):
        self.pipe.close()
        self.process.join(timeout=10)
        self.process.terminate()
        self.log.close()


def serve(pipe, log, case, entry):
    """The process' end of the pipe."""
    os.environ.update(ENVIRONMENT)
    with open(log, "ab") as file:  # the libraries' chatter would break the progress bar
        os.dup2(file.fileno(), 2)
    work = Work(case, entry)
    while True:
        try:
            command, *arguments = pipe.recv()
        except EOFError:
            return  # the benchmark has closed its end
        try:
            answer = True, getattr(work, command)(*arguments)
        except Exception:
            answer = False, traceback.format_exc()
        pipe.send(answer)


class Built(NamedTuple):
    first: float  # seconds of the first call: tracing, compiling, running
    numbers: list
    later: float  # seconds of a later call


class Work:
    """What a peer is asked for."""

    def __init__(self, case, entry):
        self.case, self.entry = case, entry

    def prepare(self):
        """Import what the peer needs."""
        self.module = importlib.import_module(f"benchmarks.peers.{self.entry.module}")

    def build(self):
        """Build the net and call it."""
        self.peer = self.module.Peer(self.case, data.weights(self.case), **self.entry.options)
        self.peak = None
        if self.case.group == "memory":
            # What a library takes once, it takes for a short sequence; from the long one on it
            # would keep memory for later calls.
            self.peer.load(*data.inputs(dataclasses.replace(self.case, T=SHORT)))
            self.peer.step()
        self.peer.load(*data.inputs(self.case))
        start = time.perf_counter()
        if self.case.group == "memory":
            self.peak = machine.peak_memory(self.peer.step)
        else:
            self.peer.step()
        first = time.perf_counter() - start
        return Built(first, self.peer.numbers(), self.seconds())

    def time(self, calls):
        """Seconds of each call."""
        if calls > 1:  # a short call would show the caches as the last peer left them
            self.peer.step()
        return [self.seconds() for _ in range(calls)]

    def meet(self, T):
        """Seconds of the first call with another number of steps."""
        self.peer.load(*data.inputs(dataclasses.replace(self.case, T=T)))
        return [self.seconds()]

    def used(self):
        """Seconds of all cores that this process has taken."""
        return time.process_time()

    def memory(self):
        if self.peak is not None:
            return self.peak
        return machine.peak_memory(self.peer.step)

    def seconds(self):
        start = time.perf_counter()
        self.peer.step()
        return time.perf_counter() - start
