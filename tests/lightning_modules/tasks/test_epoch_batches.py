"""The order of batches."""

from lightning_modules.tasks.epoch_batches import EpochBatches


def test_batches_have_each_index_once_and_similar_lengths() -> None:
    lengths = [index % 17 for index in range(100)]
    batches = EpochBatches(lengths, 8, seed=1)
    epochs = []
    for epoch in (0, 1, 0):
        batches.set_epoch(epoch)
        epochs.append(list(batches))
    assert epochs[0] == epochs[2] != epochs[1]
    for found in epochs:
        assert sorted(index for batch in found for index in batch) == list(range(100))
        assert len(found) == len(batches)
        spread = max(max(lengths[i] for i in b) - min(lengths[i] for i in b) for b in found)
        assert spread <= 3
    fixed = EpochBatches(lengths, 8, seed=None)
    assert [lengths[index] for batch in fixed for index in batch] == sorted(lengths)
