"""The model as a part of other libraries: scikit-learn, spaCy, flair, the Hugging Face Hub."""
