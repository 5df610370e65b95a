"""Use a biLM in spaCy: vectors of tokens, and a named entity recogniser trained on them.

pip install 'biloom[spacy]'
python examples/spacy_pipeline.py runs/quickstart/export
"""

import sys

import spacy
from spacy.training import Example

# Not needed after an installation, which registers both names.
import lightning_modules.integrations.spacy_factory
import lightning_modules.integrations.spacy_tok2vec  # noqa: F401

model = sys.argv[1]

nlp = spacy.blank("en")
nlp.add_pipe("biloom", config={"model": model})
doc = nlp("They don't install the package.")
print(f"{len(doc)} tokens, vectors {doc.tensor.shape}, n't: {doc[2].vector.shape}")
print(f"similarity of two words: {doc[3].similarity(doc[5]):.2f}")

# The component `ner` reads the vectors through a listener, as it reads those of any tok2vec.
spacy.util.fix_random_seed(1)
nlp = spacy.blank("en")
layer = {"@architectures": "biloom.Tok2Vec.v1", "model": model, "width": 64, "trainable": False}
nlp.add_pipe("tok2vec", config={"model": layer})
listener = {"@architectures": "spacy.Tok2VecListener.v1", "width": 64}
nlp.add_pipe("ner", config={"model": {"tok2vec": listener}})
texts = [
    ("Install numpy with pip.", [(8, 13, "PACKAGE"), (19, 22, "TOOL")]),
    ("Build torch with make.", [(6, 11, "PACKAGE"), (17, 21, "TOOL")]),
    ("Remove pandas with conda.", [(7, 13, "PACKAGE"), (19, 24, "TOOL")]),
]
examples = [Example.from_dict(nlp.make_doc(text), {"entities": spans}) for text, spans in texts]
optimizer = nlp.initialize(lambda: examples)
optimizer.learn_rate = 0.01
for step in range(40):
    losses = nlp.update(examples, sgd=optimizer)
    if step % 20 == 0:
        print(f"step {step}: loss {losses['ner']:.2f}")
print(f"loss {losses['ner']:.2f}:", [(e.text, e.label_) for e in nlp(texts[0][0]).ents])
