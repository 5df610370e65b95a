#!/usr/bin/env bash
# Serve the files of TensorBoard's folder, the last argument: tensorboard [OPTION ...] --logdir=FOLDER
set -euo pipefail
folder="${!#}"
exec python -m http.server 6006 --directory "${folder#--logdir=}"
