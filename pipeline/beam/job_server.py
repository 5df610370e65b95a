"""Beam's job server for Flink or Spark: a Java process that ends with this one and its jobs."""

import copy
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import apache_beam as beam
from apache_beam.options.pipeline_options import JobServerOptions, PortableOptions
from apache_beam.runners.portability.job_server import JavaJarJobServer
from apache_beam.utils.subprocess_server import pick_port

LAUNCHER = """\
import ctypes, os, signal, sys

driver, *command = sys.argv[1:]
os.setsid()
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
if sys.platform == "linux":
    PR_SET_PDEATHSIG = 1  # kept by exec
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
if os.getppid() == int(driver):
    os.execvp(command[0], command)
"""
"""Program that starts Java in a session of its own, which Ctrl-C and a closing terminal do not reach.

Otherwise the server would end before its job is cancelled. On Linux, the kernel kills the server
when the thread that started it ends for any reason.
"""


@contextmanager
def job_server(server: type[JavaJarJobServer], pipeline: beam.Pipeline) -> Iterator[None]:
    """Run a job server while the block runs, and let ``pipeline`` be sent to it.

    This replaces Beam's own handling of the server. On SIGINT, Beam ends the server first, so that
    the job cannot be cancelled and continues on a cluster; on SIGTERM, it does nothing.

    Args:
        server: the class of the job server.
        pipeline: its options name the jar and the Java command; the address is added to them.
    """
    options = copy.deepcopy(pipeline.options)
    own = options.view_as(JobServerOptions)
    (own.job_port,) = pick_port(None)
    launcher = ["-I", "-S", "-c", LAUNCHER, str(os.getpid()), own.job_server_java_launcher]
    own.job_server_jvm_properties = launcher + own.job_server_jvm_properties
    own.job_server_java_launcher = sys.executable
    process = server(options)
    try:
        process.start()
        pipeline.options.view_as(PortableOptions).job_endpoint = f"localhost:{own.job_port}"
        yield
    finally:
        with suppress(Exception):
            process.stop()
