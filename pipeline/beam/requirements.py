"""What an engine needs before a job can be sent to it: packages, Java, a job server, an address."""

import shutil
import socket
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.job_server import JavaJarJobServer
from apache_beam.utils.subprocess_server import JavaHelper

from preprocess.errors import UserError

CONNECT_SECONDS = 10.0
"""Time limit for a connection to an engine."""


class RunnerError(UserError):
    """The engine cannot run the job; the message says what to do."""


def check_installed(kind: str, what: str, *modules: str) -> None:
    """Check that the Python modules of an engine are installed.

    Args:
        kind: kind of the engine, which is also the pip extra that installs the modules.
        what: the packages, for the message.
        modules: the modules that must be importable.

    Raises:
        RunnerError: a module is not installed.
    """
    for module in modules:
        try:
            found = find_spec(module) is not None
        except ModuleNotFoundError:
            found = False
        if not found:
            raise RunnerError(
                f"runner.kind={kind} needs {what}, and {module} is not installed; "
                f"pip install 'biloom[{kind}]'"
            )


def java_command(kind: str) -> str:
    """Return the `java` program, from JAVA_HOME or PATH.

    Args:
        kind: kind of the engine, for the message.

    Raises:
        RunnerError: there is no such program.
    """
    java = JavaHelper.get_java()
    if shutil.which(java) is None:
        raise RunnerError(
            f"runner.kind={kind} needs Java to start Beam's job server, but '{java}' is not found; "
            "install Java 11 or 17 or set JAVA_HOME, or use a running job server with "
            "runner.kind=portable"
        )
    return str(java)


def job_server_jar(server: type[JavaJarJobServer], variable: str | None, **options: Any) -> str:
    """Return the local jar file of a job server, after downloading it if necessary.

    Args:
        server: the class of Beam's job server.
        variable: environment variable that can name the jar, for the message.
        options: Beam's options of the job server; the one ending in "_jar" names the jar.

    Raises:
        RunnerError: the jar does not exist or cannot be downloaded.
    """
    path = next((value for name, value in options.items() if name.endswith("_jar")), None)
    if path and "://" not in path and not Path(path).is_file():
        raise RunnerError(f"runner.options.job_server_jar: no such file: {path}")
    options = {name: value for name, value in options.items() if value is not None}
    try:
        jar = server.local_jar(server(PipelineOptions([], **options)).path_to_jar())
    except Exception as error:
        raise RunnerError(
            f"Beam's job server cannot be downloaded ({error}); download it on another machine, and "
            "set runner.options.job_server_jar to the file"
            + (f", or the environment variable {variable}" if variable else "")
        ) from error
    return str(jar)


def check_reachable(key: str, address: str) -> str:
    """Check that something listens at an address, because Beam would wait for it forever.

    Returns the host, which can be reached without a proxy.

    Args:
        key: option under runner.options that holds the address, for the message.
        address: host:port, optionally after a scheme such as tcp://.

    Raises:
        RunnerError: nothing listens there, or the address has another form.
    """
    host, _, port = address.rpartition("://")[2].rstrip("/").rpartition(":")
    if not host or not port.isdecimal():
        raise RunnerError(f"runner.options.{key}: must be host:port, not '{address}'")
    host = host.strip("[]")
    try:
        with socket.create_connection((host, int(port)), CONNECT_SECONDS):
            return host
    except OSError as error:
        raise RunnerError(
            f"runner.options.{key}: nothing answers at {address} ({error}); start it, or correct "
            "the address"
        ) from error
