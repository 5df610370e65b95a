"""Train a biLM with a Lightning Trainer of your own: callbacks, logger, early stopping, resuming.

biloom run quickstart train.steps=1      # makes runs/quickstart/prepare
python examples/own_trainer.py runs/quickstart/prepare
"""

import sys

from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger

from biloom import LitBiLM, TokenShardDataModule, TrainConfig


class PrintHeldOut(Callback):
    def on_validation_end(self, trainer, module):
        print(f"step {trainer.global_step}: perplexity {module.held_out['average_perplexity']:.1f}")


corpus, steps = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 200
model = {"recurrent": {"kind": "lstm", "hidden": 256, "projection": 96}}
train = TrainConfig(rows=32, unroll=20, steps=steps, learning_rate=8e-3, warmup_steps=50)
best = ModelCheckpoint("checkpoints", monitor="valid_average_perplexity", save_last=True)
trainer = Trainer(
    max_steps=steps,
    val_check_interval=steps // 4,
    check_val_every_n_epoch=None,
    logger=CSVLogger("logs"),
    callbacks=[best, EarlyStopping("valid_loss"), LearningRateMonitor("step"), PrintHeldOut()],
)
trainer.fit(LitBiLM.for_corpus(corpus, model, train), TokenShardDataModule(corpus, train))
# To resume: trainer.fit(module, data, ckpt_path="checkpoints/last.ckpt")
print(f"best: {best.best_model_path}")
