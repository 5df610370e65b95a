"""The command `serve`. Imports nothing that is slow to load."""

from argparse import Namespace

from pipeline.commands.command import Command

LIMITS = {
    "--max-batch-tokens": (8192, "tokens that are computed together"),
    "--max-concurrent-requests": (512, "requests in progress; more get status 429"),
    "--max-client-batch-size": (32, "texts of a request"),
    "--max-input-tokens": (8192, "tokens of a text"),
    "--payload-limit": (2_000_000, "bytes of a request"),
}


def _serve(options: Namespace) -> int:
    from pipeline.commands.serving.serve import serve
    from pipeline.serving.limits import Limits

    names = [flag.removeprefix("--").replace("-", "_") for flag in LIMITS]
    limits = Limits(**{name: getattr(options, name) for name in names})
    serve(options.path, options.model, options.host, options.port, limits, options.fixed_batches)
    return 0


SERVE = Command(
    "serve the vectors of a model or of a vector cache over HTTP",
    _serve,
    {
        "path": {
            "metavar": "CACHE_OR_MODEL",
            "help": "vector cache or model folder, a path or URL, or a repository of the Hugging Face hub",
        },
        "--model": {
            "metavar": "MODEL",
            "help": "for a cache: model that computes the vectors of other texts",
        },
        "--host": {"default": "127.0.0.1", "help": "address to listen at (default: %(default)s)"},
        "--port": {
            "type": int,
            "default": 3000,
            "help": "port; 0 means a free one (default: %(default)s)",
        },
        **{
            flag: {"metavar": "N", "type": int, "default": n, "help": f"{what} (default: {n:,})"}
            for flag, (n, what) in LIMITS.items()
        },
        "--fixed-batches": {
            "action": "store_true",
            "help": "a text's vectors are equal to the bit, whatever else is computed",
        },
    },
    (
        "biloom serve runs/quickstart/export",
        "biloom serve runs/quickstart/embed --model runs/quickstart/export --port 8080",
    ),
    details="Routes as in text-embeddings-inference: /embed, /embed_all, /tokenize, /info, /health and "
    "/metrics; and /v1/embeddings as in OpenAI's API. If BILOOM_API_KEY is set, clients must send it as bearer "
    "token. SIGTERM or Ctrl-C finishes the requests in progress and exits with 0.",
)
