"""Load test of `biloom serve` on loopback: requests per second, latencies, and CPU time beside BiLM.embed.

The server is another process. Each client is a thread that sends one text after the other over one
connection. The same texts are then embedded by `BiLM.encode` in this process, all at once. The last line
printed is a JSON object. Run it as

    taskset -c 1 python benchmarks/serve.py MODEL --texts texts.txt

CPU seconds of both processes are compared, because clients, server and other programs share the cores.
"""

import argparse
import json
import subprocess
import sys
import threading
import time
from http.client import HTTPConnection
from itertools import islice
from pathlib import Path

import numpy as np
import psutil

from lightning_modules.vectors.pretrained import BiLM


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", help="model folder")
    parser.add_argument("--texts", required=True, help="file with one text per line")
    parser.add_argument("--number", type=int, default=400, help="texts to embed")
    parser.add_argument("--clients", type=int, default=16, help="clients at a time")
    parser.add_argument("--fixed-batches", action="store_true", help="as in `biloom serve`")
    options = parser.parse_args()
    lines = Path(options.texts).read_text(encoding="utf-8").splitlines()
    texts = [line for line in lines if line.strip()][: options.number]

    model = BiLM.from_pretrained(options.model)
    model.encode(texts)
    tokens = sum(len(one.tokens) for one in model.reader.read(texts))
    began = time.process_time()
    model.encode(texts)
    embed_seconds = time.process_time() - began

    fixed = ["--fixed-batches"] * options.fixed_batches
    command = [str(Path(sys.executable).with_name("biloom")), "serve", options.model]
    with subprocess.Popen(
        [*command, "--port", "0", *fixed], stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            address = [*islice(server.stdout, 2)][1].split("http://")[1].strip()
            _load(address, texts, options.clients)
            process = psutil.Process(server.pid)
            before = process.cpu_times()
            seconds, taken = _load(address, texts, options.clients)
            after = process.cpu_times()
        finally:
            server.terminate()
    server_seconds = after.user + after.system - before.user - before.system
    figures = {
        "texts": len(texts),
        "tokens": tokens,
        "clients": options.clients,
        "fixed_batches": options.fixed_batches,
        "requests_per_second": round(len(texts) / seconds, 1),
        "p50_ms": round(float(np.percentile(taken, 50)) * 1000, 1),
        "p99_ms": round(float(np.percentile(taken, 99)) * 1000, 1),
        "server_tokens_per_cpu_second": round(tokens / server_seconds),
        "embed_tokens_per_cpu_second": round(tokens / embed_seconds),
        "server_over_embed": round(embed_seconds / server_seconds, 3),
    }
    print(json.dumps(figures))


def _load(address: str, texts: list[str], clients: int) -> tuple[float, list[float]]:
    """Send all texts; return the seconds in total and of each request."""
    waiting, taken = iter(texts), list[float]()
    lock = threading.Lock()

    def work() -> None:
        connection = HTTPConnection(address)
        while True:
            with lock:
                text = next(waiting, None)
            if text is None:
                break
            began = time.monotonic()
            body, headers = json.dumps({"inputs": text}), {"Content-Type": "application/json"}
            connection.request("POST", "/embed", body, headers)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200, answer.status
            taken.append(time.monotonic() - began)
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(clients)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == len(texts)
    return time.monotonic() - began, taken


if __name__ == "__main__":
    main()
