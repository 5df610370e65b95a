"""Upload a model folder to the Hugging Face hub, and load it from there.

hf auth login                            # once; or set HF_TOKEN
python examples/hub.py runs/quickstart/export your-name/your-model
"""

import sys

from biloom import BiLM

folder, repository = sys.argv[1:]
model = BiLM.from_pretrained(folder)
commit = model.push_to_hub(repository, private=True).rpartition("/")[2]
print(f"pushed {repository} at {commit}")

# Later, anywhere: the files of one commit, downloaded once into the cache of huggingface_hub.
loaded = BiLM.from_pretrained(repository, revision=commit)
[ours], [theirs] = model.embed(["A first text."]), loaded.embed(["A first text."])
print(f"the same vectors: {(ours.vectors == theirs.vectors).all()}")
