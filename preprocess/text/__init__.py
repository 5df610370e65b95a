"""What is done to a text: cleaning, filters, scripts, MinHash signatures and the split it belongs to."""
