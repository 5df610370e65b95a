"""Training of a smaller model, the student, with a trained model, its teacher."""
